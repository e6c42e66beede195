#!/usr/bin/env bash
# moto, which plays IAM and S3 for the local EKS, in .cache/moto.
set -euo pipefail
cd "$(dirname "$0")/../../.."
tests/python_environment.sh .cache/moto tests/sandbox/moto/requirements.txt
