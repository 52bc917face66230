"""CIFAR-10: 60,000 colour photographs of 32 × 32 pixels in 10 classes (A. Krizhevsky, 2009).

Collected by A. Krizhevsky, V. Nair and G. Hinton, who state no licence but ask to cite:
A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The data are not part
of this package but downloaded on first use, in their binary form, which needs no pickle.
"""

from __future__ import annotations

from convkit.datasets import Split, cifar_binary
from convkit.datasets.download import DataFile, Dataset

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_FILE_BYTES = 30_730_000
_RECORDS = cifar_binary.Records(
    source=Dataset(
        name="cifar10",
        files=(
            # The md5 that the authors publish is c32a1d4ab5d03f1284b67883e8d87530.
            DataFile(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                packed=True,
            ),
        ),
        mirrors=cifar_binary.MIRRORS,
    ),
    folder="cifar-10-batches-bin",
    train=(
        DataFile(
            "data_batch_1.bin",
            _FILE_BYTES,
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        ),
        DataFile(
            "data_batch_2.bin",
            _FILE_BYTES,
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        ),
        DataFile(
            "data_batch_3.bin",
            _FILE_BYTES,
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        ),
        DataFile(
            "data_batch_4.bin",
            _FILE_BYTES,
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        ),
        DataFile(
            "data_batch_5.bin",
            _FILE_BYTES,
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        ),
    ),
    test=(
        DataFile(
            "test_batch.bin",
            _FILE_BYTES,
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        ),
    ),
    labels=(10,),
)


def load_data() -> tuple[Split, Split]:
    """Load CIFAR-10, from `CONVKIT_DATA`, the user's cache or the authors' site, in this order.

    `CONVKIT_DATA` may hold, in a folder `cifar10`, the archive `cifar-10-binary.tar.gz` or the
    folder `cifar-10-batches-bin` out of it.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images (50000, 32, 32, 3) and (10000, 32, 32, 3),
        uint8, 0 to 255, red, green, blue; labels (50000, 1) and (10000, 1), uint8, places in
        `CLASS_NAMES`.

    Raises:
        ValueError: a file in `CONVKIT_DATA` is not the published one.
        FileNotFoundError: the archive is neither on this machine nor to be downloaded; the message
            says how to put it in place by hand.
    """
    return cifar_binary.load(_RECORDS, label=0)
