#!/usr/bin/env bash
# All that a visit to a GPU needs, in under 8 minutes: the CUDA tests, then the figures, into OUT.
#
#   benchmarks/gpu_check.sh OUT      needs torch, triton, cupy, numpy and pytest, and does without
#                                    what of them is missing, but for torch
#
#   TUNE=1       then measure grad_weight's plans too, into OUT (copy it to actprune_kernels/tuned)
#   DEVICE=cpu   what a CPU can run of it, at small sizes: does the script run?
#   PYTHON=...   the interpreter (python3)
#
# Exits with 1 where a test failed; the figures are measured all the same, as a format that fails its
# check has none.
set -uo pipefail

if [[ $# -ne 1 ]]; then
  echo "usage: benchmarks/gpu_check.sh OUT" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
export DEVICE=${DEVICE:-cuda}
device=$DEVICE
export PYTHONPATH=.:impl:kernels:ci${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1
failed=0

"$python" - <<'PYTHON' || exit 2
import platform
import sys
from importlib.util import find_spec

wants = {"torch": "anything", "numpy": "anything", "triton": "the kernels", "cupy": "cuSPARSE",
         "pytest": "the tests"}
lacks = [name for name in wants if find_spec(name) is None]
for name in lacks:
    print(f"the package {name} is missing: {wants[name]} cannot run")
if {"torch", "numpy"} & set(lacks):
    sys.exit(1)

import torch

print("python", platform.python_version(), "torch", torch.__version__)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device")
PYTHON

options=(--device "$device" --out "$out" --budget-s "${BUDGET:-200}")
echo '==> tests'
"$python" -m benchmarks.scripts.gpu_tests --out "$out" || failed=1
[[ $device == cuda ]] || options+=(--quick)

echo '==> figures'
"$python" -m benchmarks.scripts.gpu_figures "${options[@]}" 2>&1 | tee "$out/figures.txt"
((PIPESTATUS[0] == 0)) || failed=1

if "$python" -c 'import timm, transformers' 2>/dev/null; then
  echo '==> models'
  few=(--steps 6 --times 8 --budget-s "${MODELS:-50}")
  [[ $device == cuda ]] || few=(--steps 1 --model resnet18 --model hf_llama)
  for kind in fp32 bf16; do
    [[ $kind == fp32 ]] || few+=(--bf16)
    "$python" -m benchmarks.scripts.models --device "$device" "${few[@]}" \
      --json "$out/models-$kind.json" 2>&1 | tee "$out/models-$kind.txt" | grep -E 'median|rror' ||
      failed=1
  done
else
  echo 'timm or transformers is missing: their models are not measured'
fi

if [[ -n ${TUNE:-} && $device == cuda ]]; then
  echo '==> tuning'
  "$python" -m benchmarks.scripts.gpu_tune --out "$out" || failed=1
fi
exit "$failed"
