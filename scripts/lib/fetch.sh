# SPDX-License-Identifier: Apache-2.0
# Archives named by scripts/deps.lock: fetched once, checked by their hash, unpacked beside their place and then moved into it.
# A mark `.complete-PACKAGE` holding the lock line's hash is written last; without it, whatever lies there is thrown away.
# shellcheck shell=bash

lock_line() { grep -m1 "^$1==" "$lock_file" || die "$1 is not in $lock_file"; }
lock_hash() { lock_line "$1" | sed -n 's/.*--hash=sha256:\([0-9a-f]\{64\}\).*/\1/p'; }
lock_version() { lock_line "$1" | sed 's/^[^=]*==\([^ ]*\).*/\1/'; }

mark_of() {
  case $1 in
    pyarrow) printf '%s\n' "$arrow_root/.complete-$1" ;;
    sentencepiece) printf '%s\n' "$sentencepiece_root/.complete-$1" ;;
    *) printf '%s\n' "$libtorch_root/.complete-$1" ;;
  esac
}

is_installed() {
  local mark
  mark=$(mark_of "$1")
  [[ -f $mark && $(<"$mark") == "$(lock_hash "$1")" ]]
}

set_mark() { lock_hash "$1" >"$(mark_of "$1")"; }

# Path of the archive at hand, whole or not; fails if there is none.
archive_of() {
  local stem file
  stem=${1//-/_}-$(lock_version "$1")
  for file in "$cache_dir/downloads/$stem"-*.whl "$cache_dir/downloads/$stem.tar.gz"; do
    if [[ -f $file ]]; then
      printf '%s\n' "$file"
      return 0
    fi
  done
  return 1
}

has_good_archive() {
  local file
  file=$(archive_of "$1") || return 1
  if [[ $(sha256sum <"$file" | cut -d' ' -f1) != "$(lock_hash "$1")" ]]; then
    warn "$file does not have the locked hash; fetching it again"
    rm -f "$file"
    return 1
  fi
}

# pip does the fetching, so that its configured indexes, proxies and certificates hold. It gets the hashes as well and checks them.
pip_download() {
  local folder=$1
  shift
  python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --dest "$folder" "$@"
}

# The wheels are the same for every Python of the user, since only the libraries in them are used: one variant is locked.
wheel_platform=(--only-binary :all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none)
for tag in 2_28 2_27 2_25 2_18 2_17 2_12; do wheel_platform+=(--platform "manylinux_${tag}_x86_64"); done
wheel_platform+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform any)

# fetch_one PACKAGE PIP_ARGUMENT...: the archive gets its name in downloads/ only when it is whole
fetch_one() {
  local package=$1 partial
  shift
  has_good_archive "$package" && return
  say "fetching $package $(lock_version "$package")"
  partial=$(mktemp -d "$cache_dir/downloads/.partial.XXXXXX")
  lock_line "$package" >"$partial/requirements"
  pip_download "$partial" "$@" --requirement "$partial/requirements" || die "could not fetch $package (see pip's message above)"
  rm -f "$partial/requirements"
  mv "$partial"/* "$cache_dir/downloads/"
  rm -rf "$partial"
}

# pip runs a source archive's own code to learn its name and version, with a setuptools that understands it.
fetch_source() {
  has_good_archive "$1" && return
  local tools
  fetch_one setuptools "${wheel_platform[@]}"
  tools=$(unpack setuptools)
  PYTHONPATH=$tools fetch_one "$1" --no-binary :all: --no-build-isolation
  rm -rf "$tools"
}

fetch_packages() {
  local package
  python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip (Debian package python3-pip)"
  for package in "$@"; do
    case $package in
      sentencepiece) fetch_source "$package" ;;
      *) fetch_one "$package" "${wheel_platform[@]}" ;;
    esac
  done
}

# unpack PACKAGE PATTERN...: prints the temporary folder with those members of the archive
unpack() {
  local package=$1 archive folder
  shift
  archive=$(archive_of "$package") || die "the archive of $package is gone"
  folder=$(mktemp -d "$cache_dir/.unpack.XXXXXX")
  case $archive in
    *.whl) unzip -q "$archive" "$@" -d "$folder" || die "$archive cannot be unpacked" ;;
    *) tar -xzf "$archive" -C "$folder" || die "$archive cannot be unpacked" ;;
  esac
  printf '%s\n' "$folder"
}

# replace FROM TO: an incomplete TO of an interrupted run goes
replace() {
  rm -rf "$2"
  mkdir -p "$(dirname "$2")"
  mv "$1" "$2"
}

# Python's side stays: the checks against PyTorch itself (scripts/check_model, scripts/race) use it, and it is a tenth of the size.
install_torch() {
  local folder part
  say "unpacking LibTorch $(lock_version torch)"
  folder=$(unpack torch)
  rm -rf "$folder"/torch/bin/protoc* "$folder"/torch/test
  cp -r "$folder"/torch-*.dist-info/licenses "$folder/torch/licenses"
  for part in "$folder"/*; do replace "$part" "$libtorch_root/$(basename "$part")"; done
  rm -rf "$folder"
  set_mark torch
}

install_arrow() {
  local folder
  say "unpacking Apache Arrow $(lock_version pyarrow)"
  folder=$(unpack pyarrow 'pyarrow/libarrow.so.*' 'pyarrow/libparquet.so.*' 'pyarrow/libarrow_s3.so.*' 'pyarrow/include/*' 'pyarrow-*.dist-info/licenses/*')
  mv "$folder"/pyarrow-*.dist-info/licenses "$folder/pyarrow/licenses"
  replace "$folder/pyarrow" "$arrow_root/pyarrow"
  rm -rf "$folder"
  set_mark pyarrow
}

# Several wheels share the folder nvidia/cu13; each file gets its name only when it is whole.
install_nvidia() {
  local folder
  say "unpacking $1 $(lock_version "$1")"
  folder=$(unpack "$1" 'nvidia/*')
  mkdir -p "$libtorch_root"
  cp -rlf "$folder/nvidia" "$libtorch_root/"
  rm -rf "$folder"
  [[ $1 == nvidia-cuda-nvcc || $1 == nvidia-nvvm ]] && complete_nvcc
  set_mark "$1"
}

# A wheel keeps no execute bits, and nvcc looks for libraries in lib64.
complete_nvcc() {
  local root=$libtorch_root/nvidia/cu13
  chmod -fR a+x "$root/bin" "$root/nvvm/bin" 2>/dev/null || true
  [[ -e $root/lib64 ]] || ln -s lib "$root/lib64"
}

install_sentencepiece() {
  local folder root prefix common
  say "building SentencePiece $(lock_version sentencepiece) (about three minutes on two cores, once)"
  folder=$(unpack sentencepiece)
  root=$(echo "$folder"/sentencepiece-*/sentencepiece)
  prefix=$folder/prefix
  common=(-GNinja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_STANDARD=17 -DCMAKE_POSITION_INDEPENDENT_CODE=ON "-DCMAKE_INSTALL_PREFIX=$prefix")
  have ccache && common+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache)
  mkdir -p "$prefix/licenses"
  {
    cmake -S "$root/third_party/abseil-cpp" -B "$folder/absl" "${common[@]}" -DABSL_PROPAGATE_CXX_STD=ON -DBUILD_TESTING=OFF &&
      cmake --build "$folder/absl" --target install --parallel "$(build_jobs)" &&
      cmake -S "$root" -B "$folder/sp" "${common[@]}" -DSPM_ABSL_PROVIDER=package -DSPM_PROTOBUF_PROVIDER=internal \
        -DSPM_ENABLE_SHARED=OFF -DSPM_ENABLE_TCMALLOC=OFF "-DCMAKE_PREFIX_PATH=$prefix" &&
      cmake --build "$folder/sp" --target install --parallel "$(build_jobs)"
  } >"$cache_dir/sentencepiece-build.log" 2>&1 || die "the build of SentencePiece failed; see $cache_dir/sentencepiece-build.log"
  (cd "$root" && find . -name 'LICENSE*' -exec cp --parents {} "$prefix/licenses/" \;)
  replace "$prefix" "$sentencepiece_root"
  rm -rf "$folder" "$cache_dir/sentencepiece-build.log"
  set_mark sentencepiece
}
