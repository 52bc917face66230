"""Segmentation from a COCO annotation file: images, and masks that name each pixel's class."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from convkit import geometry
from convkit.data import Dataset
from convkit.datasets import images, masks
from convkit.datasets.folder import skipped_errors

_OP = "coco_segmentation"
_BACKGROUND = "background"
_LARGEST_BYTE = 255
_CROWDS = ("draw", "skip")


class Region(NamedTuple):
    """What one annotation covers.

    Attributes:
        number: of the annotation, for messages.
        label: the number that its pixels get.
        polygons: (P, 2) each, x and y in pixels.
        runs: lengths in place of polygons: as a list, or compressed.
        size: [height, width] of the image that the runs are of.
    """

    number: object
    label: int
    polygons: tuple[np.ndarray, ...]
    runs: str | list[int] | None = None
    size: list[int] | None = None


class Picture(NamedTuple):
    """An image and its regions in the order in which they are drawn."""

    path: str
    width: int
    height: int
    regions: tuple[Region, ...]


class CocoSegmentation(Dataset):
    """Images and masks as a `Dataset`, made by `coco_segmentation`.

    Attributes:
        class_names: "background" and the names of the categories, in the order of their numbers.
        category_ids: the categories' own numbers in the file, from class 1 on.
        image_ids: the images' own numbers in the file, in the order of `items`.
        file_paths: the files, in the order of `items`.
    """

    _op = _OP

    def __init__(
        self,
        pictures: list[Picture],
        image_ids: list[int],
        class_names: tuple[str, ...],
        category_ids: tuple[int, ...],
        load: Any,
        **options: Any,
    ) -> None:
        self.class_names = class_names
        self.category_ids = category_ids
        self.image_ids = image_ids
        self.file_paths = [picture.path for picture in pictures]
        super().__init__(pictures, load, name=_path_of, **options)


def coco_segmentation(
    annotation_file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str],
    image_size: tuple[int, int] = (256, 256),
    categories: Sequence[str | int] | None = None,
    *,
    channels: int = 3,
    crowd: str | int = "draw",
    keep_empty: bool = True,
    corrupt: str = "raise",
    interpolation: str = "bilinear",
    crop_to_aspect_ratio: bool = False,
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int | None = None,
    drop_last: bool = False,
    threads: int | None = None,
    prefetch: int = 2,
) -> CocoSegmentation:
    """Batches of images and masks from a COCO annotation file ("instances_….json").

    A mask holds each pixel's class: 0 where there is nothing, 1 to K for the categories. The
    annotations of an image are drawn in the order of the file, later ones over earlier ones: their
    polygons (pixels whose centres are inside any of them), or their run lengths, plain or
    compressed. Masks are drawn in the image's own size, then brought to `image_size` without
    mixing classes ("nearest"). Images are read as by `image_folder`; one that fits its size in the
    file only as it is stored, not as EXIF would turn it, is left as it is stored.

    COCO's annotations are licensed CC BY 4.0 (COCO Consortium, https://cocodataset.org); the images
    have licences of their own, listed in the annotation file. Neither is part of this package.

    Args:
        annotation_file: JSON with "images", "annotations" and "categories". It is read whole.
        image_folder: where the images' `file_name`s are.
        image_size: (height, width) that images and masks are brought to.
        categories: names or numbers (`id`s) of those that become classes 1, 2, …; annotations of
            others are not drawn. None: all, by their numbers.
        channels: 1, 3 or 4, as for `image_folder`.
        crowd: annotations with `iscrowd`, which cover many things at once: "draw" them like the
            others, "skip" them, or a number that their pixels get in place of the class, such as
            255 for a loss that passes over it.
        keep_empty: keep images on which nothing is drawn.
        corrupt, interpolation, crop_to_aspect_ratio: as for `image_folder`; masks are cropped with
            their images. An image of another size than the file says is corrupt too.
        batch_size, shuffle, seed, drop_last, threads, prefetch: as for `convkit.data.Dataset`.

    Returns:
        A `Dataset` of x, (N, height, width, channels), uint8, 0 to 255, and masks (N, height,
        width), uint8, or int32 where a class is above 255; with `class_names`, `category_ids`,
        `image_ids` and `file_paths`.

    Raises:
        ImportError: Pillow is not installed.
        OSError: the annotation file cannot be read.
        ValueError: it is not as described; the message names the annotation. Run lengths are looked
            at when they are drawn: those that do not fit their image end the loop.
    """
    images.require_pillow(_OP)
    size = geometry.pair(_OP, "image_size", image_size, 1)
    if not isinstance(crowd, str):
        crowd = geometry.integer(_OP, "crowd", crowd, 0)
    elif crowd not in _CROWDS:
        raise geometry.fail(_OP, 'crowd to be "draw", "skip" or a number', repr(crowd))
    skip = skipped_errors(_OP, corrupt)
    geometry.choice(_OP, "interpolation", interpolation, images.INTERPOLATIONS)
    images.check_channels(_OP, channels)

    file = _File(annotation_file)
    labels = file.labels(categories)
    regions = file.regions({number: place for place, (number, _) in enumerate(labels, 1)}, crowd)
    pictures = file.pictures(os.fspath(image_folder), regions)
    if not keep_empty:
        pictures = {number: one for number, one in pictures.items() if one.regions}
    if not pictures:
        raise geometry.fail(_OP, f"images in {file.name}", "none")
    largest = max(len(labels), crowd if isinstance(crowd, int) else 0)
    return CocoSegmentation(
        list(pictures.values()),
        list(pictures),
        (_BACKGROUND, *(name for _, name in labels)),
        tuple(number for number, _ in labels),
        partial(
            _load,
            channels=channels,
            image_size=size,
            interpolation=interpolation,
            crop_to_aspect_ratio=bool(crop_to_aspect_ratio),
            dtype="uint8" if largest <= _LARGEST_BYTE else "int32",
        ),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        threads=threads,
        prefetch=prefetch,
        skip=skip,
    )


def _load(
    picture: Picture,
    channels: int,
    image_size: tuple[int, int],
    interpolation: str,
    crop_to_aspect_ratio: bool,
    dtype: str,
) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    image = images.read(picture.path, channels, (picture.width, picture.height))
    x = images.fitted(image, image_size, interpolation, crop_to_aspect_ratio)
    # The image comes first: now its size is known to be true, and memory for a mask is no risk.
    drawn = Image.fromarray(draw(picture, dtype))
    mask = images.fitted(drawn, image_size, "nearest", crop_to_aspect_ratio)
    return (x[..., np.newaxis] if channels == 1 else x), mask


def draw(picture: Picture, dtype: str = "uint8") -> np.ndarray:
    """The mask of an image in its own size, (height, width).

    Raises:
        ValueError: run lengths do not fit the image.
    """
    mask = np.zeros((picture.height, picture.width), dtype)
    for region in picture.regions:
        for points in region.polygons:
            masks.fill_polygon(mask, points, region.label)
        if region.runs is not None:
            runs = region.runs
            try:
                lengths = masks.run_lengths(runs) if isinstance(runs, str) else np.array(runs)
                masks.fill_runs(mask, lengths, region.label)
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{_OP}: annotation {region.number}: {error}") from error
    return mask


def _path_of(picture: Picture) -> str:
    return picture.path


class _File:
    """An annotation file, checked while it is taken apart."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        try:
            with open(path, "rb") as file:
                content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{_OP}: {self.name}: not JSON: {error}") from error
        lists = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list)
            and all(isinstance(one, dict) for one in content[key])
            for key in lists
        ):
            raise geometry.fail(
                _OP, f"lists of objects {', '.join(lists)} in {self.name}", "something else"
            )
        self._images, self._annotations, self._categories = (content[key] for key in lists)

    def _value(self, of: str, one: dict[str, Any], key: str, kind: type) -> Any:
        value = one.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            shown = json.dumps(one.get("id"))
            raise geometry.fail(
                _OP, f"{key!r} of type {kind.__name__} for {of} {shown} in {self.name}", repr(value)
            )
        return value

    def labels(self, chosen: Sequence[str | int] | None) -> list[tuple[int, str]]:
        """(id, name) of the categories that become classes 1, 2, …"""
        known = sorted(
            (self._value("category", one, "id", int), self._value("category", one, "name", str))
            for one in self._categories
        )
        names = dict(known)
        if len(names) != len(known):
            raise geometry.fail(_OP, f"each category once in {self.name}", "one of them again")
        if chosen is None:
            return known
        if isinstance(chosen, str):
            raise TypeError(f"{_OP}: expected categories as a sequence, got {chosen!r}")
        found = []
        for wanted in chosen:
            numbers = [number for number, name in known if wanted in (number, name)]
            if len(numbers) != 1:
                got = "several" if numbers else "none"
                raise geometry.fail(
                    _OP,
                    f"one category {wanted!r} in {self.name}",
                    f"{got} in {list(names.items())}",
                )
            found.append((numbers[0], names[numbers[0]]))
        if not found or len(set(found)) != len(found):
            raise geometry.fail(_OP, "categories to be different ones", list(chosen))
        return found

    def regions(self, labels: dict[int, int], crowd: str | int) -> dict[int, list[Region]]:
        """What is drawn on each image, by the image's number."""
        known = {one.get("id") for one in self._categories}
        regions: dict[int, list[Region]] = {}
        for one in self._annotations:
            category = self._value("annotation", one, "category_id", int)
            image = self._value("annotation", one, "image_id", int)
            if category not in known:
                self._refuse(one, "a category_id of the file", category)
            regions.setdefault(image, [])
            if category not in labels:
                continue
            label = labels[category]
            if one.get("iscrowd"):
                if crowd == "skip":
                    continue
                label = crowd if isinstance(crowd, int) else label
            region = self._region(one, label)
            if region.polygons or region.runs is not None:
                regions[image].append(region)
        return regions

    def _region(self, one: dict[str, Any], label: int) -> Region:
        """An annotation's polygons, or its run lengths; neither where it has a box only."""
        number, shape = one.get("id"), one.get("segmentation") or []
        if isinstance(shape, list):
            return Region(number, label, tuple(self._polygon(one, points) for points in shape))
        runs = shape.get("counts") if isinstance(shape, dict) else None
        if not isinstance(runs, (str, list)):
            self._refuse(one, "a segmentation of polygons or run lengths", repr(shape)[:80])
        return Region(number, label, (), runs, shape.get("size"))

    def _polygon(self, one: dict[str, Any], numbers: Any) -> np.ndarray:
        try:
            points = np.array(numbers, np.float32)
        except (TypeError, ValueError):
            points = np.array(np.nan)
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            self._refuse(one, "polygons as lists of x, y, x, y, …", repr(numbers)[:80])
        return points.reshape(-1, 2)

    def _refuse(self, one: dict[str, Any], expected: str, got: object) -> None:
        where = f"annotation {json.dumps(one.get('id'))} in {self.name}"
        raise geometry.fail(_OP, f"{expected} for {where}", got)

    def pictures(self, folder: str, regions: dict[int, list[Region]]) -> dict[int, Picture]:
        """The images by their numbers, in the order of the file."""
        pictures: dict[int, Picture] = {}
        for one in self._images:
            number = self._value("image", one, "id", int)
            name = self._value("image", one, "file_name", str)
            width, height = (self._value("image", one, key, int) for key in ("width", "height"))
            inner = PurePosixPath(name)
            if inner.is_absolute() or ".." in inner.parts or not inner.parts or "\0" in name:
                raise geometry.fail(_OP, f"file_name inside the folder in {self.name}", repr(name))
            if number in pictures or min(width, height) < 1:
                raise geometry.fail(
                    _OP, f"each image once, with its size, in {self.name}", f"image {number}"
                )
            drawn = tuple(regions.pop(number, ()))
            for region in drawn:
                if region.runs is not None and region.size != [height, width]:
                    self._refuse(
                        {"id": region.number}, f"a size of [{height}, {width}]", repr(region.size)
                    )
            pictures[number] = Picture(os.path.join(folder, name), width, height, drawn)
        if regions:
            raise geometry.fail(
                _OP, f"annotations of images in {self.name}", f"image_id {min(regions)}"
            )
        return pictures
