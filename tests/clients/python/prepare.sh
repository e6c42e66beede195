#!/usr/bin/env bash
# The real SDKs of the Python clients, in .cache/venv.
set -euo pipefail
cd "$(dirname "$0")/../../.."
tests/python_environment.sh .cache/venv tests/clients/python/requirements.txt
