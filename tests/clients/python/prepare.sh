#!/usr/bin/env bash
# The real SDKs of the Python clients, in .cache/venv. Made anew when the pinned versions change, and only then.
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly venv=.cache/venv
readonly requirements=tests/clients/python/requirements.txt

key=$({ python3 --version; cat "$requirements"; } | sha256sum | cut -d ' ' -f 1)
[[ -f $venv/made-from && $(<"$venv/made-from") == "$key" ]] && exit 0
# Without its key a venv counts as not made, so an interrupted one is made again.
rm -rf "$venv"
python3 -m venv "$venv"
hashes=()
if grep -q -- '--hash=' "$requirements"; then
    hashes=(--require-hashes)
fi
"$venv/bin/python" -m pip install --quiet --no-input "${hashes[@]}" -r "$requirements"
echo "$key" >"$venv/made-from"
