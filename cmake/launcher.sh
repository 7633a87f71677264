#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts the installed program with the LibTorch 2.11 of this machine: that of LIBTORCH_DIR, else the one that scripts/setup keeps, else
# the one in python3's torch package.
root=$(dirname "$(dirname "$(readlink -f "$0")")")

is_right() {
  [ -e "$1/lib/libtorch_cpu.so" ] && grep -qs 'TORCH_VERSION_MINOR 11$' "$1/include/torch/headeronly/version.h" &&
    grep -qs 'TORCH_VERSION_MAJOR 2$' "$1/include/torch/headeronly/version.h"
}

find_libtorch() {
  if [ -n "$LIBTORCH_DIR" ]; then
    libtorch=$LIBTORCH_DIR
    is_right "$libtorch"
    return
  fi
  libtorch=${POLYSKETCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polysketch}/libtorch-2.11.0/torch
  is_right "$libtorch" && return
  # Finding a package does not load it: this takes some hundredths of a second.
  libtorch=$(python3 -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")' 2>/dev/null)
  is_right "$libtorch"
}

if ! find_libtorch; then
  echo "ERROR 78: LibTorch 2.11 was not found${LIBTORCH_DIR:+ in LIBTORCH_DIR=$LIBTORCH_DIR}: set LIBTORCH_DIR to a folder with its include/ and lib/, or install torch 2.11 for python3" >&2
  exit 78
fi
export LIBTORCH_DIR="$libtorch"
export LD_LIBRARY_PATH="$libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$root/lib/${POLYSKETCH_INSTALLED_PROGRAM:-polysketch}" "$@"
