#!/usr/bin/env bash
# Write harness-requirements.txt anew, from pyproject.toml's extra `ci` and constraints.txt: run it
# where those changed, or to take newer releases. Needs uv (pip install uv) and the network.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND=.github/renew-harness-requirements.sh
# the harness needs no torch: it is overridden by what no Python asks for
uv pip compile --quiet --upgrade --generate-hashes --python-version 3.12 --extra ci \
  --constraints constraints.txt --overrides <(echo "torch; python_version < '3'") \
  --output-file .github/harness-requirements.txt \
  pyproject.toml - <<<hatchling
