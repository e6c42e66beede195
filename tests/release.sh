#!/usr/bin/env bash
# Tests what ships: wire, node and crowd tests against the release build, without debug assertions and with link-time
# optimization, and the crowds of 2,000 pods against the program in the image. As root, after deploy/image/build.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.cache/venv/bin:$PATH:/usr/sbin:/sbin"

work=$(mktemp)
trap 'rm -f "$work"' EXIT
passed=0

# The tests take the program beside them, so a test of the release profile takes the release build.
run() {
    local threads=$1 count
    shift
    cargo test --release --locked -p e2e -- "$@" --test-threads "$threads" 2>&1 | tee "$work"
    count=$(awk '/^test result: / { passed += $4 } END { print passed + 0 }' "$work")
    ((count)) || { echo "FAILED: there is no test $1" >&2; exit 1; }
    passed=$((passed + count))
}

cargo build --release --locked -p pod-identity-agent
run 4 wire::
run 4 node::guard::
run 1 crowd::one_peer_with_random_tokens
run 1 two_thousand_pods
echo "$passed passed, 0 failed"
