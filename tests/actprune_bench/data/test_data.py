"""Every source of images: what is read, what the digest sees, and what damage says."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from actprune import InputError
from actprune_bench.data import cifar, data_shape, load_data

Array = npt.NDArray[np.generic]


def idx(array: Array) -> bytes:
    """A gzipped IDX file of unsigned bytes, the same at any time: contents are names of tests."""
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), compresslevel=1, mtime=0)


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("t10k", 12)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return tmp_path


@pytest.fixture
def cifar_arrays(monkeypatch: pytest.MonkeyPatch) -> tuple[Array, Array]:
    """Six files' worth of 4 images and labels; the real ones hold 10,000 each."""
    monkeypatch.setattr(cifar, "IMAGES_PER_FILE", 4)
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (6, 4, 3072), dtype=np.uint8), rng.integers(0, 10, (6, 4))


def python2_pickle(images: Array, labels: list[int]) -> bytes:
    """The bytes that Python 2 wrote into the official archive: strings without an encoding."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    def shape(*sizes: int) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in sizes) + b"t"

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + shape(0)
    array += text(b"b") + b"tR(K\x01" + shape(*images.shape) + dtype + b"\x89"
    array += text(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def names(suffix: str) -> list[str]:
    return [*(f"data_batch_{i}{suffix}" for i in range(1, 6)), f"test_batch{suffix}"]


def write_tree(root: Path, size: tuple[int, int], test: str = "test") -> None:
    for split, count in (("train", 3), (test, 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                color = (10 * i + 1, 100 * label, 7)
                Image.new("RGB", size, color).save(root / split / name / f"{i}.png")


def test_embedded_images_are_balanced_and_padded() -> None:
    data = load_data("embedded", 32)
    assert (len(data.train), len(data.test)) == (10_000, 2_000)
    assert data.train.labels.bincount().tolist() == [1000] * 10
    assert data.test.labels.bincount().tolist() == [200] * 10
    images = data.train.images(torch.arange(100))
    assert images.shape == (100, 1, 32, 32)
    assert images.dtype == torch.uint8
    assert images[:, :, 2:30, 2:30].float().mean() > 50
    images[:, :, 2:30, 2:30] = 0
    assert not images.any()
    assert data.digest == "sha256:98d57e4912fdf4dbd651071567c8dba14a0bead935b1e144f93418f3015f05db"


def test_embedded_is_the_first_of_each_class_of_the_full_set(fashion_mnist: Path) -> None:
    small, full = load_data("embedded", 32), load_data(f"fashion-mnist:{fashion_mnist}", 32, 10_000)
    assert torch.equal(small.train.labels, full.train.labels)
    chosen = torch.arange(0, 10_000, 97)
    assert torch.equal(small.train.images(chosen), full.train.images(chosen))


def test_limits_are_balanced_keep_the_order_and_show_in_the_digest(idx_folder: Path) -> None:
    whole = load_data(f"fashion-mnist:{idx_folder}", 28)
    part = load_data(f"fashion-mnist:{idx_folder}", 28, limit_train=20, limit_test=5)
    assert part.train.labels.tolist() == [*range(10), *range(10)]
    assert torch.equal(part.train.images(torch.arange(20)), whole.train.images(torch.arange(20)))
    assert len(part.test) == 5
    assert part.digest != whole.digest
    same = load_data(f"fashion-mnist:{idx_folder}", 28, limit_train=1000)
    assert same.digest == whole.digest
    with pytest.raises(InputError, match=r"^limit: expected 1 or more images, got 0$"):
        load_data(f"fashion-mnist:{idx_folder}", 28, limit_train=0)


def test_digest_sees_images_and_labels(idx_folder: Path) -> None:
    source = f"fashion-mnist:{idx_folder}"
    digests = {load_data(source, 28).digest, load_data(source, 32).digest}
    assert len(digests) == 1, "the model's size is no part of the data"
    labels = (np.arange(30) % 10).astype(np.uint8)
    labels[[0, 1]] = labels[[1, 0]]
    (idx_folder / "train-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    digests.add(load_data(source, 28).digest)
    images = np.zeros((30, 28, 28), np.uint8)
    (idx_folder / "train-images-idx3-ubyte.gz").write_bytes(idx(images))
    digests.add(load_data(source, 28).digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "not a whole gzip file"),
        (idx(np.zeros((30, 28, 28), np.uint8))[:-20], "not a whole gzip file"),
        (idx(np.zeros((30, 28), np.uint8)), "expected the IDX magic 0x00000803, got 0x00000802"),
        (gzip.compress(b"\0\0\x08\x03", mtime=0), "expected an IDX header of 16 bytes, got 4"),
        (
            gzip.compress(struct.pack(">4I", 0x803, 30, 28, 28) + bytes(100), mtime=0),
            r"expected 23536 bytes for \[30, 28, 28\], got 116",
        ),
        (
            gzip.compress(struct.pack(">4I", 0x803, *[2**32 - 1] * 3), mtime=0),
            "expected 79228162458924105385300197391 bytes",
        ),
        (None, "no such file; get the four files from"),
    ],
)
def test_damaged_idx_files_are_named(idx_folder: Path, content: bytes | None, message: str) -> None:
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        load_data(f"fashion-mnist:{idx_folder}", 28)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(29, np.uint8), "expected 30 labels, got 29$"),
        (np.full(30, 10, np.uint8), "expected labels from 0 to 9$"),
    ],
)
def test_wrong_labels_are_named(idx_folder: Path, labels: Array, message: str) -> None:
    path = idx_folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(idx(labels))
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        load_data(f"fashion-mnist:{idx_folder}", 28)


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_cifar_python_archive(
    tmp_path: Path, cifar_arrays: tuple[Array, Array], inside: str
) -> None:
    images, labels = cifar_arrays
    (tmp_path / inside).mkdir(exist_ok=True)
    for name, rows, marks in zip(names(""), images, labels.tolist(), strict=True):
        (tmp_path / inside / name).write_bytes(python2_pickle(rows, marks))
    data = load_data(f"cifar10:{tmp_path}", 32)
    assert (len(data.train), len(data.test), data.channels) == (20, 4, 3)
    assert data.train.labels.tolist() == labels[:5].flatten().tolist()
    expected = images[1, 2].reshape(3, 32, 32)
    assert np.array_equal(data.train.images(torch.tensor([6]))[0].numpy(), expected)


def test_cifar_binary_archive_equals_the_python_one(
    tmp_path: Path, cifar_arrays: tuple[Array, Array]
) -> None:
    images, labels = cifar_arrays
    for kind in ("py", "bin"):
        (tmp_path / kind).mkdir()
    for i, (rows, marks) in enumerate(zip(images, labels, strict=True)):
        batch = pickle.dumps({b"data": rows, b"labels": marks.tolist()}, protocol=4)
        (tmp_path / "py" / names("")[i]).write_bytes(batch)
        records = np.concatenate([marks[:, None].astype(np.uint8), rows], axis=1)
        (tmp_path / "bin" / names(".bin")[i]).write_bytes(records.tobytes())
    kinds = {load_data(f"cifar10:{tmp_path / kind}", 32).digest for kind in ("py", "bin")}
    assert len(kinds) == 1


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch evil",)


def test_cifar_pickles_cannot_run_code(
    tmp_path: Path, cifar_arrays: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(InputError, match=r"data_batch_1: not a CIFAR-10 batch \(it asks for"):
        load_data(f"cifar10:{tmp_path}", 32)
    assert not (tmp_path / "evil").exists()


def test_damaged_cifar_files_are_named(tmp_path: Path, cifar_arrays: tuple[Array, Array]) -> None:
    images, labels = cifar_arrays
    path = tmp_path / "data_batch_1"
    whole = python2_pickle(images[0], labels[0].tolist())
    wrong_label = python2_pickle(images[0], [1, 2, 3, 10])
    for content, message in (
        (whole[:-100], "not a CIFAR-10 batch"),
        (pickle.dumps([1, 2]), "not a CIFAR-10 batch"),
        (python2_pickle(images[0, :3], [1, 2, 3]), r"expected uint8 images of shape \(4, 3072\)"),
        (wrong_label, "expected 4 labels from 0 to 9"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{path}: {message}"):
            load_data(f"cifar10:{tmp_path}", 32)
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"data_batch_2: cannot be read \(No such file"):
        load_data(f"cifar10:{tmp_path}", 32)
    path.unlink()
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(bytes(3073 * 4 - 1))
    with pytest.raises(InputError, match=f"^{path}: expected 12292 bytes, got 12291$"):
        load_data(f"cifar10:{tmp_path}", 32)


@pytest.mark.parametrize("kind", ["folder", "cifar10"])
@pytest.mark.parametrize("test", ["test", "val"])
def test_class_folders(tmp_path: Path, kind: str, test: str) -> None:
    write_tree(tmp_path, (32, 32), test)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    data = load_data(f"{kind}:{tmp_path}", 32)
    assert data.classes == ("cat", "dog")
    assert data_shape(f"{kind}:{tmp_path}") == (3, 2)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(data.test) == 4
    images = data.train.images(torch.tensor([5, 0]))
    assert images.shape == (2, 3, 32, 32)
    assert images[:, :, 5, 5].tolist() == [[21, 100, 7], [1, 0, 7]]
    assert data.train.images(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("size", "filled"), [((20, 32), (32, 20)), ((64, 96), (32, 32)), ((100, 10), (10, 32))]
)
def test_any_size_of_image_is_fitted(
    tmp_path: Path, size: tuple[int, int], filled: tuple[int, int]
) -> None:
    write_tree(tmp_path, size)
    image = load_data(f"folder:{tmp_path}", 32).train.images(torch.tensor([0]))[0]
    assert image.shape == (3, 32, 32)
    inside = image[0] == 1
    assert (int(inside.any(1).sum()), int(inside.any(0).sum())) == filled
    rows = inside.any(1).nonzero().flatten()
    assert abs(int(rows[0]) - (31 - int(rows[-1]))) <= 1, "centred"


def test_tree_digest_sees_names_and_sizes(tmp_path: Path) -> None:
    write_tree(tmp_path, (32, 32))
    first = load_data(f"folder:{tmp_path}", 32)
    assert load_data(f"folder:{tmp_path}", 224).digest == first.digest
    (tmp_path / "train/cat/0.png").rename(tmp_path / "train/cat/9.png")
    renamed = load_data(f"folder:{tmp_path}", 32)
    Image.effect_noise((32, 32), 9).save(tmp_path / "train/cat/9.png")
    other = load_data(f"folder:{tmp_path}", 32)
    assert len({first.digest, renamed.digest, other.digest}) == 3


def test_damaged_image_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, (32, 32))
    path = tmp_path / "train/cat/0.png"
    data = load_data(f"folder:{tmp_path}", 32)
    for content in (b"", b"no image", path.read_bytes()[:60]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{path}: not a readable image"):
            data.train.images(torch.tensor([0]))


def test_wrong_trees_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}: expected train/CLASS"):
        load_data(f"folder:{tmp_path}", 32)
    write_tree(tmp_path, (32, 32))
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(InputError, match=r"test: has classes that train/ lacks: cow$"):
        load_data(f"folder:{tmp_path}", 32)
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()
    (tmp_path / "test" / "cow").rmdir()
    with pytest.raises(InputError, match=r"test: has no images; expected train/CLASS"):
        load_data(f"folder:{tmp_path}", 32)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("fashion-mnist:/nowhere", "/nowhere: no such folder; get the four files from https://"),
        ("cifar10:/nowhere", "/nowhere: holds neither CIFAR-10's data_batch files nor .* https://"),
        ("folder:/nowhere", "/nowhere: no such folder; expected train/CLASS"),
        ("mnist", "data: expected one of embedded, fashion-mnist:PATH, .*, got 'mnist'$"),
        ("folder", "data: expected one of embedded, .* got 'folder'$"),
        ("folder:", "data: expected one of embedded, .* got 'folder:'$"),
        ("embedded:x", "data: expected one of embedded, .* got 'embedded:x'$"),
    ],
)
def test_missing_data_says_where_to_get_it(source: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        load_data(source, 32)


def test_images_larger_than_the_model_are_refused() -> None:
    message = "^image_size: expected at least 28, the size of embedded's images, got 16$"
    with pytest.raises(InputError, match=message):
        load_data("embedded", 16)


def test_shapes_are_known_without_the_data() -> None:
    assert data_shape("embedded") == data_shape("fashion-mnist:/nowhere") == (1, 10)
    assert data_shape("cifar10:/nowhere") == (3, 10)
