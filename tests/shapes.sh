#!/usr/bin/env bash
# Checks with botocore's own service models that the sandbox's AWS has the shapes of the real one.
#
# Starts a sandbox without the agent and hands its state file to the check; wants the Python environment on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly start_seconds=30

work=$(mktemp -d)
sandbox=
cleanup() {
    if [[ -n $sandbox ]]; then
        kill -TERM "$sandbox" 2>/dev/null || true
        wait "$sandbox" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

# The control port, once the sandbox has written its state.
control() { sed -n 's/.*"controlUrl": "\([^"]*\)".*/\1/p' "$work/state.json" 2>/dev/null; }

XDG_RUNTIME_DIR=$work target/debug/sandbox up --no-agent --json-state "$work/state.json" \
    </dev/null >"$work/output" 2>&1 &
sandbox=$!

deadline=$((SECONDS + start_seconds))
until [[ -n $(control) ]]; do
    if ! kill -0 "$sandbox" 2>/dev/null || ((SECONDS >= deadline)); then
        echo "shapes: the sandbox did not come up; it printed:" >&2
        cat "$work/output" >&2
        exit 1
    fi
    sleep 0.2
done
python tests/sandbox/shapes/check.py --control "$(control)"
