"""CIFAR-10 from its official archives, unpacked: the Python one and the binary one."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actprune_bench.data.images import ImageData, in_memory
from actprune_common.errors import InputError, expected

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_FILE = 10_000
_PIXELS = 3 * 32 * 32
SOURCE = "get it from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it"

Bytes = npt.NDArray[np.uint8]
Batch = tuple[Bytes, Bytes]


def archive_in(folder: Path) -> Path | None:
    """The folder that holds an official archive's files: `folder` or its child; None if neither."""
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        if any((place / f"data_batch_1{suffix}").exists() for suffix in ("", ".bin")):
            return place
    return None


def cifar10(folder: Path, image_size: int) -> ImageData:
    """50,000 + 10,000 images from the folder that `archive_in` found."""
    binary = (folder / "data_batch_1.bin").exists()
    suffix, read = (".bin", _read_binary) if binary else ("", _read_pickle)
    train = [read(folder / f"data_batch_{i}{suffix}") for i in range(1, 6)]
    test = [read(folder / f"test_batch{suffix}")]
    splits = [tuple(map(np.concatenate, zip(*files, strict=True))) for files in (train, test)]
    # images; red, green, blue; rows; columns
    shaped = [(pixels.reshape(-1, 3, 32, 32), labels) for pixels, labels in splits]
    return in_memory("cifar10", CLASSES, shaped, image_size)


def _read_binary(path: Path) -> Batch:
    """Records of one label byte and 3,072 pixels."""
    content = np.frombuffer(_content(path), np.uint8)
    expected = IMAGES_PER_FILE * (1 + _PIXELS)
    if len(content) != expected:
        raise InputError(f"{path}: expected {expected} bytes, got {len(content)}")
    records = content.reshape(IMAGES_PER_FILE, 1 + _PIXELS)
    return _checked(path, records[:, 1:], records[:, 0])


def _read_pickle(path: Path) -> Batch:
    """A dict with b"data" (uint8, n x 3072) and b"labels" (a list)."""
    content = _content(path)
    try:
        batch = _NumpyOnly(io.BytesIO(content), encoding="bytes").load()
        data, labels = batch[b"data"], np.asarray(batch[b"labels"])
    except Exception as problem:  # a damaged pickle can raise anything
        reason = str(problem) or type(problem).__name__
        raise InputError(f"{path}: not a CIFAR-10 batch ({reason}); {SOURCE}") from None
    return _checked(path, data, labels)


def _checked(path: Path, data: Any, labels: Any) -> Batch:
    shape, dtype = getattr(data, "shape", None), getattr(data, "dtype", None)
    if shape != (IMAGES_PER_FILE, _PIXELS) or dtype != np.uint8:
        what = f"uint8 images of shape ({IMAGES_PER_FILE}, {_PIXELS})"
        raise expected(str(path), what, f"{dtype} {shape}")
    whole = labels.shape == (IMAGES_PER_FILE,) and labels.dtype.kind in "iu"
    if not whole or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise InputError(f"{path}: expected {IMAGES_PER_FILE} labels from 0 to 9")
    return data, labels


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); {SOURCE}") from None


class _NumpyOnly(pickle.Unpickler):
    """Rebuilds NumPy arrays and refuses everything else: a pickle can run any code."""

    _ALLOWED = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] != "numpy" or name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if name == "_reconstruct":  # its module's name differs between versions of NumPy
            return np.empty(0).__reduce__()[0]
        return getattr(np, name)
