#!/usr/bin/env bash
# Lets the fuzzer look for bodies, readings and answers that the codecs cannot take: each target for so many seconds
# (the first argument, 10 by default), or those that are named after it. What a run finds worth keeping goes to corpus/,
# which is not kept in the repository; seeds/ is. A body that breaks something is left in artifacts/.
#
# It needs no other toolchain than the gateway: with `unsafe` forbidden there is nothing for a sanitizer to find, and
# coverage alone works with a stable compiler.
set -euo pipefail
cd "$(dirname "$0")"

seconds="${1:-10}"
shift || true
if [[ $# -eq 0 ]]; then
  set -- json ndjson senml influx encoded answers
fi

tools="$PWD/target/tools"
if ! command -v cargo-fuzz >/dev/null && [[ ! -x "$tools/bin/cargo-fuzz" ]]; then
  cargo install cargo-fuzz --version 0.13.2 --locked --quiet --root "$tools"
fi
export PATH="$tools/bin:$PATH"

cd ..
for target in "$@"; do
  mkdir -p "fuzz/target" "fuzz/corpus/$target" "fuzz/seeds/$target"
  echo "fuzzing $target for $seconds s"
  log="fuzz/target/$target.log"
  if ! cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
    >"$log" 2>&1; then
    tail -n 60 "$log"
    exit 1
  fi
  grep -o "number_of_executed_units: .*" "$log"
done
