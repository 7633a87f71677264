#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A trained model in plain PyTorch: loads a checkpoint's tensors with the safetensors package and maps them to a torch.nn.Module.

  scripts/pytorch_model.py runs/demo/checkpoints/step-00001000     lists names and shapes, and checks that they are those of the model

In a program of your own (PyTorch and safetensors are all that it needs):

  from pytorch_model import load
  model = load("runs/demo/checkpoints/step-00001000")
  logits = model(torch.tensor([[1, 5, 9]]))                         # [batch, length, vocabulary]

The modules have the names that the tensors have in the file. Softmax and polynomial attention; fp32. It is written for reading, not for speed.
"""
import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from torch import nn


def tensors_of(checkpoint):
    """The parameters by name, whether one process wrote them or several."""
    from safetensors.torch import load_file

    index = checkpoint / "model.safetensors.index.json"
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    return {name: tensor for file in files for name, tensor in load_file(str(checkpoint / file)).items()}


def config_of(checkpoint):
    return json.loads((checkpoint / "manifest.json").read_text())["state"]["config"]


def load(checkpoint):
    """The model of a checkpoint folder, ready to compute. Every tensor has its place, and every place its tensor."""
    checkpoint = pathlib.Path(checkpoint)
    model = Model(config_of(checkpoint))
    model.load_state_dict(tensors_of(checkpoint), strict=True)
    return model.eval()


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return F.layer_norm(x, self.gain.shape, self.gain, self.bias, 1e-5)


def rotate(x):
    """Rotary positions of [B, H, T, D]: pairs (2i, 2i + 1) in, halves out."""
    length, head = x.shape[2], x.shape[3]
    angle = torch.arange(length, dtype=torch.float64)[:, None] * 10000.0 ** (-torch.arange(0, head, 2).double() / head)
    cos, sin = torch.cos(angle).float(), torch.sin(angle).float()
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], -1)


class Attention(nn.Module):
    def __init__(self, width, heads, attention):
        super().__init__()
        self.heads, self.kind, self.degree = heads, attention["kind"], attention["degree"]
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        if self.kind == "polynomial":
            self.norm = Norm(width // heads)  # of queries and keys
        elif self.kind != "softmax":
            raise NotImplementedError(f"attention {self.kind} is not written here")

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(width, -1))
        q, k = rotate(q), rotate(k)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        if self.kind == "softmax":
            scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
            mixed = torch.softmax(scores.masked_fill(~causal, -math.inf), -1) @ v
        else:
            q, k = self.norm(q).double(), self.norm(k).double()
            weights = torch.where(causal, (q @ k.transpose(-1, -2)) ** self.degree, 0.0)
            mixed = ((weights @ v.double()) / (1 + weights.sum(-1, keepdim=True))).float()
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class GatedUnit(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        linear, gate = self.up(x).chunk(2, -1)
        return self.down(linear * F.gelu(gate, approximate="tanh"))


class Block(nn.Module):
    def __init__(self, model, attention):
        super().__init__()
        self.norm1, self.norm2 = Norm(model["width"]), Norm(model["width"])
        self.attention = Attention(model["width"], model["heads"], attention)
        self.glu = GatedUnit(model["width"], model["hidden"])

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.glu(self.norm2(x))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        model = config["model"]
        self.width = model["width"]
        self.scale = math.sqrt(self.width) if model.get("embedding_scale", "one") == "sqrt_width" else 1
        self.embedding = nn.Embedding(model["vocabulary"], self.width)
        self.blocks = nn.ModuleList(Block(model, config["attention"]) for _ in range(model["layers"]))
        self.norm = Norm(self.width)
        self.logit_bias = nn.Parameter(torch.zeros(model["vocabulary"]))

    def positions(self, length):
        width = self.width
        angle = torch.arange(length, dtype=torch.float64)[:, None] * 10000.0 ** (-torch.arange(width // 2) / (width / 2)).double()
        table = torch.empty(length, width, dtype=torch.float64)
        table[:, 0::2], table[:, 1::2] = torch.sin(angle), torch.cos(angle)
        return table.float()

    def forward(self, ids):
        """[B, T] ids to logits [B, T, V]."""
        x = self.embedding(ids) * self.scale + self.positions(ids.shape[1])
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embedding.weight.T + self.logit_bias


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv or "-h" in sys.argv else 64)
    checkpoint = pathlib.Path(sys.argv[1])
    tensors = tensors_of(checkpoint)
    for name, tensor in tensors.items():
        print(f"{name:40} {list(tensor.shape)}")
    load(checkpoint)
    print(f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors.values()):,} parameters: all fit the model")


if __name__ == "__main__":
    main()
