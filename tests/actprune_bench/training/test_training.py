"""A run's parts: the step, its randomness, the schedule, the trainer, the files it writes."""

import json
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from actprune import InputError, pruned
from actprune.inspect.gradients import loss_of
from actprune_bench.data import ImageData, load_data
from actprune_bench.training import (
    TrainConfig,
    Trainer,
    build,
    example_batch,
    run_training,
    training_step,
)
from actprune_bench.training.checkpoint import open_directory
from actprune_bench.training.randomness import Purpose, crop_flip, data_order, generator
from actprune_bench.training.step import as_input, learning_rate
from actprune_common.files import write_json

SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 16,
    "limit_train": 70,
    "limit_test": 40,
    "threads": 1,
}


@pytest.fixture(autouse=True)
def one_thread(fixed_torch: None) -> None:
    """Small steps; two threads on a busy machine wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("embedded", 32, limit_train=70, limit_test=40)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_a_run_makes_its_steps_and_its_history(data: ImageData) -> None:
    trainer = Trainer(TrainConfig(**SMALL, lr=0.01), data)
    assert (trainer.steps_per_epoch, trainer.total_steps) == (4, 8)  # 70 images: 6 are left out
    assert len(trainer.advance(3)) == 3
    assert (trainer.step, trainer.epoch, trainer.history) == (3, 0, [])
    assert len(trainer.advance(100)) == 5
    assert trainer.done
    assert trainer.advance(1) == []
    assert [(h["epoch"], h["step"]) for h in trainer.history] == [(1, 4), (2, 8)]
    assert trainer.history[-1]["accuracy"] == trainer.evaluate()
    assert all(ms > 0 for ms in trainer.samples_ms)


def test_training_learns() -> None:
    data = load_data("embedded", 32, limit_train=320, limit_test=100)
    trainer = Trainer(TrainConfig(epochs=4, batch_size=16, lr=0.01, threads=1), data)
    trainer.advance(trainer.total_steps)
    losses = [h["train_loss"] for h in trainer.history]
    assert losses == sorted(losses, reverse=True)
    assert trainer.history[-1]["accuracy"] > 35  # chance is 10


@pytest.mark.parametrize("spec", ["dense", "bsr:block=1x32,sparsity=0.9,select=priority"])
def test_how_the_steps_are_taken_changes_nothing(data: ImageData, spec: str) -> None:
    config = TrainConfig(**SMALL, spec=spec, augment="crop-flip")
    one, many = Trainer(config, data), Trainer(config, data)
    one.advance(8)
    torch.manual_seed(99)  # the global generator plays no part
    for _ in range(8):
        many.advance(1)
        many.evaluate()
        many.batch(5)
    assert torch.equal(weights(one), weights(many))
    assert one.history == many.history


def test_the_seed_decides_weights_and_order(data: ImageData) -> None:
    trainers = [Trainer(TrainConfig(**SMALL, seed=seed), data) for seed in (0, 0, 1)]
    assert torch.equal(weights(trainers[0]), weights(trainers[1]))
    assert not torch.equal(weights(trainers[0]), weights(trainers[2]))
    assert torch.equal(trainers[0].batch(5)[1], trainers[1].batch(5)[1])
    assert not torch.equal(trainers[0].batch(5)[1], trainers[2].batch(5)[1])


def test_an_epoch_sees_each_image_once_in_an_order_of_its_own() -> None:
    first, second = data_order(0, 0, 50), data_order(0, 1, 50)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(50))
    assert not torch.equal(first, second)


def test_generators_differ_by_purpose_and_place() -> None:
    generators = [
        generator(0, Purpose.ORDER, 1),
        generator(0, Purpose.ORDER, 2),
        generator(0, Purpose.AUGMENT, 1),
        generator(0, Purpose.AUGMENT, 1, 2),
        generator(1, Purpose.ORDER, 1),
    ]
    assert len({int(torch.randint(2**60, (), generator=random)) for random in generators}) == 5


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    build(TrainConfig())
    assert torch.equal(before, torch.random.get_rng_state())


def test_batches_are_the_images_from_minus_one_to_one(data: ImageData) -> None:
    trainer = Trainer(TrainConfig(**SMALL), data)
    images, labels = trainer.batch(6)
    chosen = data_order(0, 1, 70)[32:48]
    assert torch.equal(images, as_input(data.train.images(chosen)))
    assert torch.equal(labels, data.train.labels[chosen])
    assert images.min() == -1
    assert 0.9 < images.max() <= 1


def test_crop_flip_gives_shifted_and_mirrored_copies() -> None:
    images = torch.randint(1, 256, (200, 2, 16, 16), dtype=torch.uint8)
    changed = crop_flip(images, 0, 0, 0)
    assert torch.equal(changed, crop_flip(images, 0, 0, 0))
    assert not torch.equal(changed, crop_flip(images, 0, 0, 1))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for before, after in zip(padded, changed, strict=True):
        crops = {
            (top, left, mirrored): (crop.flip(-1) if mirrored else crop)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            for crop in [before[:, top : top + 16, left : left + 16]]
        }
        found = [place for place, crop in crops.items() if torch.equal(crop, after)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 40  # of 50


def test_learning_rate_rises_and_falls() -> None:
    config = TrainConfig(epochs=4, warmup_epochs=1, lr=0.1)
    rates = [learning_rate(config, step, 10) for step in range(40)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[25] == pytest.approx(0.05)
    assert 0 < rates[39] < 0.001
    flat = TrainConfig(epochs=1, warmup_epochs=1)
    assert all(math.isfinite(learning_rate(flat, step, 10)) for step in range(10))


def test_weight_decay_is_on_matrices_alone() -> None:
    _, optimizer = build(TrainConfig(weight_decay=0.3))
    matrices, vectors = optimizer.param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert all(p.dim() >= 2 for p in matrices["params"])
    assert all(p.dim() == 1 for p in vectors["params"])


def test_a_step_is_a_step_of_adamw() -> None:
    config = TrainConfig(batch_size=4, lr=0.01)
    model, optimizer = build(config)
    twin, _ = build(config)
    images, labels = torch.randn(4, 1, 32, 32), torch.arange(4)
    loss = training_step(model, optimizer, images, labels)
    expected = loss_of(twin, images, labels)
    expected.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(loss, expected.detach())
    assert not loss.requires_grad
    assert all(p.grad is None for p in model.parameters())
    for ours, start in zip(model.parameters(), twin.parameters(), strict=True):
        decay = 0.05 if start.dim() > 1 else 0.0
        assert start.grad is not None
        moved = start * (1 - 0.01 * decay) - 0.01 * start.grad / (start.grad.abs() + 1e-8)
        torch.testing.assert_close(ours, moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", ["dense", "bsr:sparsity=0.9"])
def test_a_step_runs_on_fake_tensors(spec: str) -> None:
    config = TrainConfig(model="resmlp_s12", spec=spec, batch_size=8)
    with FakeTensorMode():
        model, optimizer = build(config)
        assert training_step(model, optimizer, *example_batch(config)).shape == ()


def test_include_and_exclude_choose_what_is_pruned() -> None:
    config = TrainConfig(spec="coo:sparsity=0.9", include=("*.mlp.*",), exclude=("*.fc2",))
    assert list(pruned(build(config)[0])) == [f"blocks.{i}.mlp.fc1" for i in range(3)]
    assert not pruned(build(TrainConfig(spec="dense"))[0])


def test_too_few_images_for_a_batch_are_refused(data: ImageData) -> None:
    message = "^batch_size: expected at most 70, the training images of embedded, got 71$"
    with pytest.raises(InputError, match=message):
        Trainer(TrainConfig(batch_size=71), data)


def test_a_trainer_without_a_directory_saves_nothing(data: ImageData) -> None:
    trainer = Trainer(TrainConfig(**SMALL), data)
    for method in (trainer.save, trainer.restore):
        with pytest.raises(InputError, match=r"^directory: expected one to .*, got None$"):
            method()


def test_files_of_a_run(tmp_path: Path) -> None:
    config = TrainConfig(**SMALL)
    trainer = run_training(config, tmp_path / "new" / "run")
    names = {path.name for path in (tmp_path / "new" / "run").iterdir()}
    assert names == {"config.yaml", "checkpoint.pt", "checkpoint.previous.pt", "metrics.json"}
    metrics = json.loads((tmp_path / "new" / "run" / "metrics.json").read_text())
    assert metrics["done"]
    assert metrics["accuracy"] == trainer.history[-1]["accuracy"]
    assert metrics["history"] == trainer.history
    assert metrics["data_digest"].startswith("sha256:")
    assert metrics["command"] == config.command()


def test_metrics_of_a_diverged_run_are_still_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [math.nan, 1.5], "b": (math.inf, "s", None, True)})
    read = json.loads((tmp_path / "x.json").read_text())
    assert read == {"a": [None, 1.5], "b": [None, "s", None, True]}


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    config = TrainConfig(**SMALL)
    with pytest.raises(InputError, match=f"^{tmp_path}: is not empty; resume the run in it, or"):
        run_training(config, tmp_path)
    with pytest.raises(InputError, match=rf"^{tmp_path}: holds no run to resume \(no config"):
        run_training(config, tmp_path, resume=True)
    with pytest.raises(InputError, match=r"mine.txt: cannot be made \(File exists\)$"):
        run_training(config, tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_wrong_data_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^/nowhere: no such folder"):
        run_training(TrainConfig(data="folder:/nowhere"), tmp_path / "run")
    with pytest.raises(InputError, match=r"^include: 'nothing' matches no nn.Linear"):
        run_training(TrainConfig(spec="coo:sparsity=0.9", include=("nothing",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_config_names_the_keys(tmp_path: Path) -> None:
    open_directory(tmp_path, TrainConfig(**SMALL), resume=False)
    other = TrainConfig(**{**SMALL, "epochs": 3}, lr=0.1)
    message = "holds a run with another config: epochs is 2 there, lr is .* there$"
    with pytest.raises(InputError, match=f"^{tmp_path}: {message}"):
        run_training(other, tmp_path, resume=True)


def test_resuming_on_other_data_is_refused(tmp_path: Path, data: ImageData) -> None:
    config = TrainConfig(**SMALL)
    Trainer(config, data, tmp_path).save()
    other = load_data("embedded", 32, limit_train=69, limit_test=40)
    with pytest.raises(InputError, match=r"checkpoint.pt: was trained on other data: sha256:"):
        Trainer(config, other, tmp_path).restore()


@contextmanager
def small_files_only() -> Iterator[None]:
    """The operating system lets no file grow beyond 4 kB, as a full disk would.

    Not a fixture: pytest's own report, when it goes to a file, is written before fixtures end.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, data: ImageData) -> None:
    trainer = Trainer(TrainConfig(**SMALL), data, tmp_path)
    trainer.save()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    message = (
        r"checkpoint.pt: cannot be written \(File too large\); what was saved before is intact$"
    )
    with pytest.raises(InputError, match=message), small_files_only():
        trainer.advance(4)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "metrics.json"}
    assert Trainer(TrainConfig(**SMALL), data, tmp_path).restore()
