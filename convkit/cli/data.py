"""Data sets as the commands take them: by name, a folder, or an .npz file."""

from __future__ import annotations

import importlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convkit.cli.errors import CommandError
from convkit.cli.networks import Network, Shape
from convkit.data import Dataset, shuffled
from convkit.datasets import Split

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
# Those that `convkit predict` finds the ink of an image for, and frames it as they are.
DRAWINGS = ("digits", "mnist", "fashion_mnist")

_DIGITS = tuple("0123456789")
_IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_MOST_CLASSES = 1000
# MNIST's images in a network that takes 32 x 32: two empty pixels on every side.
_BORDER = 2
# Names of folders with the test images, beside "train".
_TEST_FOLDERS = ("test", "val", "valid", "validation")
_TEST_SHARE = 0.2  # of a folder without them
_SIZE = 64  # pixels, where nobody says another number
_IN_MEMORY = 1 << 29  # bytes; images of a folder that are more are read anew in each epoch
_AT_ONCE = 256


@dataclass(frozen=True)
class Images:
    """Images with labels, (N, H, W, C), from 0 (background or black) to 255; in memory or not.

    Attributes:
        x: an array; or a stream of batches (x, y), which comes in its order.
        y: labels (N,), int32; of a stream, those of all its files.
    """

    x: np.ndarray | Dataset
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def fed(self) -> tuple[Any, Any]:
        """x and y as `fit` takes them."""
        return self.x, self.y if isinstance(self.x, np.ndarray) else None

    def batches(self) -> Iterator[Split]:
        """(images, labels), one batch after the other."""
        if isinstance(self.x, np.ndarray):
            for row in range(0, len(self.y), _AT_ONCE):
                yield self.x[row : row + _AT_ONCE], self.y[row : row + _AT_ONCE]
        else:
            yield from self.x

    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of an array."""
        assert isinstance(self.x, np.ndarray)
        return self.x.shape[1:]

    def first(self, most: int) -> Split:
        """The first so many in memory."""
        parts, found = [], 0
        for x, y in self.batches():
            parts.append((x[: most - found], y[: most - found]))
            found += len(parts[-1][0])
            if found >= most:
                break
        return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


@dataclass(frozen=True)
class Data:
    """A data set: images to train on, to test on and, if asked for, to decide on when to stop."""

    name: str
    known: bool  # one of NAMES, so that it can be found again by its name
    shape: Shape
    train: Images
    test: Images
    class_names: tuple[str, ...]
    held_out: Images | None = None


def load(
    data: str,
    network: Network,
    *,
    size: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    held_out: float = 0.0,
) -> Data:
    """The data set `data`, its images made ready for a network.

    Args:
        data: one of NAMES, a folder with IDX files, a folder of images, or an .npz file.
        network: which images it takes.
        size: height and width of images from a folder; None: the network's own, else 64.
        batch_size: of streams.
        seed: of streams' orders, and of what is held out.
        held_out: share of the images to train on that is kept for validation.

    Raises:
        CommandError: there is no such data set, or its content is not as expected.
        OSError: a file cannot be read.
    """
    try:
        path = Path(data).expanduser()
        if data not in NAMES and path.is_dir() and not _has_idx(path):
            return _folder(path, network, size, batch_size, seed, held_out)
        if size is not None:
            raise CommandError(
                f"--image-size: expected a folder of images with it, got --data {data}"
            )
        train, test = _known(data, network) if data in NAMES else _from_path(path)
    except ImportError as error:
        raise CommandError(str(error)) from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    parts = [_prepare(data, *part, network) for part in (train, test)]
    shape, other = (part.image_shape() for part in parts)
    if shape != other:
        raise CommandError(
            f"{data}: expected test images of the shape of those to train on, {shape}, got {other}"
        )
    found = Data(
        name=data if data in NAMES else path.absolute().stem,
        known=data in NAMES,
        shape=(shape[0], shape[1], shape[2]),
        train=parts[0],
        test=parts[1],
        class_names=_class_names(data, max(int(part.y.max()) for part in parts)),
    )
    return _with_held_out(found, held_out, seed)


def _with_held_out(data: Data, share: float, seed: int) -> Data:
    count = int(len(data.train) * share)
    if not share:
        return data
    if not count:
        raise CommandError(f"{data.name}: expected more images to keep some for validation")
    order = shuffled(len(data.train), seed)
    kept, used = np.sort(order[:count]), np.sort(order[count:])
    x, y = data.train.x, data.train.y
    assert isinstance(x, np.ndarray)
    return replace(data, train=Images(x[used], y[used]), held_out=Images(x[kept], y[kept]))


def _class_names(data: str, largest_label: int) -> tuple[str, ...]:
    if data in ("digits", "mnist"):
        return _DIGITS
    if data in NAMES:
        names: tuple[str, ...] = importlib.import_module(f"convkit.datasets.{data}").CLASS_NAMES
        return names
    return tuple(str(label) for label in range(max(largest_label + 1, 2)))


# ---- arrays --------------------------------------------------------------------------------------


def _known(data: str, network: Network) -> tuple[Split, Split]:
    if data == "digits":
        from convkit.datasets import digits

        size = 32 if network.least == 32 else 28
        return digits.load_data(size=network.shape[0] if network.shape else size)
    found: tuple[Split, Split] = importlib.import_module(f"convkit.datasets.{data}").load_data()
    return found


def _from_path(path: Path) -> tuple[Split, Split]:
    if path.is_dir():
        from convkit.datasets.idx import read_idx

        x_train, y_train, x_test, y_test = (read_idx(_idx_file(path, name)) for name in _IDX)
    elif path.suffix == ".npz" and path.is_file():
        x_train, y_train, x_test, y_test = _from_npz(path)
    else:
        raise CommandError(
            f"--data: expected {', '.join(NAMES)}, a folder of images or of IDX files, or an .npz "
            f"file, got {str(path)!r}{'' if path.exists() else ', which does not exist'}"
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


def _has_idx(folder: Path) -> bool:
    """Whether a folder holds one of the IDX files, or nothing else that it could be read for."""
    there = {path.name.removesuffix(".gz") for path in folder.iterdir()}
    return not there.isdisjoint(_IDX) or not any(path.is_dir() for path in folder.iterdir())


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise CommandError(
        f"{folder}: expected a folder for each class, or the file {name} or {name}.gz, found "
        "neither"
    )


def _prepare(data: str, images: np.ndarray, labels: np.ndarray, network: Network) -> Images:
    """Checked images and labels in the form that networks take."""
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
    return Images(_pixels(data, images, network), labels.astype(np.int32))


def _pixels(data: str, images: np.ndarray, network: Network) -> np.ndarray:
    """(N, H, W, C), 0 to 255, of bytes or of fractions from 0 to 1."""
    given = images.shape
    if images.ndim == 3:
        images = images[..., np.newaxis]
    to_32 = network.least == 32 or network.shape == (32, 32, 1)
    bordered = to_32 and images.shape[1:] == (28, 28, 1)
    if bordered:
        border = (_BORDER, _BORDER)
        images = np.pad(images, ((0, 0), border, border, (0, 0)))
    if network.shape is not None and images.shape[1:] != network.shape:
        height, width, channels = network.shape
        wanted = f"(N, {height}, {width})" if channels == 1 else f"(N, {height}, {width}, 3)"
        also = " or (N, 28, 28)" if network.shape == (32, 32, 1) else ""
        raise CommandError(
            f"{data}: expected images {wanted}{also} for this model, got {given}; other models "
            "take others"
        )
    if images.ndim != 4 or images.shape[3] not in (1, 3) or min(images.shape[1:3]) < network.least:
        raise CommandError(
            f"{data}: expected images (N, height, width) or (N, height, width, 3) of at least "
            f"{network.least} x {network.least} pixels for this model, got {given}"
        )
    if images.dtype.kind not in "iufb":
        raise CommandError(f"{data}: expected images of numbers, got {images.dtype}")
    largest = 1 if images.dtype.kind in "fb" else 255
    if images.dtype == np.uint8:
        return images
    if not (images.min() >= 0 and images.max() <= largest):
        raise CommandError(
            f"{data}: expected pixels of {images.dtype} between 0 and {largest}, "
            f"got {images.min():g} to {images.max():g}"
        )
    if largest == 255:
        return images.astype(np.uint8)
    return images.astype(np.float32) * np.float32(255)


# ---- folders of images ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """Files of images with their classes."""

    paths: Sequence[str]
    labels: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> _Files:
        return _Files([self.paths[row] for row in rows], self.labels[rows])


def _folder(
    path: Path, network: Network, size: int | None, batch_size: int, seed: int, held_out: float
) -> Data:
    """A folder for each class; or these in the folders "train" and "test" (or "val")."""
    from convkit.datasets import folder

    if network.shape is not None:
        shape = network.shape
        if size not in (None, shape[0]):
            raise CommandError(f"--image-size: expected {shape[0]} for this model, got {size}")
    else:
        side = max(_SIZE, network.least) if size is None else size
        shape = (side, side, 3)
        if side < network.least:
            raise CommandError(
                f"--image-size: expected at least {network.least} for this model, got {side}"
            )

    def files(root: Path, names: Sequence[str] | None = None) -> tuple[_Files, tuple[str, ...]]:
        found = folder.image_folder(root, class_names=names)
        assert found.labels is not None
        return _Files(found.file_paths, found.labels), found.class_names

    tests = [path / name for name in _TEST_FOLDERS if (path / name).is_dir()]
    if (path / "train").is_dir() and tests:
        train, names = files(path / "train")
        test, _ = files(tests[0], names)
    else:
        whole, names = files(path)
        train, test = _split(path, whole, _TEST_SHARE)
    kept = None
    if held_out:
        train, kept = _split(path, train, held_out)
    if len(names) < 2:
        raise CommandError(f"{path}: expected folders of at least 2 classes, got {names[0]}")
    load = partial(
        folder.load_labelled,
        channels=shape[2],
        image_size=shape[:2],
        interpolation="bilinear",
        crop_to_aspect_ratio=True,
    )

    def images(some: _Files, shuffle: bool) -> Images:
        return _images(some, load, shape, batch_size, seed if shuffle else None)

    return Data(
        name=path.absolute().name,
        known=False,
        shape=shape,
        train=images(train, shuffle=True),
        test=images(test, shuffle=False),
        class_names=names,
        held_out=None if kept is None else images(kept, shuffle=False),
    )


def _split(path: Path, files: _Files, share: float) -> tuple[_Files, _Files]:
    """The rest, and a share; always the same, so that what was trained on is never tested on."""
    order = shuffled(len(files.labels), 0)
    count = int(len(order) * share)
    if not count:
        raise CommandError(f"{path}: expected more images to keep some apart")
    return files[np.sort(order[count:])], files[np.sort(order[:count])]


def _images(files: _Files, load: Any, shape: Shape, batch_size: int, seed: int | None) -> Images:
    """In memory, if there is room; otherwise a stream, in a new order each epoch if it is seeded.

    Files that cannot be read are left out, and named in a warning.
    """
    from convkit.datasets.images import ImageError

    in_memory = len(files.paths) * int(np.prod(shape)) <= _IN_MEMORY
    stream = Dataset(
        list(zip(files.paths, files.labels, strict=True)),
        load,
        batch_size=_AT_ONCE if in_memory else batch_size,
        shuffle=seed is not None and not in_memory,
        seed=None if in_memory else seed,
        skip=(ImageError,),
        name=_path_of,
    )
    if not in_memory:
        return Images(stream, files.labels)
    x, y = stream.as_arrays()
    return Images(x, y.astype(np.int32))


def _path_of(item: tuple[str, int]) -> str:
    return item[0]
