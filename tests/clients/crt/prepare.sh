#!/usr/bin/env bash
# The AWS Common Runtime as a client, in .cache/crt.
set -euo pipefail
cd "$(dirname "$0")/../../.."
tests/python_environment.sh .cache/crt tests/clients/crt/requirements.txt
