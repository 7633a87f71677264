// SPDX-License-Identifier: Apache-2.0
#include "config/other_names.hpp"

#include <algorithm>
#include <vector>

namespace polysketch {
namespace {

struct Entry {
  std::string_view key, note;
  std::vector<std::string_view> names;  // small letters, no separators
};

const std::vector<Entry>& entries() {
  constexpr std::string_view sequences = "in tokens: sequences times data.context";
  static const std::vector<Entry> all{
      {"schedule.peak",
       "the highest of the run",
       {"learningrate", "lr", "maxlr", "peaklr", "baselr", "maxlearningrate", "peaklearningrate"}},
      {"schedule.final_fraction",
       "as a share of schedule.peak",
       {"minlr", "minlearningrate", "minlrratio", "finallr", "endlr", "lrend", "etamin"}},
      {"schedule.warmup",
       "in steps",
       {"warmupsteps", "warmupiters", "numwarmupsteps", "lrwarmupsteps", "lrwarmupiters",
        "warmupratio", "warmuptokens"}},
      {"schedule.kind",
       "",
       {"lrscheduler", "lrschedulertype", "scheduler", "schedulertype", "lrschedule",
        "lrdecaystyle"}},
      {"schedule.decay_fraction",
       "as a share of training.steps",
       {"lrdecayiters", "lrdecaysteps", "decaysteps", "cooldownsteps", "cooldown",
        "warmdowniters"}},
      {"training.batch_tokens",
       sequences,
       {"batchsize", "globalbatchsize", "trainbatchsize", "totalbatchsize", "gbs"}},
      {"training.micro_batch_tokens",
       sequences,
       {"microbatchsize", "devicebatchsize", "perdevicebatchsize", "perdevicetrainbatchsize",
        "trainmicrobatchsizepergpu", "localbatchsize", "mbs"}},
      {"training.micro_batch_tokens",
       "training.batch_tokens divided by the number of accumulated passes",
       {"gradientaccumulationsteps", "gradaccumulationsteps", "gradaccum", "gradaccumsteps",
        "accumulategradbatches", "accumulationsteps"}},
      {"training.steps",
       "in optimiser steps of training.batch_tokens",
       {"maxsteps", "maxiters", "numsteps", "numiterations", "totalsteps", "trainsteps",
        "numtrainsteps", "trainiters", "iters", "iterations", "epochs", "epoch", "numepochs",
        "maxepochs", "numtrainepochs", "maxtokens", "totaltokens", "traintokens"}},
      {"training.precision",
       "fp32 or bf16",
       {"dtype", "torchdtype", "datatype", "mixedprecision", "fp16", "bf16", "amp"}},
      {"training.device", "", {"device", "accelerator"}},
      {"training.threads",
       "",
       {"numthreads", "nthreads", "ompnumthreads", "intraopthreads", "cputhreads"}},
      {"model.layers",
       "",
       {"numlayers", "nlayer", "nlayers", "numhiddenlayers", "depth", "numblocks", "nblocks"}},
      {"model.heads", "", {"numheads", "nhead", "nheads", "numattentionheads"}},
      {"model.width",
       "",
       {"dmodel", "nembd", "nembed", "hiddensize", "hiddendim", "embdim", "embeddim",
        "embeddingdim", "embeddingsize", "modeldim", "dim"}},
      {"model.hidden",
       "width of the gated layer",
       {"dff", "dffn", "intermediatesize", "ffnhiddensize", "ffndim", "ffdim", "feedforwarddim",
        "ninner", "mlpdim"}},
      {"model.vocabulary",
       "",
       {"vocabsize", "vocab", "nvocab", "paddedvocabsize", "vocabularysize"}},
      {"model.dropout",
       "",
       {"attnpdrop", "residpdrop", "hiddendropout", "attentiondropout", "dropoutrate",
        "dropoutprob", "hiddendropoutprob"}},
      {"model.recompute",
       "",
       {"gradientcheckpointing", "activationcheckpointing", "usecheckpoint", "recomputation",
        "remat", "recomputeactivations"}},
      {"data.context",
       "in tokens",
       {"blocksize", "seqlen", "seqlength", "sequencelength", "maxseqlen", "maxseqlength",
        "maxlength", "maxsequencelength", "maxpositionembeddings", "contextlength", "contextsize",
        "contextwindow", "contextlen", "ctxlen", "nctx", "npositions"}},
      {"data.root",
       "a folder with train, validation and test",
       {"datadir", "datapath", "datasetpath", "datasetdir", "dataroot", "trainfile", "traindata",
        "datafolder"}},
      {"data.corpus", "a name of data/corpora", {"dataset", "datasetname"}},
      {"data.tokenizer.path",
       "a SentencePiece model",
       {"tokenizername", "tokenizerpath", "tokenizermodel", "tokenizerfile", "tokenizernameorpath",
        "vocabfile", "spmodel"}},
      {"data.threads",
       "",
       {"numworkers", "dataloadernumworkers", "workers", "dataworkers", "preprocessingnumworkers"}},
      {"optimizer.weight_decay", "", {"weightdecay", "wd"}},
      {"optimizer.clip",
       "a norm",
       {"gradclip", "clipgrad", "clipgradnorm", "maxgradnorm", "gradientclipval",
        "gradientclipping", "gradnormclip", "clipnorm"}},
      {"optimizer.beta1", "optimizer.beta2 beside it", {"betas", "adambeta1"}},
      {"optimizer.beta2", "", {"adambeta2"}},
      {"optimizer.epsilon", "", {"eps", "adamepsilon", "adameps"}},
      {"optimizer.kind", "", {"optim", "optimizername", "optimizertype"}},
      {"run.seed", "", {"seed", "randomseed", "rngseed"}},
      {"run.name", "", {"runname", "experiment", "experimentname", "wandbrunname", "jobname"}},
      {"run.directory",
       "",
       {"outputdir", "outdir", "output", "savedir", "savepath", "defaultrootdir", "checkpointdir",
        "ckptdir", "logdir", "loggingdir", "rundir", "workdir", "resultsdir"}},
      {"evaluation.every",
       "in steps",
       {"evalinterval", "evalsteps", "evalevery", "evalfreq", "valinterval", "valcheckinterval",
        "valevery", "evaluationinterval"}},
      {"evaluation.tokens",
       "in tokens",
       {"evaliters", "evalbatches", "limitvalbatches", "valsteps", "maxevalsamples"}},
      {"checkpoint.every",
       "in steps",
       {"saveinterval", "savesteps", "saveevery", "savefreq", "checkpointinterval",
        "checkpointevery", "ckptinterval", "checkpointfreq"}},
      {"checkpoint.keep_last",
       "",
       {"savetotallimit", "savetopk", "keepcheckpoints", "maxcheckpoints", "keeplastn"}},
      {"logging.every",
       "in steps",
       {"loginterval", "loggingsteps", "logevery", "logfreq", "logeverynsteps"}},
      {"attention.kind", "", {"attentiontype", "attn", "attentionkind", "attnimplementation"}},
      {"training", "", {"train", "trainer"}},
      {"model", "", {"architecture", "network", "transformer"}},
      {"evaluation", "", {"eval", "val", "validation"}},
  };
  return all;
}

}  // namespace

std::optional<OtherName> other_name(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (c == '-' || c == '_') continue;
    plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  for (const Entry& entry : entries()) {
    if (std::find(entry.names.begin(), entry.names.end(), plain) != entry.names.end())
      return OtherName{std::string(entry.key), std::string(entry.note)};
  }
  return std::nullopt;
}

}  // namespace polysketch
