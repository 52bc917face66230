"""Regions of images as COCO writes them, polygons and run lengths, as masks.

Source of both forms: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and the
description of the format and of `maskApi` at https://cocodataset.org.
"""

from __future__ import annotations

import numpy as np

from convkit import geometry

# A number of the compressed form has 5 bits in each character, so many characters at most.
_BITS = 5
_MOST_CHARACTERS = 12
_FIRST_CHARACTER, _MORE, _SIGN = 48, 0x20, 0x10


def fill_polygon(mask: np.ndarray, points: np.ndarray, value: int) -> None:
    """Set the pixels whose centres are inside a polygon (by the even-odd rule).

    Pixel (row, column) covers the square from (column, row) to (column + 1, row + 1), as COCO has
    it. (Pillow's `ImageDraw` takes coordinates for whole pixels and draws the outline too, so that
    a square of 10 × 10 would have 11 × 11.) A centre on a left or upper edge counts as inside, on a
    right or lower one as outside; so polygons that share an edge share no pixel and leave none out.
    Parts outside the mask are cut off.

    Args:
        mask: (height, width), changed in place.
        points: (P, 2) of x and y, the last joined to the first.
        value: what is set.
    """
    height, width = mask.shape
    if len(points) < 3:
        return
    x, y = np.asarray(points, np.float64).T
    top, bottom = (int(_first_at(end, 0, height)) for end in (y.min(), y.max()))
    left, right = (int(_first_at(end, 0, width)) for end in (x.min(), x.max()))
    if top == bottom or left == right:
        return
    # Each edge from its upper to its lower end, and the rows whose centre lines it crosses.
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    down = y <= y_next
    x_upper, y_upper = np.where(down, x, x_next), np.where(down, y, y_next)
    x_lower, y_lower = np.where(down, x_next, x), np.where(down, y_next, y)
    first, last = _first_at(y_upper, top, bottom), _first_at(y_lower, top, bottom)
    rows = last - first
    edge = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    share = (row + 0.5 - y_upper[edge]) / (y_lower - y_upper)[edge]
    crossing = x_upper[edge] + share * (x_lower - x_upper)[edge]
    # From the first centre right of a crossing on, what was outside is inside, and the reverse.
    span = right - left + 1
    places = (row - top) * span + _first_at(crossing, left, right) - left
    flips = np.bincount(places, minlength=(bottom - top) * span).reshape(bottom - top, span)
    inside = (np.cumsum(flips, axis=1)[:, :-1] & 1).astype(bool)
    mask[top:bottom, left:right][inside] = value


def _first_at(place: np.ndarray, low: int, high: int) -> np.ndarray:
    """The first pixel whose centre is not before a place, between low and high."""
    return np.clip(np.ceil(place - 0.5), low, high).astype(np.int64)


def run_lengths(text: str) -> np.ndarray:
    """The lengths that a string of COCO's compressed form holds, int64.

    Each is a number of 5 bits a character, the lowest first, with a sign; from the fourth on it is
    the difference to the one two places before.

    Raises:
        ValueError: it is no such string.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    except UnicodeEncodeError:
        codes = np.array([-1])
    if not len(codes):
        return codes
    more = codes & _MORE
    ends = np.flatnonzero(more == 0)
    if codes.min() < 0 or codes.max() >= 2 * _MORE or more[-1]:
        raise ValueError("expected COCO's compressed run lengths, got another string")
    starts = np.concatenate([[0], ends[:-1] + 1])
    characters = ends - starts + 1
    if characters.max() > _MOST_CHARACTERS:
        raise ValueError("expected run lengths of less than 60 bits, got a longer one")
    place = np.arange(len(codes)) - np.repeat(starts, characters)
    numbers = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * place), starts)
    numbers -= np.where(codes[ends] & _SIGN, np.int64(1) << (_BITS * characters), 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def fill_runs(mask: np.ndarray, lengths: np.ndarray, value: int) -> None:
    """Set the pixels of every second run, counted down the columns, column after column.

    Args:
        mask: (height, width), changed in place.
        lengths: of runs of pixels that stay as they are and that are set, in turn.
        value: what is set.

    Raises:
        ValueError: a length is negative, or their sum is not the number of pixels.
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
        raise ValueError("expected run lengths as whole numbers")
    if (lengths < 0).any() or lengths.sum() != mask.size or (lengths > mask.size).any():
        raise geometry.fail(
            "run lengths", f"a sum of {mask.size}, none negative", int(lengths.sum())
        )
    height, width = mask.shape
    runs = np.repeat(np.arange(lengths.size) & 1, lengths.astype(np.int64))
    mask[runs.reshape(width, height).T.astype(bool)] = value
