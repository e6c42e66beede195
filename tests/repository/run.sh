#!/usr/bin/env bash
# The rules of this repository that no compiler checks, and the tests of these rules. Needs Python 3 and nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1
python3 -m unittest discover --buffer --start-directory tests/repository
python3 tests/repository/check.py
