"""Training records: specs against each other, seed by seed, resumable."""

from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from actprune import InputError
from actprune_bench.compare import interleaved as module
from actprune_bench.compare.interleaved import train_specs
from actprune_bench.data import load_data
from actprune_bench.training import TrainConfig, Trainer
from actprune_common.results import TrainingRecord

KEYS = {
    "spec", "model", "data", "data_digest", "seed", "epochs", "steps", "batch_size", "step_ms",
    "step_samples_ms", "ratio_to_dense", "saved_bytes", "saved_ratio", "predicted_peak_bytes",
    "measured_peak_bytes", "accuracy", "accuracy_delta", "accuracy_per_epoch", "grad_cosine",
    "layers", "command",
}  # fmt: skip
SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "limit_train": 40,
    "limit_test": 20,
    "threads": 1,
}
SPECS = ("dense", "bsr:block=1x32,sparsity=0.9")


@pytest.fixture(autouse=True)
def one_thread(fixed_torch: None) -> None:
    """Small steps; two threads on a busy machine wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def peaks_found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Peaks take seconds each and have tests of their own; this says for which specs they ran."""
    found: list[str] = []

    def predicted(config: TrainConfig) -> int:
        found.append(config.spec)
        return 1000

    monkeypatch.setattr(module, "predicted_peak", predicted)
    monkeypatch.setattr(module, "measured_peak", lambda config: 900)
    return found


def configs(seeds: tuple[int, ...] = (0,), **changes: Any) -> list[TrainConfig]:
    return [
        TrainConfig(**SMALL | changes, spec=spec, seed=seed) for seed in seeds for spec in SPECS
    ]


def steady(records: list[TrainingRecord]) -> list[dict[str, Any]]:
    """Without what is timed."""
    timed = {"step_ms", "step_samples_ms", "ratio_to_dense"}
    return [record.model_dump(exclude=timed) for record in records]


def test_records_compare_specs_within_a_seed(peaks_found: list[str]) -> None:
    calls: list[tuple[str, int, int]] = []
    made = list(train_specs(configs((0, 4)), chunk=3, progress=lambda *call: calls.append(call)))
    assert [(r.spec, r.seed) for r in made] == [(s, n) for n in (0, 4) for s in SPECS]
    assert all(set(dict(record)) == KEYS for record in made)
    dense, bsr = made[:2]
    assert (dense.ratio_to_dense, dense.saved_ratio, dense.accuracy_delta) == (1, 1, 0)
    assert dense.grad_cosine == 1
    assert bsr.accuracy_delta == bsr.accuracy - dense.accuracy
    assert bsr.saved_ratio == bsr.saved_bytes / dense.saved_bytes
    assert 0.3 < bsr.saved_ratio < 0.9
    assert bsr.grad_cosine is not None
    assert 0 < bsr.grad_cosine < 1
    assert dense.layers == []
    assert len(bsr.layers) == 10
    assert bsr.grad_cosine == fmean(layer.cosine or 0 for layer in bsr.layers)
    assert {layer.draws for layer in bsr.layers} == {8}
    assert bsr.ratio_to_dense == bsr.step_ms / dense.step_ms
    assert len(bsr.step_samples_ms) == bsr.steps == 10
    assert len(bsr.accuracy_per_epoch) == 2
    assert bsr.command.startswith("actprune train --out run --spec bsr:block=1x32,sparsity=0.9")
    assert peaks_found == list(SPECS)
    assert [made for _, made, _ in calls] == sorted(made for _, made, _ in calls)
    assert calls[0] == ("training dense, seed 0", 3, 40)
    assert calls[-1][1:] == (40, 40)


def test_specs_take_turns_and_another_is_first_each_time() -> None:
    order = [label for label, _, _ in _progress(configs(), chunk=4)]
    assert order == [f"training {SPECS[i]}, seed 0" for i in (0, 1, 1, 0, 0, 1)]


def _progress(runs: list[TrainConfig], chunk: int) -> list[tuple[str, int, int]]:
    calls: list[tuple[str, int, int]] = []
    list(train_specs(runs, chunk=chunk, progress=lambda *call: calls.append(call)))
    return calls


def test_turns_change_no_result() -> None:
    config = configs()[1]
    record = list(train_specs(configs(), chunk=3))[1]
    alone = next(iter(train_specs([configs()[0], config], chunk=1000)))
    data = load_data("embedded", 32, 40, 20)
    trainer = Trainer(config, data)
    trainer.advance(10)
    assert record.accuracy_per_epoch == [h["accuracy"] for h in trainer.history]
    assert alone.data_digest == record.data_digest == data.digest


def test_stopped_and_resumed_gives_the_same_records(tmp_path: Path, peaks_found: list[str]) -> None:
    runs = configs((0, 1), checkpoint_every=2)
    whole = list(train_specs(runs, chunk=3))
    seen = 0

    def stop(label: str, made: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if seen in (3, 8):  # in the middle of each seed
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            list(train_specs(runs, chunk=3, directory=tmp_path, resume=True, progress=stop))
    peaks_found.clear()
    resumed = list(train_specs(runs, chunk=3, directory=tmp_path, resume=True))
    assert steady(resumed) == steady(whole)
    assert all(len(record.step_samples_ms) == 10 for record in resumed)
    peaks_found.clear()
    assert list(train_specs(runs, directory=tmp_path, resume=True)) == resumed
    assert peaks_found == [], "a finished run's record is read back"
    with pytest.raises(InputError, match="dense-seed0: is not empty; resume"):
        list(train_specs(runs, directory=tmp_path))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    list(train_specs(configs(), directory=tmp_path))
    path = tmp_path / "dense-seed0" / "record.json"
    path.write_text("{")
    with pytest.raises(InputError, match=rf"^{path}: not readable \(.*\); remove it$"):
        list(train_specs(configs(), directory=tmp_path, resume=True))


@pytest.mark.parametrize(
    ("runs", "chunk", "message"),
    [
        ([], 20, "configs: expected at least one, got none"),
        (configs()[1:], 20, "configs: dense is missing for seed 0; ratios need it"),
        (configs() + configs((1,))[1:], 20, "configs: dense is missing for seed 1"),
        (configs() + configs(), 20, "configs: dense with seed 0 is there twice"),
        (configs()[:1] + configs(lr=1.0)[1:], 20, r"configs: lr differs: 0\.\d+ and 1\.0"),
        (configs(), 0, "chunk: expected 1 or more steps, got 0"),
    ],
)
def test_wrong_lists_are_refused(runs: list[TrainConfig], chunk: int, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        list(train_specs(runs, chunk=chunk))


@pytest.mark.parametrize("spec", ["compile+dense", "compile(0.1)+dense"])
def test_without_a_compiler_the_rest_goes_on(spec: str) -> None:
    torch._dynamo.reset()
    runs = [TrainConfig(**SMALL, spec=each) for each in ("dense", spec, "csr:sparsity=0.5")]
    told: list[tuple[str, str]] = []
    config = import_module("torch._inductor.config")
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        made = list(train_specs(runs, missing=lambda run, why: told.append((run.spec, why))))
        with pytest.raises((InputError, RuntimeError)):
            list(train_specs(runs[:2]))
    assert [record.spec for record in made] == ["dense", "csr:sparsity=0.5"]
    ((missing, why),) = told
    assert missing == spec
    assert "C++ compiler" in why
    assert "\n" not in why


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's tracer asks for it
def test_a_plan_is_recorded_as_what_it_is() -> None:
    torch._dynamo.reset()
    dense, planned = train_specs(
        [TrainConfig(**SMALL, spec=spec) for spec in ("dense", "compile(0.1)+dense")]
    )
    assert planned.saved_ratio < 0.11
    assert 1000 != planned.predicted_peak_bytes < 10 * dense.saved_bytes
    assert planned.grad_cosine is not None
    assert 0.98 < planned.grad_cosine < 1.0
    assert len(planned.layers) > 5
