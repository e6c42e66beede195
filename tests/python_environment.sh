#!/usr/bin/env bash
# python_environment.sh FOLDER REQUIREMENTS: a Python environment with pinned packages. Made anew when the pinned versions change,
# and only then.
set -euo pipefail

readonly venv=$1 requirements=$2

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
