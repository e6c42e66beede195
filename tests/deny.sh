#!/usr/bin/env bash
# Checks all dependencies against deny.toml.
#
#   policy       licences, bans and sources; needs nothing but the crates themselves
#   advisories   known vulnerabilities; fetches the advisory database, exits 75 where it cannot be had
#
# cargo-deny is built once into .cache. Measured on two cores: 58 s as a debug build, which then needs 1.3 s for all
# checks, so an optimised build (several minutes) would never pay, and the check is quick enough to belong to `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly database_missing=75

deny() {
    "$tool_dir/bin/cargo-deny" --locked --workspace "$@"
}

tool_dir=$(tests/cargo_tool.sh cargo-deny 0.20.2)
case ${1:-} in
policy)
    deny --offline check --deny unmatched-skip licenses bans sources
    echo "advisories are not part of this: they need a database from the network (make advisories)"
    ;;
advisories)
    if ! deny fetch db; then
        echo "advisories were NOT checked: their database cannot be fetched from here" >&2
        exit "$database_missing"
    fi
    deny check advisories
    ;;
*)
    echo "usage: $0 policy|advisories" >&2
    exit 64
    ;;
esac
