"""Images in train/CLASS/*.png and test/CLASS/*.png (or val/), decoded when they are asked for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from actprune_bench.data.images import ImageData, digest
from actprune_common.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")
_LAYOUT = "expected train/CLASS/*.png (or .jpg) and test/CLASS/*.png (or val/)"
_THREADS = 4


@dataclass(frozen=True)
class FolderSplit:
    """Files of one split. Shorter side resized to image_size where it is longer, centre cropped."""

    root: Path
    files: tuple[str, ...]
    """Sorted paths relative to root: CLASS/name."""
    labels: Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.files)

    def images(self, indices: Tensor) -> Tensor:
        """uint8 (len(indices), 3, image_size, image_size); InputError names a damaged file."""
        paths = [self.root / self.files[index] for index in indices.tolist()]
        if not paths:
            return torch.zeros(0, 3, self.image_size, self.image_size, dtype=torch.uint8)
        with ThreadPoolExecutor(_THREADS) as pool:
            decoded = list(pool.map(lambda path: read_image(path, self.image_size), paths))
        return torch.stack(decoded)

    def take(self, indices: Tensor) -> "FolderSplit":
        files = tuple(self.files[index] for index in indices.tolist())
        return FolderSplit(self.root, files, self.labels[indices], self.image_size)

    def fingerprint(self) -> bytes:
        sizes = [(self.root / file).stat().st_size for file in self.files]
        lines = zip(self.files, sizes, self.labels.tolist(), strict=True)
        return "\n".join(f"{file} {size} {label}" for file, size, label in lines).encode()


def folder_tree(folder: Path, image_size: int, name: str = "folder") -> ImageData:
    """The tree under `folder`; its classes are the folders of train/, sorted."""
    train_root, test_root = split_folders(folder)
    classes = class_names(train_root)
    train, test = (_split(root, classes, image_size) for root in (train_root, test_root))
    return ImageData(name, digest(classes, train, test), classes, 3, train, test)


def split_folders(folder: Path) -> tuple[Path, Path]:
    """train/ and test/ (or val/) of `folder`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {_LAYOUT}")
    test = next((folder / n for n in ("test", "val") if (folder / n).is_dir()), None)
    if test is None or not (folder / "train").is_dir():
        raise InputError(f"{folder}: {_LAYOUT}")
    return folder / "train", test


def class_names(root: Path) -> tuple[str, ...]:
    """The folders in `root`, sorted."""
    names = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
    if not names:
        raise InputError(f"{root}: has no class folders; {_LAYOUT}")
    return names


def read_image(path: Path, size: int) -> Tensor:
    """uint8 (3, size, size)."""
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (size, size))  # large JPEGs decode at a fraction of their size
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise InputError(f"{path}: not a readable image ({problem})") from None
    shorter = min(image.size)
    if shorter > size:
        width, height = (max(size, round(length * size / shorter)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (int((length - size) / 2) for length in image.size)
    # height, width, 3; beyond the image's edges there are zeros
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _split(root: Path, classes: Sequence[str], image_size: int) -> FolderSplit:
    extra = set(class_names(root)) - set(classes)
    if extra:
        raise InputError(f"{root}: has classes that train/ lacks: {', '.join(sorted(extra)[:5])}")
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted((root / name).iterdir()) if (root / name).is_dir() else []
        chosen = [f"{name}/{f.name}" for f in found if f.suffix.lower() in SUFFIXES]
        files += chosen
        labels += [label] * len(chosen)
    if not files:
        raise InputError(f"{root}: has no images; {_LAYOUT}")
    return FolderSplit(root, tuple(files), torch.tensor(labels), image_size)
