"""Images in folders, one folder for each class: the layout of ImageNet and of Keras's examples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from convkit import geometry
from convkit.data import Dataset, shuffled
from convkit.datasets import images

_OP = "image_folder"
_LABELS = ("int", "categorical")
_SUBSETS = ("training", "validation")
_SPLIT_SEED = 0


class ImageFolder(Dataset):
    """The images of a folder as a `Dataset`, made by `image_folder`.

    Attributes:
        class_names: names of the classes, in the order of their numbers; () without labels.
        file_paths: the files, in the order of `items`.
        labels: their classes, (samples,), int32; None without labels.
    """

    _op = _OP

    def __init__(
        self,
        file_paths: list[str],
        labels: np.ndarray | None,
        class_names: tuple[str, ...],
        categorical: bool,
        load: Any,
        **options: Any,
    ) -> None:
        self.file_paths = file_paths
        self.labels = labels
        self.class_names = class_names
        targets: list[Any] = [None] * len(file_paths)
        if labels is not None:
            rows = np.eye(len(class_names), dtype=np.float32) if categorical else None
            targets = [label if rows is None else rows[label] for label in labels]
        items = list(zip(file_paths, targets, strict=True))
        super().__init__(items, load, name=_path_of, **options)


def image_folder(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] = (256, 256),
    channels: int = 3,
    labels: str | None = "int",
    class_names: Sequence[str] | None = None,
    *,
    validation_split: float | None = None,
    subset: str | None = None,
    seed: int | None = None,
    corrupt: str = "raise",
    interpolation: str = "bilinear",
    crop_to_aspect_ratio: bool = False,
    follow_links: bool = False,
    batch_size: int = 32,
    shuffle: bool = True,
    drop_last: bool = False,
    threads: int | None = None,
    prefetch: int = 2,
) -> ImageFolder:
    """Batches of images from a folder that holds a folder for each class::

        photos/
          cat/  1.jpg  2.png  more/3.webp
          dog/  a.jpeg

    Images are read while they are asked for, by threads ahead of the loop, a few batches at a time
    (see `convkit.data.Dataset`): any format that Pillow decodes, made upright as EXIF says; 16-bit
    grey scaled to 8 bits, palettes looked up, transparent parts laid on white (with 4 channels they
    keep their alpha), of animations the first frame. Which files are images is told by the endings
    of their names. Files and folders whose names begin with a dot are passed over, as are files
    beside the class folders. Files are in the order of their paths, class by class.

    Args:
        path: the folder.
        image_size: (height, width) that all images are brought to.
        channels: 1 for grey, 3 for red, green, blue, 4 for these and alpha.
        labels: "int": y is (N,), int32, the class's place in `class_names`; "categorical":
            (N, classes), float32, one-hot; None: there is no y, and all images at any depth of
            `path` are read, in class folders or not.
        class_names: the class folders to read, in the order of their numbers; None: all, sorted.
        validation_split: the share of images that is kept for validation, 0 < share < 1.
        subset: "training" or "validation": which part of the split this is. The split follows from
            the files, `validation_split` and `seed` alone: with the same three, the two parts have
            no image in common, shuffled or not. (A seed of None splits as 0 does.)
        seed: of the split and of each epoch's order; None: the orders' is drawn.
        corrupt: "raise": a file that cannot be read is an `ImageError` in the loop that names it;
            "skip": it is left out of its batch, noted in `skipped`, and named in a warning at the
            end of the epoch.
        interpolation: "nearest", "bilinear", "bicubic", "box", "hamming" or "lanczos", as Pillow's.
        crop_to_aspect_ratio: take the largest part in the middle that has the proportions of
            `image_size`, rather than stretch the image.
        follow_links: go into links to folders inside class folders, into no folder twice. (Links to
            files, and class folders that are links, are always followed.)
        batch_size, shuffle, drop_last, threads, prefetch: as for `convkit.data.Dataset`.

    Returns:
        A `Dataset` of x, (N, height, width, channels), uint8, 0 to 255, and y; with `class_names`,
        `file_paths` and `labels`. `as_arrays()` loads everything at once.

    Raises:
        ImportError: Pillow is not installed.
        FileNotFoundError, NotADirectoryError: there is no such folder.
        ValueError: there are no class folders, or one of those that are asked for is missing or
            holds no image; or a part of the split is empty.
    """
    images.require_pillow(_OP)
    size = geometry.pair(_OP, "image_size", image_size, 1)
    if labels is not None:
        geometry.choice(_OP, "labels", labels, _LABELS)
    load = partial(
        load_labelled,
        channels=images.check_channels(_OP, channels),
        image_size=size,
        interpolation=geometry.choice(_OP, "interpolation", interpolation, images.INTERPOLATIONS),
        crop_to_aspect_ratio=bool(crop_to_aspect_ratio),
    )
    root = os.fspath(path)
    if labels is None:
        if class_names is not None:
            raise geometry.fail(_OP, "class_names with labels only", "labels=None")
        names: tuple[str, ...] = ()
        files = _images(root, follow_links)
        if not files:
            raise geometry.fail(_OP, f"images in {root}", "none")
        numbers = None
    else:
        names = _class_names(root, class_names)
        found = [_images(os.path.join(root, name), follow_links, root) for name in names]
        for name, some in zip(names, found, strict=True):
            if not some:
                raise geometry.fail(
                    _OP,
                    f"images in the class folder {os.path.join(root, name)}",
                    "none; class_names can leave it out",
                )
        files = [file for some in found for file in some]
        numbers = np.repeat(np.arange(len(names), dtype=np.int32), [len(some) for some in found])
    chosen = _subset(len(files), validation_split, subset, seed)
    return ImageFolder(
        [files[row] for row in chosen],
        None if numbers is None else numbers[chosen],
        names,
        labels == "categorical",
        load,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        threads=threads,
        prefetch=prefetch,
        skip=skipped_errors(_OP, corrupt),
    )


def skipped_errors(op: str, corrupt: object) -> tuple[type[Exception], ...]:
    """`Dataset`'s `skip` for the argument `corrupt`."""
    geometry.choice(op, "corrupt", corrupt, ("raise", "skip"))
    return (images.ImageError,) if corrupt == "skip" else ()


def load_labelled(
    item: tuple[str, Any],
    channels: int,
    image_size: tuple[int, int],
    interpolation: str,
    crop_to_aspect_ratio: bool,
) -> Any:
    """The sample of a file and its target: x (height, width, channels), and the target if any."""
    path, target = item
    image = images.read(path, channels)
    x = images.fitted(image, image_size, interpolation, crop_to_aspect_ratio)
    if channels == 1:
        x = x[..., np.newaxis]
    return x if target is None else (x, target)


def _path_of(item: tuple[str, Any]) -> str:
    return item[0]


def _class_names(root: str, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the class folders in the order of their numbers."""
    with os.scandir(root) as entries:
        there = sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )
    if chosen is None:
        if not there:
            raise geometry.fail(_OP, f"a folder for each class in {root}", "none (labels=None?)")
        return tuple(there)
    if isinstance(chosen, str):
        raise TypeError(f"{_OP}: expected class_names as a sequence of strings, got {chosen!r}")
    names = tuple(chosen)
    missing = [name for name in names if name not in there]
    if missing or not names or len(set(names)) != len(names):
        raise geometry.fail(
            _OP, f"class_names to be different ones of {there}", missing or list(names)
        )
    return names


def _images(top: str, follow_links: bool, root: str | None = None) -> list[str]:
    """Paths of all images at any depth of a folder, sorted.

    Args:
        root: the folder that `top` is a class of, which it may not be a link to.
    """
    endings = images.extensions()
    inside = [os.path.realpath(top)]
    if root is not None:
        inside.append(os.path.realpath(root))
        if _holds(inside[0], inside[1]):
            raise geometry.fail(
                _OP, f"a class folder inside {root}", f"{top}, a link to a folder that holds it"
            )
    found = []
    # Links last and in order, so that a folder's files have the same paths on every machine.
    folders, links = [top], list[str]()
    entered = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if follow_links:
            real = os.path.realpath(folder)
            if real in entered or (folder != top and any(_holds(real, one) for one in inside)):
                continue
            entered.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _leads_to_folder(entry):
                    if not entry.is_symlink():
                        folders.append(entry.path)
                    elif follow_links:
                        links.append(entry.path)
                elif entry.name.lower().endswith(endings) and (
                    # A link to nothing is an image that cannot be read. A pipe is none at all.
                    entry.is_symlink() or entry.is_file()
                ):
                    found.append(entry.path)
        links.sort()
    return sorted(found)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _holds(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder


def _subset(
    count: int, validation_split: float | None, subset: str | None, seed: int | None
) -> np.ndarray:
    """Which files are in this part of the split, in order."""
    if validation_split is None:
        if subset is not None:
            raise geometry.fail(_OP, "validation_split where there is a subset", "None")
        return np.arange(count)
    share = geometry.number(_OP, "validation_split", validation_split, 0, 1)
    geometry.choice(_OP, "subset", subset, _SUBSETS)
    order = shuffled(count, _SPLIT_SEED if seed is None else seed)
    cut = count - int(share * count)
    chosen = order[:cut] if subset == "training" else order[cut:]
    if not len(chosen):
        raise geometry.fail(_OP, f"images for {subset}", f"none: {share} of {count}")
    return np.sort(chosen)
