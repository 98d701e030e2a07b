"""The table of cases under pytest-benchmark: `make bench`, or

pytest tests/bench/bench_kernels.py --benchmark-json FILE

Its file name keeps it out of `make test`.
"""

from typing import Any

import pytest

from benchmarks.cases import DEVICES, LAYERS, OPS, Case, case, specs


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=specs())
def made(request: pytest.FixtureRequest, layer: str, device: str) -> Case:
    """The case, its product checked; skipped where this machine has no such device."""
    try:
        return case(request.param, layer, device)
    except NotImplementedError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("op", OPS)
def test_op(benchmark: Any, made: Case, layer: str, device: str, op: str) -> None:
    """One operation, waited for; the figures of memory go with it."""
    benchmark.extra_info.update(
        spec=made.format.spec,
        layer=layer,
        shape="{0.rows}x{0.features}x{0.out_features}".format(LAYERS[layer]),
        op=op,
        dtype="float32",
        device=device,
        store_bytes=made.store_bytes(),
        nbytes_ratio=made.nbytes_ratio(),
        saved_bytes=made.saved_bytes(),
    )
    benchmark.pedantic(getattr(made, op), rounds=15, iterations=1, warmup_rounds=3)
