#!/usr/bin/env bash
# Lets the fuzzer look for bodies, readings and answers that the codecs cannot take: each target for so many seconds
# (the first argument, 10 by default), or those that are named after it; as many at a time as there are processors. What a
# run finds worth keeping goes to corpus/, which is not kept in the repository; seeds/ is. A body that breaks something is
# left in artifacts/.
#
# It needs no other toolchain than the gateway: with `unsafe` forbidden there is nothing for a sanitizer to find, and
# coverage alone works with a stable compiler. The flags are those of `cargo fuzz run --sanitizer none`, which works here,
# too, but would have to be built first.
set -euo pipefail
cd "$(dirname "$0")"

export seconds="${1:-10}"
shift || true
if [[ $# -eq 0 ]]; then
  set -- json ndjson senml influx encoded answers
fi

host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
coverage+=" -Cllvm-args=-simplifycfg-branch-fold-threshold=0"
# With a target named, build scripts and macros are built without these.
RUSTFLAGS="$coverage --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1" \
  cargo build --release --locked --quiet --target "$host" "${@/#/--bin=}"
export built="${CARGO_TARGET_DIR:-target}/$host/release"

fuzz() {
  local target=$1 log="target/$1.log"
  mkdir -p "corpus/$target" "seeds/$target" "artifacts/$target"
  if ! "$built/$target" "corpus/$target" "seeds/$target" -artifact_prefix="artifacts/$target/" \
    -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
    >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "fuzzing $target: FAILED"
    return 1
  fi
  echo "fuzzed $target for $seconds s, $(grep -o "number_of_executed_units: .*" "$log")"
}
export -f fuzz
mkdir -p target
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
