"""Digits: 1,797 handwritten digits of 8 × 8 pixels, inside this package.

The test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998), licence
CC BY 4.0; see `data/digits/README.md`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convkit.datasets import Split
from convkit.datasets.idx import read_idx

_FOLDER = Path(__file__).parent / "data" / "digits"
_LARGEST_PIXEL = 16
# Image size: by how much 8 × 8 is scaled up, and the empty pixels then added on every side.
_SCALE_AND_BORDER = {8: (1, 0), 28: (3, 2), 32: (4, 0)}
_EVERY = 5


def load_data(size: int = 8) -> tuple[Split, Split]:
    """Load the digits, as they are or scaled up with bilinear interpolation by `ops.upsample2d`.

    The split is fixed: of each digit, every fifth image in the set's order is for the test. The set
    consists of 14 filled-in forms, one after another, and so every form, and with it every writer,
    has images in both parts. Test accuracy therefore tells how well new digits of known writers are
    read. Unknown writers are harder: train on the first eleven forms and test on the last three,
    and LeNet has some 94 % right instead of some 98 %.

    Args:
        size: height and width of the images: 8, 28 (8 × 3 with a border of 2, much like MNIST's)
            or 32 (8 × 4).

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images (1442, size, size) and (355, size, size),
        uint8, 0 for the background to 255 for ink whatever the size (the file has 0 to 16); labels
        (1442,) and (355,), uint8, 0 to 9.
    """
    if size not in _SCALE_AND_BORDER:
        raise ValueError(f"digits.load_data: expected size 8, 28 or 32, got {size!r}")
    images = read_idx(_FOLDER / "images-idx3-ubyte.gz")
    labels = read_idx(_FOLDER / "labels-idx1-ubyte.gz")
    images = _scale(images, *_SCALE_AND_BORDER[size])
    test = _every_fifth_of_each_class(labels)
    return (images[~test], labels[~test]), (images[test], labels[test])


def _scale(images: np.ndarray, factor: int, border: int) -> np.ndarray:
    """Images (N, 8, 8) of 0 to 16 to uint8 images of 0 to 255, enlarged."""
    scaled = images.astype(np.float32) * np.float32(255 / _LARGEST_PIXEL)
    if factor > 1:
        from convkit import ops

        scaled = ops.upsample2d(scaled[..., np.newaxis], size=factor, interpolation="bilinear")
        scaled = scaled[..., 0]
    pixels = np.rint(scaled).astype(np.uint8)
    return np.pad(pixels, ((0, 0), (border, border), (border, border)))


def _every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    """A mask (N,) that is true for the fifth, tenth, … image of each class."""
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mask[np.flatnonzero(labels == label)[_EVERY - 1 :: _EVERY]] = True
    return mask
