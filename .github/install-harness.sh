#!/usr/bin/env bash
# actprune-ci without torch, which it does not need: for jobs that judge and post. Everything that is
# downloaded has its hash in harness-requirements.txt; renew-harness-requirements.sh writes that file.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m pip install --quiet --require-hashes -r .github/harness-requirements.txt
python3 -m pip install --quiet --no-deps --no-build-isolation .
actprune-ci --help >/dev/null
