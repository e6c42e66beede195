#!/usr/bin/env bash
# Fuzzes every parser of outside bytes, each for a while. What a target checks stands beside its parser, in
# agent/src/**/properties.rs; `make test` checks the same with a few hundred inputs of proptest.
#
#   tests/fuzz/run.sh                30 s for each target
#   tests/fuzz/run.sh 600 token      ten minutes for one
#
# Found inputs are kept in target/fuzz/corpus, so that the next run goes on from there; an input that breaks a
# property is in target/fuzz/artifacts, and is run again by: target/fuzz/bin/TARGET FILE
# cargo-fuzz is built once into .cache. Without a sanitizer (the agent forbids unsafe code) the pinned toolchain
# is good enough: only sanitizers need a nightly compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly built=target/fuzz seeds=tests/fuzz/seeds
seconds=${1:-30}
shift || true
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' tests/fuzz/Cargo.toml | tail -n +2)
((${#targets[@]})) || { echo "FAILED: tests/fuzz/Cargo.toml names no target" >&2; exit 1; }

tool_dir=$(tests/cargo_tool.sh cargo-fuzz 0.13.2)
"$tool_dir/bin/cargo-fuzz" build --fuzz-dir tests/fuzz --sanitizer none --target-dir "$built"
mkdir -p "$built/bin" "$built/artifacts"
failed=()
for target in "${targets[@]}"; do
    ln -sf "../$(rustc -vV | sed -n 's/^host: //p')/release/$target" "$built/bin/$target"
    mkdir -p "$built/corpus/$target"
    echo "== fuzzing $target for $seconds s"
    # The longest input is a little more than the longest head of a request.
    "$built/bin/$target" -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$built/artifacts/$target-" "$built/corpus/$target" "$seeds/$target" >"$built/$target.log" 2>&1 ||
        failed+=("$target")
    grep -E 'panicked|^[^#].*assertion|number_of_executed_units|Test unit written' "$built/$target.log" || true
done
if ((${#failed[@]})); then
    echo "FAILED: a property of ${failed[*]} does not hold; see $built/*.log" >&2
    exit 1
fi
echo "${#targets[@]} passed, 0 failed"
