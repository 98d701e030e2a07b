"""Fashion-MNIST: the subset that ships with the package, and the whole from its IDX files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from actprune_bench.data.images import ImageData, in_memory
from actprune_common.errors import InputError

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_SOURCE = "get the four files from https://github.com/zalandoresearch/fashion-mnist"
_UBYTE = 0x08  # the IDX type code of unsigned bytes

Bytes = npt.NDArray[np.uint8]


def embedded(image_size: int) -> ImageData:
    """10,000 training and 2,000 test images, balanced over the classes; ships in the package."""
    with np.load(Path(__file__).with_name("fashion_mnist_12k.npz"), allow_pickle=False) as arrays:
        splits = [
            (arrays[f"{split}_images"][:, None], arrays[f"{split}_labels"])  # n, 1, height, width
            for split in ("train", "test")
        ]
    return in_memory("embedded", CLASSES, splits, image_size)


def fashion_mnist(folder: Path, image_size: int) -> ImageData:
    """The official split from `folder`'s four .gz files; InputError names a file that is wrong."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {_SOURCE}")
    splits = []
    for split in ("train", "t10k"):
        images = read_idx(folder / f"{split}-images-idx3-ubyte.gz", dimensions=3)
        labels_path = folder / f"{split}-labels-idx1-ubyte.gz"
        labels = read_idx(labels_path, dimensions=1)
        if len(labels) != len(images):
            raise InputError(f"{labels_path}: expected {len(images)} labels, got {len(labels)}")
        if labels.size == 0 or labels.max() >= len(CLASSES):
            raise InputError(f"{labels_path}: expected labels from 0 to {len(CLASSES) - 1}")
        splits.append((images[:, None], labels))  # n, 1, height, width
    return in_memory("fashion-mnist", CLASSES, splits, image_size)


def read_idx(path: Path, dimensions: int) -> Bytes:
    """The uint8 array of a gzipped IDX file; InputError on another magic, rank or length."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {_SOURCE}") from None
    except (OSError, EOFError, zlib.error) as problem:
        raise InputError(f"{path}: not a whole gzip file ({problem}); {_SOURCE}") from None
    magic = (_UBYTE << 8) + dimensions
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise InputError(f"{path}: expected an IDX header of {header} bytes, got {len(content)}")
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        raise InputError(f"{path}: expected the IDX magic 0x{magic:08x}, got 0x{found:08x}")
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4).tolist()
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise InputError(f"{path}: expected {expected} bytes for {shape}, got {len(content)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
