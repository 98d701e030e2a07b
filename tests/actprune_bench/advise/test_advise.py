"""Advice: what fits, what is taken, and what is said."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actprune import InputError, parse_bytes
from actprune.strategies.grammar import read
from actprune_bench.advise import advice
from actprune_bench.advise.advice import (
    Setting,
    advise,
    dumped,
    recorded,
    sentence,
    settings_of,
)
from actprune_bench.cli import app
from actprune_bench.data import DataShape
from actprune_bench.measure.peak import predicted_peak
from actprune_bench.records.environment import environment
from actprune_bench.training.config import TrainConfig
from actprune_common import results
from tests import samples

MIB = 2**20
SHAPE = DataShape(1, 10)


def setting(spec: str, delta: float, step: float, error: float | None = 0.1) -> Setting:
    return Setting(spec, "resmlp_tiny", "embedded", 3, 5, delta, error, step, 0.5)


SMALL = "lean+bsr:block=1x32,sparsity=0.9"
KNOWN = [
    setting("dense", 0.0, 1.0),
    setting("bsr:block=1x32,sparsity=0.9", -0.2, 0.9),
    setting("csr:sparsity=0.9", 0.1, 1.7),
    setting(SMALL, -1.5, 0.8),
]


@pytest.fixture(autouse=True, scope="module")
def _predicted_once() -> Iterator[None]:
    """The same peak is predicted once for all tests here: seconds each."""
    known: dict[tuple[str, DataShape | None], int] = {}

    def predicted(config: TrainConfig, shape: DataShape | None = None) -> int:
        key = (config.model_dump_json(), shape)
        if key not in known:
            known[key] = predicted_peak(config, shape)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advice, "predicted_peak", predicted)
        yield


def taken(budget: int, known: list[Setting] = KNOWN) -> str | None:
    found = advise("resmlp_tiny", 128, budget, known, shape=SHAPE).taken
    return None if found is None else found.setting.spec


def test_what_is_taken() -> None:
    assert taken(1000 * MIB) == "dense"
    # both lost at most 0.3 points, so the faster; the lean one lost more and is faster still
    assert taken(120 * MIB) == "bsr:block=1x32,sparsity=0.9"
    assert taken(50 * MIB) == SMALL
    assert taken(10 * MIB) is None
    worse = [setting("bsr:block=1x32,sparsity=0.9", -0.5, 0.9), setting("csr:sparsity=0.9", 0, 1.7)]
    assert taken(120 * MIB, worse) == "csr:sparsity=0.9"
    both = [setting("csr:sparsity=0.9", -0.4, 1.7), setting("csr:sparsity=0.9", 0.2, 1.7)]
    options = advise("resmlp_tiny", 128, 120 * MIB, both, shape=SHAPE).options
    assert [option.setting.delta for option in options] == [-0.4, 0.0]  # the worse, and dense


def test_several_seeds_are_believed_before_one() -> None:
    lucky = replace(setting("csr:sparsity=0.9", 0.6, 0.5, None), seeds=1)
    sure = setting("bsr:block=1x32,sparsity=0.9", -0.2, 0.9)
    assert taken(120 * MIB, [lucky, sure]) == sure.spec  # by chance it may have lost 0.4
    sure_of_the_same = setting(lucky.spec, -0.6, 1.7)
    for order in ([lucky, sure_of_the_same], [sure_of_the_same, lucky]):
        options = advise("resmlp_tiny", 128, 120 * MIB, order, shape=SHAPE).options
        assert [option.setting.delta for option in options] == [-0.6, 0.0]  # and dense
    apart = replace(setting(sure.spec, -0.1, 0.2), interleaved=False, seeds=9)
    options = advise("resmlp_tiny", 128, 120 * MIB, [sure, apart], shape=SHAPE).options
    assert (options[0].setting.delta, options[0].setting.step_ratio) == (-0.1, 0.9)
    better = setting("csr:sparsity=0.9", -0.25, 1.7, 0.01)
    worse = setting("bsr:block=1x32,sparsity=0.9", -0.25, 0.9, 0.2)
    assert taken(120 * MIB, [worse, better]) == better.spec


def test_peaks_are_of_the_model_that_was_asked_about() -> None:
    small, large = (
        advise("resmlp_tiny", batch, 10 * MIB, KNOWN[:2], shape=SHAPE) for batch in (8, 64)
    )
    assert large.dense_peak > 4 * small.dense_peak
    assert [option.setting.spec for option in large.options] == [KNOWN[1].spec, "dense"]
    assert large.options[0].peak < large.dense_peak == large.options[1].peak


def test_sentences() -> None:
    said = sentence(advise("resmlp_tiny", 128, 50 * MIB, KNOWN, shape=SHAPE))
    assert said.startswith(f"Take {SMALL}: ")
    assert said.endswith(
        "MiB), -1.50 ± 0.10 points of accuracy over 5 seeds (embedded), at 0.80 of dense's step "
        "time."
    )
    said = sentence(advise("resmlp_tiny", 128, 10 * MIB, KNOWN, shape=SHAPE))
    assert said.startswith("Nothing fits 10 MiB: the least is ")
    assert said.endswith(f" MiB, {SMALL}. A smaller batch, or more memory, is needed.")
    said = sentence(advise("resmlp_tiny", 8, 1000 * MIB, [], shape=SHAPE))
    assert said.startswith("Dense fits: ")
    one = [setting(SMALL, -1.5, 0.8, None)]
    assert "-1.50 points" in sentence(advise("resmlp_tiny", 8, 9 * MIB, one, shape=SHAPE))


def test_settings_of_results() -> None:
    spec = "bsr:block=32x32,sparsity=0.9"
    runs = [samples.training(s, seed=seed) for seed in (0, 1) for s in ("dense", spec)]
    for run, delta in zip(runs, (0.0, -1.0, 0.0, -2.0), strict=True):
        run["accuracy_delta"] = delta
    made = samples.make(environment("actprune compare"), [], runs)
    dense, other = settings_of(made)
    assert (dense.spec, dense.delta, dense.error) == ("dense", 0.0, 0.0)
    assert (other.spec, other.delta, other.error, other.seeds) == (spec, -1.5, 0.5, 2)
    assert other.interleaved
    described = {**environment("actprune sweep"), "interleaved": False}
    assert not settings_of(samples.make(described, [], runs))[1].interleaved


def test_what_is_recorded_reads_back_and_parses() -> None:
    assert [Setting(**values) for values in json.loads(dumped(KNOWN))] == KNOWN
    assert len(recorded()) > 4
    assert all(read(found.spec).spec == found.spec for found in recorded())


@pytest.mark.parametrize(("text", "size"), [("4GiB", 4 * 2**30), ("800MB", 800_000_000), ("7", 7)])
def test_budgets(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="budget: expected a size such as 4GiB or 800MB, got 'x'"):
        parse_bytes("x")
    with pytest.raises(InputError, match="budget: expected 1 byte or more, got 0"):
        advise("resmlp_tiny", 8, 0, [], shape=SHAPE)
    words = ["advise", "--batch", "8", "--budget", "1GiB"]
    done = CliRunner().invoke(app, [*words, "--model", "resmlp_huge"])
    assert done.exit_code == 2
    assert "model: expected one of resmlp_tiny" in done.output
    missing = str(tmp_path / "none.json")
    done = CliRunner().invoke(app, [*words, "--model", "resmlp_tiny", "--results", missing])
    assert done.exit_code == 2
    assert "cannot be read" in done.output


def test_the_command_prints_every_setting_and_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    spec = "bsr:block=32x32,sparsity=0.9"
    runs = [samples.training("dense"), samples.training(spec)]
    dense = advise("resmlp_tiny", 8, 1, [], shape=SHAPE).dense_peak
    results.write(path, samples.make(environment("actprune compare"), [], runs))
    words = ["advise", "--model", "resmlp_tiny", "--batch", "8", "--budget", str(dense - 1)]
    done = CliRunner().invoke(
        app, [*words, "--channels", "1", "--classes", "10", "--results", str(path)]
    )
    assert done.exit_code == 0, done.output
    assert "bsr:block=32x32, sparsity=0.9" in done.output
    assert "Take bsr:block=32x32,sparsity=0.9: " in done.output
