#!/usr/bin/env bash
# The AWS SDK for JavaScript v3 as a client, in .cache/javascript. Made anew when one of these files changes.
set -euo pipefail
cd "$(dirname "$0")"
out=$(realpath --canonicalize-missing ../../../.cache/javascript)
key=$({ node --version; cat package-lock.json asks.mjs; } | sha256sum)
[[ -f $out/made-from && $(<"$out/made-from") == "$key" ]] && exit 0
# Without its key a folder counts as not made, so an interrupted one is made again.
rm -rf "$out"
mkdir -p "$out"
cp package.json package-lock.json asks.mjs "$out"
(cd "$out" && npm ci --ignore-scripts --no-audit --no-fund --silent)
echo "$key" >"$out/made-from"
