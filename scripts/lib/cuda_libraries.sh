# SPDX-License-Identifier: Apache-2.0
# Which CUDA libraries does LibTorch need that this system lacks? LibTorch looks first in ../../nvidia/*/lib beside itself, then
# where the dynamic loader looks.
# shellcheck shell=bash

ldconfig_cache() {
  if [[ -z ${_ldconfig_cache+x} ]]; then
    _ldconfig_cache=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep 'x86-64' || true)
  fi
  printf '%s\n' "$_ldconfig_cache"
}

# Folders of CUDA toolkits that may not be in the loader's list.
toolkit_folders() {
  local root
  for root in "${CUDA_HOME:-}" /usr/local/cuda /usr/local/cuda-13*; do
    [[ -n $root && -d $root ]] && printf '%s\n' "$root/lib64" "$root/lib" "$root/targets/x86_64-linux/lib"
  done
  return 0
}

# system_library SONAME: prints where the system has it
system_library() {
  local path folder
  path=$(ldconfig_cache | sed -n "s|^[[:space:]]*$1 (.*) => ||p" | head -1)
  if [[ -n $path ]]; then
    printf '%s\n' "$path"
    return 0
  fi
  while read -r folder; do
    if [[ -e $folder/$1 ]]; then
      printf '%s\n' "$folder/$1"
      return 0
    fi
  done < <(toolkit_folders)
  return 1
}

# system_has SONAME[>=VERSION]: a version that the file's name does not tell is believed
system_has() {
  local soname=${1%%>=*} least="" path version
  [[ $1 == *">="* ]] && least=${1#*>=}
  path=$(system_library "$soname") || return 1
  [[ -z $least ]] && return 0
  version=$(basename "$(realpath "$path")" | sed -n 's/.*\.so\.\([0-9]*\.[0-9.]*\)$/\1/p')
  [[ -z $version ]] || printf '%s\n%s\n' "$least" "$version" | sort -V -C
}

# Names of the packages of the lock file that have to be there besides LibTorch itself, one a line.
missing_cuda_packages() {
  local line package group sonames soname cuda=0
  wants_cuda && cuda=1
  while read -r line; do
    package=${line%%==*}
    read -r group sonames <<<"${line##*# }"
    case $group in
      base) ;;
      cuda) ((cuda)) || continue ;;
      nvcc)
        ((cuda)) || continue
        # One that was fetched earlier does not count as the system's: its parts stay wanted.
        [[ $(find_nvcc) == "$libtorch_root"/* || -z $(find_nvcc) ]] && printf '%s\n' "$package"
        continue
        ;;
      *) continue ;;
    esac
    for soname in $sonames; do
      if ! system_has "$soname"; then
        printf '%s\n' "$package"
        break
      fi
    done
  done < <(grep -v '^#' "$lock_file")
}

# Libraries of a toolkit that the loader does not know of get a link where LibTorch looks.
link_unlisted_cuda_libraries() {
  local soname path folder=$libtorch_root/nvidia/cu13/lib
  for soname in $(sed -n 's/^[^#].*# \(base\|cuda\) //p' "$lock_file" | sed 's/>=[0-9.]*//g'); do
    ldconfig_cache | grep -q "[[:space:]]$soname (" && continue
    [[ -e $folder/$soname ]] && continue
    path=$(system_library "$soname") || continue
    mkdir -p "$folder"
    ln -sfn "$path" "$folder/$soname"
  done
}

# check_libtorch FOLDER: the right version, and nothing unresolved
check_libtorch() {
  local header=$1/include/torch/headeronly/version.h version lost
  [[ -f $header && -e $1/lib/libtorch_cpu.so ]] || die "$1 is not a LibTorch folder (include/ and lib/libtorch_cpu.so are expected)"
  version=$(sed -n 's/^#define TORCH_VERSION_\(MAJOR\|MINOR\) //p' "$header" | paste -sd.)
  [[ $version == 2.11 ]] || die "$1 holds LibTorch $version; 2.11 is needed"
  lost=$(ldd "$1/lib/libtorch_cpu.so" 2>/dev/null | awk '/not found/ {print $1}' | paste -sd' ')
  [[ -z $lost ]] || die "LibTorch in $1 needs libraries that are not there: $lost"
}
