# SPDX-License-Identifier: Apache-2.0
# Debian packages: installs what is missing when it may, else names it.
# shellcheck shell=bash

build_packages=(g++ cmake ninja-build ccache git ca-certificates python3 python3-pip unzip binutils
  libyaml-cpp-dev libspdlog-dev libfmt-dev libcli11-dev nlohmann-json3-dev zlib1g-dev libgtest-dev libgmock-dev
  libbenchmark-dev libgloo-dev bible-kjv-text)
developer_packages=(clang-format clang-tidy shellcheck iproute2)

# Elsewhere than on Debian only the tools can be looked for; libraries show in CMake's messages.
ensure_tools() {
  local tool missing=()
  for tool in g++ cmake ninja git python3 unzip strip; do
    have "$tool" || missing+=("$tool")
  done
  ((${#missing[@]} == 0)) || die "missing: ${missing[*]}; the Debian names of all that is needed: ${build_packages[*]}"
}

# $1: 1 with the developers' checkers
ensure_debian_packages() {
  local wanted=("${build_packages[@]}") missing=() as_root=() package
  [[ $1 == 1 ]] && wanted+=("${developer_packages[@]}")
  if ! have dpkg-query || ! have apt-get; then
    ensure_tools
    return
  fi
  local installed
  # shellcheck disable=SC2016  # the ${...} are dpkg-query's
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
  for package in "${wanted[@]}"; do
    grep -qx "installed $package" <<<"$installed" || missing+=("$package")
  done
  ((${#missing[@]} == 0)) && return
  if [[ ${POLYSKETCH_NO_APT:-0} != 1 && $(id -u) == 0 ]]; then
    as_root=(env)
  elif [[ ${POLYSKETCH_NO_APT:-0} != 1 ]] && have sudo && sudo -n true 2>/dev/null; then
    as_root=(sudo -n env)
  else
    die "these Debian packages are missing: apt-get install --no-install-recommends ${missing[*]}"
  fi
  say "installing Debian packages: ${missing[*]}"
  "${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null || warn "apt-get update failed; going on with the lists at hand"
  "${as_root[@]}" DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}"
}
