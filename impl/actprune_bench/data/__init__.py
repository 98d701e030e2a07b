"""Real images: a subset of Fashion-MNIST that ships with the package, and folders on disk.

Nothing is ever downloaded: a folder that is missing raises InputError saying where to get it.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from actprune_bench.data import cifar, fashion
from actprune_bench.data.images import ImageData, digest, limited
from actprune_common.errors import InputError

KINDS = ("embedded", "fashion-mnist:PATH", "cifar10:PATH", "folder:PATH")

__all__ = ["KINDS", "DataShape", "ImageData", "check_source", "data_shape", "load_data"]


class DataShape(NamedTuple):
    """What a model needs to know of its data."""

    channels: int
    num_classes: int


def load_data(
    source: str, image_size: int, limit_train: int | None = None, limit_test: int | None = None
) -> ImageData:
    """The images of `source`, smaller ones padded with zeros around to image_size when read.

    source: "embedded"; "fashion-mnist:PATH" (the four IDX .gz files); "cifar10:PATH" (the official
    Python or binary archive unpacked, or a tree); "folder:PATH" (a train/CLASS/*.png tree). limits:
    use at most so many images, balanced over the classes; the digest is of what is used. Raises
    InputError where a folder is missing or a file is damaged, naming it.
    """
    kind, folder = check_source(source)
    data = _load(kind, folder, image_size)
    if limit_train is None and limit_test is None:
        return data
    train, test = limited(data.train, limit_train), limited(data.test, limit_test)
    return replace(data, train=train, test=test, digest=digest(data.classes, train, test))


def data_shape(source: str) -> DataShape:
    """Channels and classes of `source` without reading its images."""
    kind, folder = check_source(source)
    if kind in ("embedded", "fashion-mnist"):
        return DataShape(1, len(fashion.CLASSES))
    if kind == "cifar10" and (cifar.archive_in(folder) or not (folder / "train").is_dir()):
        return DataShape(3, len(cifar.CLASSES))
    from actprune_bench.data.folder import class_names, split_folders

    return DataShape(3, len(class_names(split_folders(folder)[0])))


def check_source(source: str) -> tuple[str, Path]:
    """The kind and the folder that a source names; InputError on an unknown kind."""
    kind, colon, path = source.partition(":")
    known = {name.partition(":")[0] for name in KINDS}
    if kind not in known or (kind == "embedded") == bool(colon) or (colon and not path):
        raise InputError(f"data: expected one of {', '.join(KINDS)}, got {source!r}")
    return kind, Path(path).expanduser()


def _load(kind: str, folder: Path, image_size: int) -> ImageData:
    if kind == "embedded":
        return fashion.embedded(image_size)
    if kind == "fashion-mnist":
        return fashion.fashion_mnist(folder, image_size)
    from actprune_bench.data.folder import folder_tree  # Pillow is needed for trees only

    if kind == "folder":
        return folder_tree(folder, image_size)
    archive = cifar.archive_in(folder)
    if archive is not None:
        return cifar.cifar10(archive, image_size)
    if not (folder / "train").is_dir():
        lacks = "neither CIFAR-10's data_batch files nor a train/CLASS tree"
        raise InputError(f"{folder}: holds {lacks}; {cifar.SOURCE}")
    return folder_tree(folder, image_size, name="cifar10")
