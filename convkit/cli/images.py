"""From an image file to a model's input, framed as in the data that the model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.cli.errors import CommandError

if TYPE_CHECKING:
    from convkit.cli.trained import Description

# MNIST's way: the ink fits into 20 x 20 pixels, and its centre of mass into the middle of 28 x 28.
_MNIST_SIZE, _MNIST_INK = 28, 20
# The way of the digits inside the package: ink fills 32 x 32, of which 8 x 8 blocks are counted.
_DIGITS_SIZE, _DIGITS_BLOCK = 32, 4
# Strokes thinner than this share of the ink's longer side are thickened to it. MNIST's have some
# 0.12, rarely less than 0.09; those of the digits inside the package are thicker.
_MNIST_STROKE, _DIGITS_STROKE = 0.09, 0.13
# Ink is looked at in this many pixels at most before it is scaled to the model's input.
_WORKING_SIZE = 160
# What differs from the background by less than this share of the contrast is none.
_FAINT = 0.03
_LEAST_CONTRAST = 0.04
# … or by less than so many times the median deviation along the border: 5.4 standard deviations.
_NOISE = 8


def require_pillow() -> None:
    """Loads Pillow and its readers; raises a CommandError where it is missing."""
    try:
        import PIL.Image
    except ImportError:
        raise CommandError("reading images needs Pillow: pip install 'convkit-nn[plot]'") from None
    PIL.Image.init()


def as_input(path: Path, description: Description, model: Any) -> np.ndarray:
    """The image in a file as a model takes it: (H, W, C), uint8.

    Of drawings the ink is found and framed; photographs are cut to the proportions of the model's
    input and scaled.

    Raises:
        CommandError: it is no image that can be read, or shows nothing.
    """
    height, width, channels = model.input_shape[1:]
    if description.drawings:
        ink = read(path, description.data, height)
        pixels: np.ndarray = np.rint(ink * 255).astype(np.uint8)
        return pixels
    from convkit.datasets import images

    try:
        image = images.read(path, channels)
    except images.ImageError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None
    pixels = images.fitted(image, (height, width), "bilinear", crop_to_aspect_ratio=True)
    return pixels.reshape(height, width, channels)


def read(path: Path, data: str | None, size: int) -> np.ndarray:
    """The image in a file, ready for a model.

    Args:
        path: an image file of any size and mode.
        data: the data set that the model was trained on; None: the user's own, taken like MNIST.
        size: height and width of the model's input, 28 or 32.

    Returns:
        (size, size, 1), float32, 0 (background) to 1 (ink).

    Raises:
        CommandError: it is no image that can be read, or shows nothing.
    """
    ink = find_ink(path, read_grey(path))
    if data == "digits":
        return _as_digits(ink, size)
    if data == "fashion_mnist":
        return _as_mnist(ink, size, _MNIST_SIZE, by_mass=False)
    return _as_mnist(_thicken(ink, _MNIST_STROKE), size, _MNIST_INK, by_mass=True)


def read_grey(path: Path) -> np.ndarray:
    """An image file as (H, W), float32, 0 (black) to 1 (white)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image: Any = ImageOps.exif_transpose(opened)
            if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
                values = np.asarray(image, np.float32)
                return values / np.float32(max(255.0, 65535.0 if values.max() > 255 else 255.0))
            if image.has_transparency_data:
                return _flatten(np.asarray(image.convert("RGBA"), np.float32) / 255)
            return np.asarray(image.convert("L"), np.float32) / 255
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else None
        raise CommandError(f"{path}: {reason or 'not an image that Pillow can read'}") from None


def _flatten(rgba: np.ndarray) -> np.ndarray:
    """Grey from colour with transparency, on white or black: on which the drawing stands out."""
    grey: np.ndarray = rgba[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    alpha: np.ndarray = rgba[..., 3]
    drawn = float(alpha.sum())
    background = 0.0 if drawn and float((grey * alpha).sum()) / drawn > 0.5 else 1.0
    flat: np.ndarray = grey * alpha + background * (1 - alpha)
    return flat


def find_ink(path: Path, grey: np.ndarray) -> np.ndarray:
    """The part of an image with ink, (h, w), float32: 0 (background) to 1 (full ink).

    The background is the brightness along the border; ink is what differs from it, darker or
    lighter, whichever differs more.
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    background = np.median(border)
    ink = background - grey
    if ink.max() < -ink.min():
        ink = -ink
    contrast = float(ink.max())
    if contrast < _LEAST_CONTRAST:
        raise CommandError(f"{path}: expected something drawn, got an image of one brightness")
    ink = np.clip(ink / contrast, 0, 1)
    noise = float(np.median(np.abs(border - background))) / contrast
    ink[ink < min(_FAINT + _NOISE * noise, 0.5)] = 0
    return _cropped(ink)


def _cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    part: np.ndarray = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part


def _resize(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(np.asarray(ink, np.float32))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, np.float32), 0, 1)


def _fit(ink: np.ndarray, longer: int) -> np.ndarray:
    """Scaled so that the longer side has this many pixels."""
    scale = longer / max(ink.shape)
    return _resize(ink, *(max(1, round(side * scale)) for side in ink.shape))


def _thicken(ink: np.ndarray, least: float) -> np.ndarray:
    """Strokes as thick as those that the model has learnt to read, or thicker.

    A thin line would be all but lost when its image is made small.
    """
    from PIL import Image, ImageFilter

    if max(ink.shape) > _WORKING_SIZE:
        ink = _fit(ink, _WORKING_SIZE)
        ink = ink / ink.max()
    stroke = _stroke_width(ink)
    missing = round(least * max(ink.shape) - stroke)
    if missing < 1:
        return ink
    grown = np.pad(ink, missing)
    image = Image.fromarray(np.rint(grown * 255).astype(np.uint8))
    # A filter of size 2 k + 1 adds k pixels on either side of a stroke.
    image = image.filter(ImageFilter.MaxFilter(2 * ((missing + 1) // 2) + 1))
    return _cropped(np.asarray(image, np.float32) / 255)


def _stroke_width(ink: np.ndarray) -> float:
    """Twice the area over the outline's length, which for a long line is its width."""
    solid = np.pad(ink > 0.5, 1)
    across = np.count_nonzero(solid[:, 1:] != solid[:, :-1])
    down = np.count_nonzero(solid[1:] != solid[:-1])
    # Steps along both axes measure a slanted outline as too long, by 4 / pi on average.
    outline = (across + down) * np.pi / 4
    return 2 * float(np.count_nonzero(solid)) / max(outline, 1)


def _as_mnist(ink: np.ndarray, size: int, longer: int, *, by_mass: bool) -> np.ndarray:
    """Ink of so many pixels, its centre of mass (or its middle) in the middle of the image."""
    ink = _fit(ink, longer)
    ink = ink / ink.max()
    canvas = np.zeros((size, size), np.float32)
    place = []
    for axis in (0, 1):
        length = ink.shape[axis]
        centre = length / 2
        if by_mass:
            mass = ink.sum(axis=1 - axis)
            centre = float(mass @ np.arange(length) / mass.sum())
        start = min(max(round(size / 2 - centre), 0), size - length)
        place.append(slice(start, start + length))
    canvas[tuple(place)] = ink
    return canvas[..., np.newaxis]


def _as_digits(ink: np.ndarray, size: int) -> np.ndarray:
    """As the digits inside the package were made: 8 x 8 counts of ink, then scaled up."""
    from convkit import ops

    ink = _thicken(ink, _DIGITS_STROKE)
    ink = _fit(ink, _DIGITS_SIZE)
    canvas = np.zeros((_DIGITS_SIZE, _DIGITS_SIZE), np.float32)
    top, left = ((_DIGITS_SIZE - side) // 2 for side in ink.shape)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    blocks = _DIGITS_SIZE // _DIGITS_BLOCK
    counts = canvas.reshape(blocks, _DIGITS_BLOCK, blocks, _DIGITS_BLOCK).sum(axis=(1, 3))
    counts = np.rint(counts) / np.float32(_DIGITS_BLOCK**2)
    scale = size // blocks
    border = (size - scale * blocks) // 2
    x = ops.upsample2d(counts[np.newaxis, ..., np.newaxis], scale, interpolation="bilinear")
    return np.pad(x[0], ((border, border), (border, border), (0, 0)))
