#!/usr/bin/env bash
# actprune-ci without torch, which it does not need: for jobs that judge and post.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m pip install --quiet duckdb jinja2 numpy plotly pydantic pyyaml rich ruptures scipy typer
python3 -m pip install --quiet --no-deps .
actprune-ci --help >/dev/null
