"""Fashion-MNIST: 70,000 pictures of clothes, 28 × 28 pixels (Zalando Research, 2017).

Licence of the data: MIT, copyright Zalando SE. It is not part of this package but downloaded on
first use. Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", arXiv:1708.07747.
"""

from __future__ import annotations

from convkit.datasets import Split
from convkit.datasets.download import DataFile, Dataset
from convkit.datasets.mnist import load_splits

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_DATASET = Dataset(
    name="fashion_mnist",
    files=(
        DataFile(
            "train-images-idx3-ubyte",
            47_040_016,
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        DataFile(
            "train-labels-idx1-ubyte",
            60_008,
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        DataFile(
            "t10k-images-idx3-ubyte",
            7_840_016,
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        DataFile(
            "t10k-labels-idx1-ubyte",
            10_008,
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
    ),
)


def load_data() -> tuple[Split, Split]:
    """Load Fashion-MNIST; the same files, shapes, types and errors as `mnist.load_data`.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images (60000, 28, 28) and (10000, 28, 28), uint8,
        0 to 255; labels (60000,) and (10000,), uint8, places in `CLASS_NAMES`.

    Raises:
        ValueError: a file in `CONVKIT_DATA` is not the published one.
        FileNotFoundError: a file is neither on this machine nor to be downloaded; the message says
            how to put the files in place by hand.
    """
    return load_splits(_DATASET)
