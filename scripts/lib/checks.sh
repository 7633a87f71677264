# SPDX-License-Identifier: Apache-2.0
# The steps of scripts/test, and how they are counted.
# shellcheck shell=bash

passed=0
failed=0
skipped=0
failed_names=()
skipped_names=()
runner=() # put before cmake --build and ctest

fail() {
  failed=$((failed + 1))
  failed_names+=("$1")
}

# check NAME COMMAND...: one check, passed or failed
check() {
  local name=$1 begun=$SECONDS
  shift
  say "== $name"
  if "$@"; then
    passed=$((passed + 1))
    say "   passed in $((SECONDS - begun)) s"
  else
    fail "$name"
  fi
}

# build PRESET [CMAKE ARGUMENT...]
build() {
  local preset=$1 begun=$SECONDS log
  shift
  say "== build ($preset)"
  mkdir -p "$source_dir/build/$preset"
  log=$source_dir/build/$preset/build.log
  if ! { cmake --preset "$preset" "$@" && "${runner[@]}" cmake --build --preset "$preset" --parallel "$(build_jobs)"; } >"$log" 2>&1; then
    grep -nE -A12 '(error|Error|FAILED)' "$log" | head -80
    tail -5 "$log"
    say "   the whole of it: $log"
    fail "build ($preset)"
    return 1
  fi
  say "   built in $((SECONDS - begun)) s"
}

# run_ctest PRESET [CTEST ARGUMENT...]: counts every test, prints what failed
run_ctest() {
  local preset=$1 folder report log begun=$SECONDS bad out total
  shift
  folder=$source_dir/build/$preset
  report=$folder/tests.xml
  log=$folder/tests.log
  rm -f "$report"
  say "== tests ($preset)"
  "${runner[@]}" ctest --test-dir "$folder" --parallel "$(nproc)" --output-on-failure --no-tests=error --output-junit "$report" "$@" >"$log" 2>&1
  if [[ ! -s $report ]]; then
    tail -20 "$log"
    fail "tests ($preset)"
    return 1
  fi
  number() { grep -o -m1 "$1=\"[0-9]*\"" "$report" | tr -dc '0-9'; }
  total=$(number tests)
  bad=$(number failures)
  out=$(($(number skipped) + $(number disabled)))
  ((total > 0)) || fail "tests ($preset): none was found"
  passed=$((passed + total - bad - out))
  skipped=$((skipped + out))
  mapfile -t -O "${#skipped_names[@]}" skipped_names < <(sed -n "s/^.*Test *#[0-9]*: \([^ ]*\) .*\*\*\*\(Skipped\|Not Run (Disabled)\).*/\1 ($preset)/p" "$log")
  if ((bad > 0)); then
    failed=$((failed + bad))
    mapfile -t -O "${#failed_names[@]}" failed_names < <(sed -n "/^The following tests FAILED/,/^Errors while/s/^[[:space:]]*[0-9]* - \(.*\)/\1 [$preset]/p" "$log")
    grep -vE '^ *[0-9]+/[0-9]+ Test .*(Passed|\*\*\*Skipped)|^ *Start +[0-9]+:' "$log" | head -300
  fi
  say "   $total tests in $((SECONDS - begun)) s, $bad failed, $out skipped"
}

# ThreadSanitizer's shadow memory clashes with much address-space randomisation; without any, it always fits. A container may forbid that.
set_fixed_layout() {
  runner=()
  if setarch "$(uname -m)" -R true 2>/dev/null; then
    runner=(setarch "$(uname -m)" -R)
  fi
}

sources() { git -C "$source_dir" ls-files --cached --others --exclude-standard -- "$@" | sort; }

check_format() {
  local files
  mapfile -t files < <(sources 'src/*.cpp' 'src/*.hpp' 'src/*.inl' 'src/*.cu' 'src/*.cuh' 'tests/*.cpp' 'tests/*.hpp' 'benchmarks/*.cpp' 'benchmarks/*.hpp')
  ((${#files[@]} > 0)) && clang-format --dry-run -Werror "${files[@]/#/$source_dir/}"
}

check_shell() {
  local files
  cd "$source_dir" || return 1
  mapfile -t files < <(sources 'scripts/*' 'tests/launch/*' '.ci/*' | xargs grep -lE '^#!.*\bbash|^# shellcheck shell=bash')
  # Names that one file sets and another, which sources it, uses look unused or unset.
  shellcheck -x -S warning -e SC2034,SC2154 "${files[@]}"
}

# The core's files, with the compile commands of the asan build (no LibTorch headers to parse).
check_tidy() {
  local files
  # clang 14 cannot read SentencePiece's headers with GCC 12's library (std::source_location).
  mapfile -t files < <(sources 'src/support/*.cpp' 'src/config/*.cpp' 'src/data/*.cpp' 'src/checkpoint/*.cpp' 'src/reporting/*.cpp' 'src/launch/*.cpp' |
    xargs grep -L 'include.*sentencepiece_')
  ((${#files[@]} > 0)) && printf '%s\0' "${files[@]/#/$source_dir/}" |
    xargs -0 -n 4 -P "$(nproc)" clang-tidy --quiet --extra-arg=-Wno-unknown-warning-option -p "$source_dir/build/asan" 2>/dev/null
}
