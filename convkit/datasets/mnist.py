"""MNIST: 70,000 handwritten digits of 28 × 28 pixels (Y. LeCun, C. Cortes, C. J. C. Burges).

Licence of the data: Creative Commons Attribution-ShareAlike 3.0. It is not part of this package
but downloaded on first use.
"""

from __future__ import annotations

from convkit.datasets import Split
from convkit.datasets.download import DataFile, Dataset, fetch
from convkit.datasets.idx import parse_idx

_DATASET = Dataset(
    name="mnist",
    files=(
        DataFile(
            "train-images-idx3-ubyte",
            47_040_016,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        DataFile(
            "train-labels-idx1-ubyte",
            60_008,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        DataFile(
            "t10k-images-idx3-ubyte",
            7_840_016,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        DataFile(
            "t10k-labels-idx1-ubyte",
            10_008,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)


def load_data() -> tuple[Split, Split]:
    """Load MNIST, from `CONVKIT_DATA`, the user's cache or the public mirrors, in this order.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images (60000, 28, 28) and (10000, 28, 28), uint8,
        0 for the background to 255 for ink; labels (60000,) and (10000,), uint8, 0 to 9.

    Raises:
        ValueError: a file in `CONVKIT_DATA` is not the published one.
        FileNotFoundError: a file is neither on this machine nor to be downloaded; the message says
            how to put the files in place by hand.
    """
    return load_splits(_DATASET)


def load_splits(dataset: Dataset) -> tuple[Split, Split]:
    """Load a data set whose four files are train images, train labels, test images, test labels."""
    x_train, y_train, x_test, y_test = (
        parse_idx(fetch(dataset, file), file.name) for file in dataset.files
    )
    return (x_train, y_train), (x_test, y_test)
