"""The graph benchmark's verdicts, from rows that are made up, and its rows, of a tiny model."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actprune_common.errors import InputError
from benchmarks.scripts import graphs
from benchmarks.scripts.graph_bench import Bench, Limit, Options
from benchmarks.scripts.graph_figures import (
    beside_torch,
    bytes_at,
    equal_bytes,
    share_of,
    swept,
    timing,
)
from benchmarks.scripts.graph_steps import allocated
from benchmarks.scripts.graph_verdicts import LEAST, RECOMMENDED, Verdict, falls, verdicts
from tests import others

Row = dict[str, Any]


def of(rows: dict[str, dict[str, Row]], what: str, times: int = 8) -> Verdict:
    return next(each for each in verdicts(rows, times) if each.what.startswith(what))


def planned(**figures: Any) -> Row:
    return {"kind": "planned"} | figures


@pytest.mark.parametrize(
    ("budget", "found"),
    [("0.03", ("eager", 0.03)), ("compiled:0.12", ("compiled", 0.12)), ("1", ("eager", 1.0))],
)
def test_a_budget_is_a_share_of_eager_dense_or_of_another(
    budget: str, found: tuple[str, float]
) -> None:
    assert share_of(budget) == found


@pytest.mark.parametrize("budget", ["", "0", "1.1", "-0.1", "nan", "checkpoint:0.1", "64MiB"])
def test_a_budget_that_is_none_is_refused(budget: str) -> None:
    with pytest.raises(
        InputError, match=r"budget: expected a share such as 0\.03 or compiled:0.12"
    ):
        share_of(budget)


def test_a_sweep_goes_to_the_least() -> None:
    assert swept(800, 100, 4) == [800, 400, 200, 100]
    assert swept(1000, 0, 4) == [1000, 100, 10, 2]
    assert len(swept(12345678, 4321, 10)) == 10
    assert swept(12345678, 4321, 10)[0] == 12345678
    assert swept(12345678, 4321, 10)[-1] == 4321


def test_a_step_is_the_median_of_the_rounds_ratios() -> None:
    """The medians' ratio would be 1.0: the machine was slow in another round of each."""
    row = timing([2.0, 4.0, 12.0], [1.0, 4.0, 8.0])
    assert row["step"] == 1.5
    assert row["scatter"] == [1.25, 1.75]
    assert timing([3.0], [2.0])["scatter"] == [1.5, 1.5]


def test_steps_that_fall_are_counted_where_quartiles_part() -> None:
    assert falls([(1.0, 1.1), (1.05, 1.2), (1.02, 1.04)]) == 1
    assert falls([(1.0, 1.1), (1.05, 1.2), (1.06, 1.07)]) == 0
    assert falls([(1.0, 1.1), (1.3, 1.4), (1.2, 1.25), (1.1, 1.29)]) == 2


def test_torchs_budget_at_equal_bytes_holds_no_less() -> None:
    points = [(100.0, 1.0), (50.0, 2.0), (30.0, 3.0)]
    assert equal_bytes(40, points) == (50.0, 2.0)
    assert equal_bytes(30, points) == (30.0, 3.0)
    assert equal_bytes(200, points) == (100.0, 1.0)


def test_bytes_at_equal_time_are_the_fewest_between_points() -> None:
    points = [(100.0, 1.0), (50.0, 2.0), (30.0, 3.0)]
    assert bytes_at(2.5, points) == 40.0
    assert bytes_at(5.0, points) == 30.0
    assert bytes_at(0.5, points) is None
    assert bytes_at(2.0, [(100.0, 1.0), (90.0, 2.0), (10.0, 3.0)]) == 55.0  # between two others


def test_plans_are_compared_to_torchs_budgets_and_dense() -> None:
    rows: dict[str, Row] = {
        "compiled": {"kind": "compiled", "held_bytes": 100, "step": 1.0},
        "torch:0.5": {"kind": "torch", "held_bytes": 50, "step": 1.2},
        "torch:0.2": {"kind": "torch", "failed": "RuntimeError: no"},
        "0.03": planned(held_bytes=20, step=1.1),
    }
    beside_torch(rows)
    assert rows["0.03"]["equal_bytes"] == "torch:0.5"
    assert rows["0.03"]["time_at_equal_bytes"] == pytest.approx(1.1 / 1.2)
    assert rows["0.03"]["bytes_at_equal_time"] == pytest.approx(20 / 75)


def test_a_median_is_judged_over_models_and_what_is_each_by_the_worst() -> None:
    rows = {
        "a": {LEAST: planned(step=1.0, peak_off=0.01), RECOMMENDED: planned(held_compiled=0.1)},
        "b": {LEAST: planned(step=1.1, peak_off=0.06), RECOMMENDED: planned(held_compiled=0.13)},
        "c": {LEAST: planned(step=1.9, peak_off=0.02), RECOMMENDED: planned(held_compiled=0.1)},
    }
    step = of(rows, "step")
    assert (step.value, step.state, step.models) == (1.1, "reached", 3)
    held = of(rows, "held")
    assert (held.value, held.state, held.where) == (0.13, "missed", f"b {RECOMMENDED}")
    assert of(rows, "predicted peak").state == "missed"
    assert of(rows, "gradient error").state == "not measured"


def test_a_row_that_failed_misses_what_it_is_about() -> None:
    rows = {"a": {LEAST: planned(step=1.0)}, "b": {LEAST: planned(failed="InputError: none")}}
    verdict = of(rows, "step")
    assert (verdict.state, verdict.value, verdict.models) == ("missed", 1.0, 1)
    assert verdict.where == f"b {LEAST}: failed"
    assert of(rows, "held at").state == "not measured"


def test_nothing_is_rounded_to_its_limit() -> None:
    rows = {"a": {LEAST: planned(step=1.12001)}}
    assert "1.12001 <= 1.12: missed" in str(of(rows, "step"))
    rows = {"a": {LEAST: planned(step=1.11999)}}
    assert "1.120 <= 1.12: reached" in str(of(rows, "step"))


def test_peaks_are_judged_at_eight_times_the_batch_alone() -> None:
    rows = {"a": {LEAST: planned(peak_checkpoint=0.6)}, "b": {LEAST: planned()}}
    assert of(rows, "peak at").state == "reached"
    assert of(rows, "peak at", times=1).state == "not measured"
    rows["b"][LEAST]["peak_checkpoint"] = 0.71
    assert of(rows, "peak at").state == "missed"


def test_less_time_or_half_the_bytes_will_do() -> None:
    def state(time: float, nbytes: float | None) -> str:
        row = planned(time_at_equal_bytes=time, bytes_at_equal_time=nbytes)
        return of({"vit_tiny": {LEAST: row}}, "vit_tiny").state

    assert state(0.9, 0.9) == state(1.0, 0.5) == state(0.9, None) == "reached"
    assert state(0.91, 0.51) == state(0.91, None) == "missed"


def test_a_sweep_is_judged_by_its_budgets_and_its_times() -> None:
    def row(of_limit: float, low: float, high: float) -> Row:
        return {"kind": "swept", "of_limit": of_limit, "scatter": [low, high]}

    rows = {"a": {"sweep:9": row(0.9, 1.0, 1.1), "sweep:5": row(1.0, 1.2, 1.3)}}
    assert of(rows, "steps that fall").state == of(rows, "bytes measured").state == "reached"
    rows["a"]["sweep:1"] = row(1.001, 1.0, 1.1)
    assert of(rows, "steps that fall").state == of(rows, "bytes measured").state == "missed"
    rows = {"a": {"sweep": {"kind": "swept", "failed": "InputError: none"}}}
    assert of(rows, "steps that fall").state == "missed"


def test_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def given(*words: str) -> Options:
        monkeypatch.setattr(sys, "argv", ["graphs", *words])
        return graphs.options_of(graphs.arguments())

    assert given() == Options()
    assert given("--budget", "0.5", "--budget", "compiled:0.1", "--sweep", "--times", "8") == (
        Options(budgets=["0.5", "compiled:0.1"], sweep="held", times=8)
    )
    assert given("--sweep", "peak", "--compiler", "inductor").sweep == "peak"
    with pytest.raises(SystemExit):
        given("--budget", "12%")
    assert "budget: expected a share" in capsys.readouterr().err


def test_the_allocator_sees_what_a_step_keeps() -> None:
    """Of exp(sin(2x)): what sin takes and exp gives. In the end there is x's gradient alone."""
    model = nn.Linear(1, 1)
    x = torch.ones(1 << 18, requires_grad=True)
    kept, peak = allocated(model, lambda: (x * 2).sin().exp().sum())
    mib = 1 << 20
    assert 2 * mib <= kept < 2.1 * mib
    assert 3 * mib <= peak < 4.1 * mib


def tiny() -> tuple[nn.Module, Tensor]:
    layers = nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 64), nn.GELU()
    return nn.Sequential(*layers), torch.randn(2048, 64)


@pytest.mark.parametrize("profile", [False, True])
def test_a_model_is_measured_with_all_its_settings(profile: bool) -> None:
    budgets = "0.5", "compiled:0.2", "1e-8"
    options = Options(budgets=budgets, steps=2, compilations=1, profile=profile)
    rows = Bench(tiny, options).run(0)
    assert list(rows) == ["eager", "compiled", *budgets]
    for setting in budgets[:2]:
        row = rows[setting]
        assert row["held_bytes"] <= row["limit"]["held"]
        assert row["peak_off"] < 0.05
        assert row["error"] < 0.2
        assert row["graphs"] == rows["compiled"]["graphs"] == 1
        assert len(row["samples_ms"]) == 2
        assert row["compile"] > 0
    assert "budget: expected" in rows["1e-8"]["failed"]
    assert rows["compiled"]["error"] < 1e-5


@pytest.mark.parametrize("limit", ["held", pytest.param("peak", marks=pytest.mark.slow)])
def test_a_sweep_ends_at_the_least_that_there_is_a_plan_for(limit: Limit) -> None:
    rows = Bench(tiny, Options(budgets=(), steps=0, sweep=limit, levels=3)).run(0)
    found = [row for row in rows.values() if row["kind"] == "swept"]
    assert len(found) == 3
    assert "failed" not in found[0]
    assert found[0]["limit"] == {limit: rows["compiled"][f"{limit}_bytes"]}
    assert found[2]["limit"][limit] < 0.8 * found[0]["limit"][limit]
    assert found[2]["of_limit"] < 1.05


@pytest.mark.slow
def test_a_model_of_transformers_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others.package("timm")
    others.package("transformers")
    words = ["--model", "hf_vit", "--budget", LEAST, "--steps", "1", "--compilations", "0"]
    monkeypatch.setattr(sys, "argv", ["graphs", *words, "--json", str(tmp_path / "out.json")])
    graphs.main()
    found = json.loads((tmp_path / "out.json").read_text("utf-8"))
    row = found["models"]["hf_vit"][LEAST]
    assert row["held"] <= 0.03
    assert row["peak_checkpoint"] < 1
    assert len(found["verdicts"]) == len(verdicts({}, 1))
    out = capsys.readouterr().out
    assert "hf_vit               0.03 " in out
    assert "seconds of compilation" in out
