"""The files of a run: config.yaml, checkpoint.pt, metrics.json. Each is written whole or not."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from actprune_bench.training.config import TrainConfig
from actprune_common.errors import InputError
from actprune_common.files import make_folder, write_whole
from actprune_common.strict_yaml import load_yaml

CONFIG, METRICS = "config.yaml", "metrics.json"
CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_KEYS = {
    *("config", "data_digest", "model", "optimizer"),
    *("step", "history", "samples_ms", "loss_sum"),
}


def open_directory(directory: Path, config: TrainConfig, *, resume: bool) -> None:
    """Make `directory` for a new run, or check that it holds this one.

    Raises InputError where it is not empty and resume is False, where it holds no run, and where
    its config differs, naming the keys.
    """
    used = make_folder(directory, resume=resume, onward="resume the run in it")
    if not used:
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_whole(directory / CONFIG, text)
    elif not (directory / CONFIG).exists():
        raise InputError(f"{directory}: holds no run to resume (no {CONFIG})")
    else:
        kept = load_yaml(directory / CONFIG, TrainConfig)
        differing = [key for key, value in config if value != getattr(kept, key)]
        if differing:
            was = ", ".join(f"{key} is {getattr(kept, key)!r} there" for key in differing)
            raise InputError(f"{directory}: holds a run with another config: {was}")


def save_checkpoint(directory: Path, state: Mapping[str, Any]) -> None:
    """Write checkpoint.pt; the one before it stays as checkpoint.previous.pt."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_whole(directory / CHECKPOINT, buffer.getbuffer(), keep=directory / PREVIOUS)


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint; None where there is none yet.

    Raises InputError naming a file that is damaged and how to go on; nothing is removed.
    """
    path, previous = directory / CHECKPOINT, directory / PREVIOUS
    if not path.exists():  # a new one was about to take its place
        path = previous
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not check the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["schema"] != 1:
            raise ValueError(f"expected schema 1, got {state['schema']!r}")
        if missing := _KEYS - set(state):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except Exception as problem:  # damage can surface as anything
        go_on = (
            f"remove it to go on from {previous.name}"
            if path != previous and previous.exists()
            else "start again in another folder"
        )
        reason = " ".join(str(problem).split())[:120]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); {go_on}") from None
    return dict(state)
