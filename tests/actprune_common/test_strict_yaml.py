"""Strict YAML: what is wrong is named with its line; and the ranges of a training run."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from actprune import InputError
from actprune_bench.compare.config import CompareConfig
from actprune_bench.sweep.config import SweepConfig
from actprune_bench.training import TrainConfig
from actprune_common.strict_yaml import check, load_yaml

CONFIGS = Path(__file__).parents[2] / "benchmarks/configs"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    height: int = 1
    width: float = 2.0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    sizes: list[Inner] = []
    one: Inner | None = None


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file(tmp_path: Path) -> None:
    text = "name: x\nsizes:\n  - height: 3\n    width: 1e-3\n  - {}\n"
    loaded = load_yaml(write(tmp_path, text), Outer)
    assert loaded == Outer(name="x", sizes=[Inner(height=3, width=0.001), Inner()])


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_yaml(write(tmp_path, "# nothing\n"), TrainConfig) == TrainConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nnmae: y\n", "2: nmae: unknown key; known are name, sizes, one"),
        (
            "name: x\nsizes:\n- {heigth: 3}\n",
            r"3: sizes\[0\].heigth: unknown key; known are height, w",
        ),
        ("name: x\none:\n  depth: 3\n", "3: one.depth: unknown key; known are height, width"),
        ("sizes: []\n", "1: name: this key is required"),
        (
            "name: x\nsizes:\n- height: 1\n- height: tall\n",
            r"4: sizes\[1\].height: expected a ",
        ),
        ("name: x\nname: y\n", r"2: name: given twice \(also on line 1\)"),
        ("name: x\nsizes:\n- height: 1\n  height: 2\n", r"4: sizes\[0\].height: given twice"),
        ("name: [x\n", "2: not valid YAML: "),
        ("name: x\n\tone: 2\n", "2: not valid YAML: "),
        ("name: &a x\none: *a\n", r"2: \*a: aliases are not supported"),
        ("name: !!python/object:os.system x\n", "1: not valid YAML: could not determine a constr"),
        ("- name\n", r"1: expected keys and values, got \['name'\]"),
        ("? [a]\n: b\n", "1: expected a plain key"),
        ("name: x\n---\nname: y\n", "2: not valid YAML: but found another document"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=f"^{path}:{message}") as raised:
        load_yaml(path, Outer)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    with pytest.raises(InputError, match=rf"^{path}: cannot be read \(No such file"):
        load_yaml(path, Outer)
    with pytest.raises(InputError, match=rf"^{tmp_path}: cannot be read \(Is a directory\)"):
        load_yaml(tmp_path, Outer)
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(InputError, match=f"^{path}: expected UTF-8 text"):
        load_yaml(path, Outer)
    path.write_bytes(b"name: \x00\n")
    with pytest.raises(InputError, match=f"^{path}: not valid YAML: "):
        load_yaml(path, Outer)
    path.write_text("[" * 1200 + "]" * 1200)
    with pytest.raises(InputError, match=f"^{path}: nested too deeply"):
        load_yaml(path, Outer)
    path.write_text("name: 2026-99-99\n")
    with pytest.raises(InputError, match=f"^{path}: not valid YAML: month must be in"):
        load_yaml(path, Outer)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "epoch: unknown key; known are model, data, spec, include"),
        ({"epochs": 0}, "epochs: expected greater than or equal to 1, got 0$"),
        ({"epochs": "3"}, "epochs: expected a valid integer, got '3'$"),
        ({"epochs": True}, "epochs: expected a valid integer, got True$"),
        ({"lr": 0}, "lr: expected greater than 0, got 0$"),
        ({"lr": float("nan")}, "lr: expected .*, got nan$"),
        ({"model": "resnet"}, "model: expected one of resmlp_tiny, resmlp_s12, .*, got 'resnet'$"),
        ({"data": "mnist"}, "data: expected one of embedded, .*, got 'mnist'$"),
        ({"spec": "bsr:sparsity=2"}, "spec: sparsity: expected 0 <= s < 1, got 2$"),
        ({"spec": "brs"}, "spec: expected a format of dense, coo, csr, bsr"),
        ({"augment": "mixup"}, "augment: expected 'none' or 'crop-flip', got 'mixup'$"),
        ({"warmup_epochs": 4}, "warmup_epochs: expected at most the 3 epochs, got 4$"),
        ({"limit_train": 0}, "limit_train: expected greater than or equal to 1, got 0$"),
        ({"include": [3]}, r"include\[0\]: expected a valid string, got 3$"),
        ({"seed": -1}, "seed: expected greater than or equal to 0, got -1$"),
    ],
)
def test_training_values_have_ranges(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as raised:
        check(TrainConfig, values)
    assert "\n" not in str(raised.value)


def test_training_config_survives_yaml(tmp_path: Path) -> None:
    config = TrainConfig(
        spec="bsr:sparsity=0.95,block=1x32", include=("*.fc1", "*.fc2"), lr=1e-4, limit_test=5
    )
    assert config.spec == "bsr:block=1x32,sparsity=0.95"
    path = write(tmp_path, yaml.safe_dump(config.model_dump(mode="json")))
    assert load_yaml(path, TrainConfig) == config


def test_command_repeats_what_differs_from_the_defaults() -> None:
    config = TrainConfig(spec="csr:sparsity=0.9", include=("*.fc1", "*.fc2"), seed=3)
    assert config.command() == (
        "actprune train --out run --spec csr:sparsity=0.9 "
        "--include '*.fc1' --include '*.fc2' --seed 3"
    )
    assert TrainConfig().command() == "actprune train --out run --spec dense"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_with_the_suite_are_read(path: Path) -> None:
    command = path.read_text().partition("actprune ")[2].split()[0]  # as its first lines have it
    kinds: dict[str, type[SweepConfig | CompareConfig]]
    kinds = {"sweep": SweepConfig, "compare": CompareConfig}
    assert len(load_yaml(path, kinds[command]).formats) > 0
