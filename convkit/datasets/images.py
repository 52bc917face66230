"""Image files of any kind as bytes of one size, for `image_folder` and `coco_segmentation`."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from convkit import geometry

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
# Formats that Pillow knows by their first bytes only, or hands to another program to run.
_NOT_READ = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
# Reasons for which one file cannot be opened; others are of the machine, and no file's fault.
_OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENOTDIR)
# EXIF's orientations 2 to 8, as names of Pillow's Transpose.
_UPRIGHT = (
    "FLIP_LEFT_RIGHT",
    "ROTATE_180",
    "FLIP_TOP_BOTTOM",
    "TRANSPOSE",
    "ROTATE_270",
    "TRANSVERSE",
    "ROTATE_90",
)
_ORIENTATION = 0x0112


class ImageError(ValueError):
    """A file that is no whole image that can be read; the message names it and says why."""


def require_pillow(op: str) -> None:
    """Load Pillow and its readers now, in the caller's thread.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(f"{op}: needs Pillow: pip install 'convkit-nn[data]'") from None
    Image.init()


def extensions() -> tuple[str, ...]:
    """The endings of the names of files that can be read, in lower case: ".png", …"""
    from PIL import Image

    Image.init()
    formats = _formats()
    return tuple(end for end, kind in Image.registered_extensions().items() if kind in formats)


def check_channels(op: str, channels: object) -> int:
    """1, 3 or 4."""
    number = geometry.integer(op, "channels", channels, 1)
    if number not in _MODES:
        raise geometry.fail(op, "channels to be 1 (grey), 3 (RGB) or 4 (RGBA)", number)
    return number


def read(path: str | os.PathLike[str], channels: int, size: tuple[int, int] | None = None) -> Image:
    """An image file as 8 bits a channel, upright.

    The first frame of several. Colour becomes grey and grey becomes colour as Pillow does it;
    16-bit grey is scaled to 8 bits; palettes are looked up. Parts that are transparent are laid on
    white, or keep their alpha where there are 4 channels. EXIF's orientation is applied.

    Args:
        path: the file, of any format that Pillow decodes by itself (so not EPS).
        channels: 1, 3 or 4.
        size: (width, height) that the image must have. One that has it as it is stored, but not
            upright, is left as it is stored.

    Raises:
        ImageError: it cannot be opened, is no image, is damaged or cut short, has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, has floating-point pixels, or another size.
    """
    name = os.fspath(path)
    try:
        file = open(path, "rb")  # noqa: SIM115 - its own errors are told apart from the decoder's
    except OSError as error:
        if error.errno in _OF_THE_FILE:
            raise ImageError(f"{name}: {error.strerror}") from error
        raise
    with file:
        try:
            return _decoded(file, channels, size)
        except (MemoryError, RecursionError):
            raise
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
        except OSError as error:
            if error.errno is not None:  # the disk's, not the decoder's
                raise
            raise ImageError(f"{name}: {_reason(error)}") from error
        except Exception as error:
            # Readers meet damage in many ways: SyntaxError, struct.error, IndexError, …
            raise ImageError(f"{name}: {_reason(error)}") from error


def fitted(
    image: Image, image_size: tuple[int, int], interpolation: str, crop_to_aspect_ratio: bool
) -> np.ndarray:
    """An image in another size, (height, width) or (height, width, channels).

    Smaller sizes are averages over all pixels that fall together, but with "nearest".

    Args:
        image_size: (height, width).
        interpolation: one of `INTERPOLATIONS`, as in `PIL.Image.Resampling`.
        crop_to_aspect_ratio: take the largest part in the middle that has the new proportions, so
            that nothing is stretched.
    """
    from PIL import Image as pillow

    height, width = image_size
    box = (0, 0, image.width, image.height)
    if crop_to_aspect_ratio:
        inner_width = max(1, min(image.width, image.height * width // height))
        inner_height = max(1, min(image.height, image.width * height // width))
        left, top = (image.width - inner_width) // 2, (image.height - inner_height) // 2
        box = (left, top, left + inner_width, top + inner_height)
    if box != (0, 0, width, height) or image.size != (width, height):
        image = image.resize((width, height), pillow.Resampling[interpolation.upper()], box)
    return np.asarray(image)


def _formats() -> list[str]:
    from PIL import Image

    return [name for name in Image.OPEN if name not in _NOT_READ]


def _decoded(file: BinaryIO, channels: int, size: tuple[int, int] | None) -> Image:
    from PIL import Image as pillow

    with pillow.open(file, formats=_formats()) as image:
        # Pillow itself only warns up to twice its limit.
        limit = pillow.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ImageError(
                f"{image.width} × {image.height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS"
                f" ({limit})"
            )
        image.load()
        upright = _upright(image)
        if size is not None and upright.size != size:
            if image.size != size:
                raise ImageError(
                    f"expected {size[0]} × {size[1]} pixels, got {upright.width} × {upright.height}"
                )
            upright = image
        return _in_channels(upright, channels)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    return str(error) or type(error).__name__


def _upright(image: Image) -> Image:
    """As it is meant to be seen; the original where EXIF says nothing that can be understood."""
    from PIL import Image as pillow

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels are whole, whatever is wrong in what was written about them
        return image
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:
        return image
    return image.transpose(pillow.Transpose[_UPRIGHT[orientation - 2]])


def _in_channels(image: Image, channels: int) -> Image:
    from PIL import Image as pillow

    if image.mode == "F":
        raise ImageError("expected pixels of whole numbers, got floating-point ones")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = pillow.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if channels != 4:
            white = pillow.new("RGBA", image.size, "white")
            image = pillow.alpha_composite(white, image)
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])
