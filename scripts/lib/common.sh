# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts: where things are, how to speak, how to stop.
# shellcheck shell=bash

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache_dir=${POLYSKETCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polysketch}
lock_file=$source_dir/scripts/deps.lock
libtorch_root=$cache_dir/libtorch-2.11.0
arrow_root=$cache_dir/arrow-26.0.1
sentencepiece_root=$cache_dir/sentencepiece-0.2.2

export POLYSKETCH_CACHE=$cache_dir
export CCACHE_DIR=${CCACHE_DIR:-$cache_dir/ccache}
# Clones in different folders share what they compile.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$source_dir} CCACHE_NOHASHDIR=true

say() { printf '%s\n' "$*"; }
warn() { printf 'WARNING: %s\n' "$*" >&2; }
die() {
  printf 'ERROR: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The CUDA compiler, if there is one of CUDA 13: prints its path.
find_nvcc() {
  local candidate
  for candidate in "${CUDACXX:-}" "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" "$(command -v nvcc 2>/dev/null)" /usr/local/cuda/bin/nvcc \
    "$libtorch_root/nvidia/cu13/bin/nvcc"; do
    if [[ -n $candidate && -x $candidate ]] && "$candidate" --version 2>/dev/null | grep -q 'release 13\.'; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

# A GPU driver, a CUDA compiler, or the user's word (POLYSKETCH_CUDA=0 or 1).
wants_cuda() {
  case ${POLYSKETCH_CUDA:-} in
    1 | ON | on) return 0 ;;
    0 | OFF | off) return 1 ;;
  esac
  [[ -e /dev/nvidiactl ]] || find_nvcc >/dev/null || PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1 '
}

# Compilers at once: one a core, but no more than memory carries (a LibTorch file takes up to 2.5 GB).
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ {print int($2 / 2500000)}' /proc/meminfo)
  ((memory < 1)) && memory=1
  ((memory < cores)) && cores=$memory
  printf '%s\n' "$cores"
}
