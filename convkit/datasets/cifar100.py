"""CIFAR-100: 60,000 colour photographs of 32 × 32 pixels in 100 classes (A. Krizhevsky, 2009).

The 100 classes ("fine") are in 20 groups of 5 ("coarse"). Origin, terms and form are those of
CIFAR-10; see `convkit.datasets.cifar10`.
"""

from __future__ import annotations

from convkit import geometry
from convkit.datasets import Split, cifar_binary
from convkit.datasets.download import DataFile, Dataset

CLASS_NAMES = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle"),
    *("bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle"),
    *("caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch"),
    *("crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox"),
    *("girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion"),
    *("lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom"),
    *("oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree"),
    *("plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road"),
    *("rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake"),
    *("spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank"),
    *("telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle"),
    *("wardrobe", "whale", "willow_tree", "wolf", "woman", "worm"),
)
COARSE_NAMES = (
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
)

# A record's labels, in this order.
_LABEL_MODES = ("coarse", "fine")
_RECORDS = cifar_binary.Records(
    source=Dataset(
        name="cifar100",
        files=(
            # The md5 that the authors publish is 03b5dce01913d631647c71ecec9e9cb8.
            DataFile(
                "cifar-100-binary.tar.gz",
                168_513_733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                packed=True,
            ),
        ),
        mirrors=cifar_binary.MIRRORS,
    ),
    folder="cifar-100-binary",
    train=(
        DataFile(
            "train.bin",
            153_700_000,
            "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        ),
    ),
    test=(
        DataFile(
            "test.bin",
            30_740_000,
            "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        ),
    ),
    labels=(20, 100),
)


def load_data(label_mode: str = "fine") -> tuple[Split, Split]:
    """Load CIFAR-100, from `CONVKIT_DATA`, the user's cache or the authors' site, in this order.

    `CONVKIT_DATA` may hold, in a folder `cifar100`, the archive `cifar-100-binary.tar.gz` or the
    folder `cifar-100-binary` out of it.

    Args:
        label_mode: "fine" for 100 classes, "coarse" for the 20 groups.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images (50000, 32, 32, 3) and (10000, 32, 32, 3),
        uint8, 0 to 255, red, green, blue; labels (50000, 1) and (10000, 1), uint8, places in
        `CLASS_NAMES`, or in `COARSE_NAMES`.

    Raises:
        ValueError: another label_mode, or a file in `CONVKIT_DATA` is not the published one.
        FileNotFoundError: the archive is neither on this machine nor to be downloaded; the message
            says how to put it in place by hand.
    """
    mode = geometry.choice("cifar100.load_data", "label_mode", label_mode, _LABEL_MODES)
    return cifar_binary.load(_RECORDS, label=_LABEL_MODES.index(mode))
