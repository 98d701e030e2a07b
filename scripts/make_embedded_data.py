"""Make impl/actprune_bench/data/fashion_mnist_12k.npz from the four IDX files of Fashion-MNIST.

The first 1,000 training and 200 test images of each class, in the order of the files.
Usage: python scripts/make_embedded_data.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from actprune_bench.data.fashion import CLASSES, read_idx

TARGET = Path(__file__).parents[1] / "impl/actprune_bench/data/fashion_mnist_12k.npz"


def main() -> None:
    folder = Path(sys.argv[1])
    arrays = {}
    for name, prefix, per_class in (("train", "train", 1000), ("test", "t10k", 200)):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
        first = [np.flatnonzero(labels == label)[:per_class] for label in range(len(CLASSES))]
        chosen = np.sort(np.concatenate(first))
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = images[chosen], labels[chosen]
    np.savez_compressed(TARGET, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
