"""Plans: peaks per device, what fits, the largest batch, and errors."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actprune import InputError
from actprune.strategies.grammar import read
from actprune_bench.advise import planning
from actprune_bench.advise.planning import Planned, Setup, largest_count, plan, sentence
from actprune_bench.cli import app
from actprune_bench.data import DataShape
from actprune_bench.measure.peak import measured_peak, predicted_peak, returned_at_once
from actprune_bench.models import MODELS
from actprune_bench.training import TrainConfig
from tests import peak_ranks
from tests.ranks import torchrun

MIB = 2**20
BLOCKS = "bsr:block=1x32,sparsity=0.9"
LEAN = "lean+bsr:block=1x32,sparsity=0.9,select=priority"
SETUP = Setup("resmlp_tiny", 64, 1, "none", 40 * MIB, DataShape(1, 10))


def counted(peak: Callable[[int], int]) -> tuple[Callable[[int], int], list[int]]:
    calls: list[int] = []

    def called(count: int) -> int:
        calls.append(count)
        return peak(count)

    return called, calls


@pytest.mark.parametrize("start", [1, 7, 64, 5000])
@pytest.mark.parametrize("answer", [0, 1, 2, 63, 64, 900])
def test_the_largest_count_of_a_line_takes_few_calls(start: int, answer: int) -> None:
    peak, calls = counted(lambda count: 1000 + 37 * count)
    assert largest_count(peak, 1000 + 37 * answer + 36, {start: 1000 + 37 * start}) == answer
    assert len(calls) <= 5


@pytest.mark.parametrize("answer", [0, 1, 5, 63, 640])
@pytest.mark.parametrize(
    "peak",
    [
        lambda count: max(5000, 20 * count),  # the gradients' peak, then the activations'
        lambda count: 1000 + count**2,
        lambda count: 100 * (count // 8) + 3 * count,
        lambda count: count.bit_length() * 1000 + count,
    ],
)
def test_the_largest_count_of_other_curves(peak: Callable[[int], int], answer: int) -> None:
    budget = (peak(answer) + peak(answer + 1)) // 2
    expected = max((count for count in range(2000) if peak(count) <= budget), default=0)
    expected = 0 if peak(1) > budget else expected
    called, calls = counted(peak)
    assert largest_count(called, budget, {16: peak(16)}) == expected
    assert len(calls) < 30


def test_a_plan_is_of_predicted_peaks() -> None:
    lean, dense = plan(SETUP, ["dense", LEAN, "dense"])
    assert (lean.spec, dense.spec) == (LEAN, "dense")
    config = TrainConfig(model="resmlp_tiny", batch_size=64, data="embedded")
    assert dense.peak == predicted_peak(config, SETUP.shape)
    assert lean.fits
    assert not dense.fits
    assert dense.largest_batch < 64 < lean.largest_batch
    at = [planning.peak(SETUP, LEAN, lean.largest_batch + more) for more in (0, 1)]
    assert at[0] <= SETUP.memory < at[1]


def test_ddp_holds_the_gradients_twice() -> None:
    setup = replace(SETUP, devices=2, parallel="ddp")
    alone = planning.peak(SETUP, "dense", 32)
    weights = 4 * sum(parameter.numel() for parameter in MODELS["resmlp_tiny"](10, 1).parameters())
    assert planning.peak(setup, "dense", 32) == alone + weights
    (planned,) = plan(setup, ["dense"])
    assert planned.peak == alone + weights
    assert planned.largest_batch % 2 == 0


def test_fsdp_shards_parameters_gradients_and_moments() -> None:
    peaks = []
    for devices in (1, 2, 8):
        setup = replace(SETUP, batch=8 * devices, devices=devices, parallel="fsdp")
        with planning._world(setup):
            peaks.append(planning.peak(setup, LEAN, 8))
    weights = 4 * sum(parameter.numel() for parameter in MODELS["resmlp_tiny"](10, 1).parameters())
    assert peaks[0] > peaks[1] > peaks[2]
    # parameters and two moments are there at the peak, gradients of a block or more
    assert 2.9 <= (peaks[0] - peaks[1]) / (weights / 2) <= 4.2
    assert 2.9 <= (peaks[1] - peaks[2]) / (weights * 3 / 8) <= 4.2


def test_sentences() -> None:
    small, large = Planned(LEAN, 30 * MIB, True, 96), Planned("dense", 2**30, False, 10)
    assert sentence(SETUP, [small, large]) == (
        f"1 of 2 fit batch 64 into 0.0 GiB; the largest batch is 96, with {LEAN}."
    )
    nothing = replace(large, largest_batch=0)
    assert sentence(SETUP, [nothing]) == (
        "Nothing fits at any batch: dense would take 1.0 GiB of 0.0 GiB at batch 64, and more than "
        "there is at 1."
    )


def test_default_specs() -> None:
    specs = planning.default_specs()
    assert specs[0] == "dense"
    assert {f"bf16+{LEAN}", LEAN, "bf16+dense"} <= set(specs)
    assert [read(spec).spec for spec in specs] == specs
    assert len(set(specs)) == len(specs)


def test_a_compiled_model_is_planned_sharded_too() -> None:
    setup = replace(SETUP, batch=16, devices=2, parallel="fsdp")
    plain, compiled = plan(setup, ["dense", "compile+dense"])
    assert plain.peak == compiled.peak


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parallel": "tp"}, "parallel: expected one of none, ddp, fsdp, got 'tp'"),
        ({"devices": 0}, "devices: expected 1 or more, got 0"),
        ({"batch": 0}, "batch: expected 1 or more, got 0"),
        ({"memory": 0}, "device-memory: expected 1 or more, got 0"),
        ({"memory": 80}, "device-memory: expected 1MiB or more, such as 80GiB, got 80 bytes"),
        ({"devices": 2}, "devices: expected 1 with parallel none, got 2"),
        (
            {"devices": 3, "parallel": "ddp"},
            "batch: expected a multiple of 3 devices, got 64",
        ),
        ({"model": "resmlp_huge"}, "model: expected one of resmlp_tiny"),
    ],
)
def test_bad_setups(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(replace(SETUP, **change), ["dense"])  # type: ignore[arg-type]


WORDS = ["plan", "--model", "resmlp_tiny", "--batch", "64", "--channels", "1", "--classes", "10"]


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    words = [*WORDS, "--device-memory", "40MiB", "--devices", "2", "--parallel", "fsdp"]
    done = CliRunner().invoke(app, [*words, "--format", LEAN, "--json", str(file)])
    assert done.exit_code == 0, done.output
    assert "lean+bsr:block=1x32, sparsity=0.9, select=priority" in done.output
    assert "1 of 1 fit batch 64 into 0.0 GiB; the largest batch is " in done.output
    assert "Assumed: fully_shard on every block" in done.output
    found = json.loads(file.read_text())
    assert {key: found[key] for key in ("batch", "devices", "parallel", "channels", "memory")} == {
        "batch": 64, "devices": 2, "parallel": "fsdp", "channels": 1, "memory": 40 * MIB,
    }  # fmt: skip
    (record,) = found["plans"]
    assert record["share"] == round(record["peak"] / (40 * MIB), 6)
    assert record["fits"] is True
    again = CliRunner().invoke(app, [*words, "--format", LEAN, "--json", str(file)])
    assert again.exit_code == 2
    assert "is there already; name another file" in again.output


def test_the_command_says_what_is_wrong() -> None:
    done = CliRunner().invoke(app, [*WORDS, "--device-memory", "much"])
    assert done.exit_code == 2
    said = "device-memory: expected a size such as 4GiB or 800MB, got 'much'"
    assert said in done.output
    words = [*WORDS, "--device-memory", "1MiB", "--format", "dense"]
    done = CliRunner().invoke(app, [*words, "--json", "none/plan.json"])
    assert done.exit_code == 2
    assert "none/plan.json: its folder is not there" in done.output
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert "Nothing fits at any batch: dense would take " in done.output


# --------------------------------------------------------------- against measured peaks


@pytest.mark.parametrize(
    "spec",
    [
        "csr:sparsity=0.9",
        f"bf16+{LEAN}",
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("nm:2:4", f"bf16+{BLOCKS}")),
    ],
)
def test_what_a_format_makes_on_its_way_is_little(spec: str) -> None:
    check_measured(spec, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("spec", planning.default_specs())
def test_the_peak_of_every_setting_that_is_planned_by_default(spec: str) -> None:
    check_measured(spec, 0.1)  # of resmlp_tiny's smallest, two MiB of pieces are a twelfth


def check_measured(spec: str, tolerance: float) -> None:
    config = TrainConfig(spec=spec, threads=1)
    measured = measured_peak(config)
    if measured is None:
        pytest.skip("no /proc/self/clear_refs: the peak of a process cannot be measured here")
    assert measured == pytest.approx(predicted_peak(config), rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["dense", LEAN])
def test_one_device_needs_what_was_predicted(spec: str) -> None:
    config = TrainConfig(model="resmlp_s12", batch_size=8, spec=read(spec).spec, threads=1)
    setup = Setup("resmlp_s12", 8, 1, "none", 2**30, DataShape(3, 10))
    measured = measured_peak(config)
    if measured is None:
        pytest.skip("no /proc/self/clear_refs")
    assert abs(planning.peak(setup, spec, 8) / measured - 1) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("spec", ["dense", LEAN])
def test_two_ranks_need_what_was_predicted(parallel: str, spec: str) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc/self/clear_refs")
    setup = Setup("resmlp_s12", 16, 2, parallel, 2**30, peak_ranks.SHAPE)
    script = Path(peak_ranks.__file__)
    said = torchrun(2, script, parallel, "resmlp_s12", spec, 8, environment=returned_at_once())
    measured = [int(word) for word in re.findall(r"peak_bytes=(\d+)", said)]
    (planned,) = plan(setup, [spec])
    assert len(measured) == 2
    assert all(abs(planned.peak / size - 1) < 0.05 for size in measured)
