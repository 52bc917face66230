"""Data sets as the commands take them: by name, a folder of IDX files, or an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convkit.cli.errors import CommandError
from convkit.datasets import Split

NAMES = ("digits", "mnist", "fashion_mnist")

_DIGITS = tuple("0123456789")
_IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_MOST_CLASSES = 1000
# MNIST's images in a LeNet of 1998, which takes 32 x 32: two empty pixels on every side.
_BORDER = 2


@dataclass(frozen=True)
class Data:
    """Images (N, size, size, 1), float32, -1 (background) to 1 (ink); labels (N,), int32."""

    name: str
    known: bool  # one of NAMES, so that it can be found again by its name
    train: Split
    test: Split
    class_names: tuple[str, ...]


def load(data: str, size: int) -> Data:
    """The data set `data`, its images made ready for a model of this input size.

    Raises:
        CommandError: there is no such data set, or its content is not as expected.
        OSError: a file cannot be read.
    """
    try:
        if data == "digits":
            from convkit.datasets import digits

            train, test = digits.load_data(size=size)
        elif data == "mnist":
            from convkit.datasets import mnist

            train, test = mnist.load_data()
        elif data == "fashion_mnist":
            from convkit.datasets import fashion_mnist

            train, test = fashion_mnist.load_data()
        else:
            train, test = _from_path(Path(data).expanduser())
    except ValueError as error:
        raise CommandError(str(error)) from None
    parts = [_prepare(data, *part, size) for part in (train, test)]
    known = data in NAMES
    return Data(
        name=data if known else Path(data).absolute().stem,
        known=known,
        train=parts[0],
        test=parts[1],
        class_names=_class_names(data, max(int(labels.max()) for _, labels in parts)),
    )


def _class_names(data: str, largest_label: int) -> tuple[str, ...]:
    if data == "fashion_mnist":
        from convkit.datasets.fashion_mnist import CLASS_NAMES

        return CLASS_NAMES
    if data in NAMES:
        return _DIGITS
    return tuple(str(label) for label in range(max(largest_label + 1, 2)))


def _from_path(path: Path) -> tuple[Split, Split]:
    if path.is_dir():
        from convkit.datasets.idx import read_idx

        x_train, y_train, x_test, y_test = (read_idx(_idx_file(path, name)) for name in _IDX)
    elif path.suffix == ".npz" and path.is_file():
        x_train, y_train, x_test, y_test = _from_npz(path)
    else:
        raise CommandError(
            f"--data: expected {', '.join(NAMES)}, a folder of IDX files or an .npz file, "
            f"got {str(path)!r}{'' if path.exists() else ', which does not exist'}"
        )
    return (x_train, y_train), (x_test, y_test)


def _from_npz(path: Path) -> list[np.ndarray]:
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file) as arrays:
            missing = [name for name in _ARRAYS if name not in arrays]
            if missing:
                raise CommandError(
                    f"{path}: expected the arrays {', '.join(_ARRAYS)}, got "
                    f"{', '.join(arrays.files) or 'none'}"
                )
            return [arrays[name] for name in _ARRAYS]
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CommandError(f"{path}: expected an .npz file of numbers ({error})") from None


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise CommandError(f"{folder}: expected the file {name} or {name}.gz in it, found neither")


def _prepare(data: str, images: np.ndarray, labels: np.ndarray, size: int) -> Split:
    """Checked images and labels in the form that models take."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise CommandError(
            f"{data}: expected labels (N,) of whole numbers, got {labels.shape} of {labels.dtype}"
        )
    if len(images) != len(labels) or not len(labels):
        raise CommandError(
            f"{data}: expected as many labels as images, got {len(labels)} and {len(images)}"
        )
    if labels.min() < 0 or labels.max() >= _MOST_CLASSES:
        raise CommandError(
            f"{data}: expected labels between 0 and {_MOST_CLASSES - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    return _pixels(data, images, size), labels.astype(np.int32)


def _pixels(data: str, images: np.ndarray, size: int) -> np.ndarray:
    """(N, size, size, 1), float32, -1 to 1, of bytes or of fractions from 0 to 1."""
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    inner = size - 2 * _BORDER
    bordered = size == 32 and images.shape[1:] == (inner, inner)
    if images.shape[1:] != (size, size) and not bordered:
        also = f" or (N, {inner}, {inner})" if size == 32 else ""
        raise CommandError(
            f"{data}: expected images (N, {size}, {size}){also} for this model, got {images.shape}"
        )
    if images.dtype.kind not in "iufb":
        raise CommandError(f"{data}: expected images of numbers, got {images.dtype}")
    largest = 1 if images.dtype.kind in "fb" else 255
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= largest):
        raise CommandError(
            f"{data}: expected pixels of {images.dtype} between 0 and {largest}, "
            f"got {images.min():g} to {images.max():g}"
        )
    pixels = images.astype(np.float32)
    if largest != 1:
        pixels /= np.float32(largest)
    if bordered:
        pixels = np.pad(pixels, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))
    return centred(pixels[..., np.newaxis])


def centred(pixels: np.ndarray) -> np.ndarray:
    """0 .. 1 as -1 .. 1: inputs on both sides of zero train better (LeCun et al., Efficient
    BackProp, 1998)."""
    return pixels * np.float32(2) - np.float32(1)
