"""A strict reader of IDX files, the format of MNIST (plain or gzipped).

An IDX file is, all numbers big-endian: two zero bytes, one byte for the type of the values, one for
the number of dimensions, each dimension as four bytes, then the values and nothing else.
Source: the format's description on the MNIST page of Y. LeCun, C. Cortes and C. J. C. Burges.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from typing import Any

import numpy as np

_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot do better than 1032 : 1, so a small file cannot honestly hold more than this.
_GZIP_LARGEST_RATIO = 1032
# What every NumPy can hold; the format's own limit is 255.
_MAX_RANK = 32
_DEFAULT_MAX_BYTES = 2**31
_CHUNK = 2**20


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = _DEFAULT_MAX_BYTES) -> np.ndarray:
    """Read an IDX file, gzipped or plain (told apart by content, not by name).

    Args:
        path: the file.
        max_bytes: refuse files with more bytes of values than this, once decompressed.

    Returns:
        A new array in the machine's byte order: uint8, int8, int16, int32, float32 or float64, of
        the shape that the header gives.

    Raises:
        ValueError: the file is not IDX, is damaged, is shorter or longer than its header says, or
            holds more than `max_bytes`. Memory is only allocated for a size that the file's own
            length makes possible.
    """
    name = os.fspath(path)
    file_size = os.path.getsize(path)
    with open(path, "rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not compressed:
            return _parse(file, name, file_size, max_bytes)
        with gzip.GzipFile(fileobj=file) as unpacked:
            try:
                return _parse(unpacked, name, file_size * _GZIP_LARGEST_RATIO, max_bytes)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{name}: damaged gzip file: {error}") from error


def parse_idx(content: bytes, name: str = "IDX data") -> np.ndarray:
    """Like `read_idx`, from the bytes of a plain file; `name` opens the error messages."""
    return _parse(io.BytesIO(content), name, len(content), _DEFAULT_MAX_BYTES)


def _parse(stream: io.BufferedIOBase, name: str, possible_bytes: int, max_bytes: int) -> np.ndarray:
    """Read the header and values of `stream`, which cannot hold more than `possible_bytes`."""
    magic = _read_header(stream, name, 4)
    if magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ValueError(f"{name}: not an IDX file: it starts with the bytes {magic.hex(' ')}")
    dtype, rank = _TYPES[magic[2]], magic[3]
    if not 1 <= rank <= _MAX_RANK:
        raise ValueError(f"{name}: expected an IDX file of 1 to {_MAX_RANK} dimensions, got {rank}")
    shape = struct.unpack(f">{rank}I", _read_header(stream, name, 4 * rank))

    expected = math.prod(shape) * dtype.itemsize
    if expected > possible_bytes:
        raise ValueError(
            f"{name}: truncated, or a false header: shape {shape} takes {expected} bytes of "
            f"values, and a file of this size holds at most {possible_bytes}"
        )
    # An empty array's other dimensions count too: NumPy refuses those whose product overflows.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > max_bytes:
        raise ValueError(f"{name}: shape {shape} exceeds the limit of {max_bytes} bytes")
    values = np.empty(shape, dtype)
    got = _fill(stream, values)
    if got < expected:
        raise ValueError(
            f"{name}: truncated: expected {expected} bytes of values for shape {shape}, got {got}"
        )
    if stream.read(1):
        raise ValueError(
            f"{name}: too long: bytes follow the {expected} bytes of values for shape {shape}"
        )
    return values.astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream: io.BufferedIOBase, name: str, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise ValueError(f"{name}: truncated in the IDX header: it ends at byte {stream.tell()}")
    return data


def _fill(stream: io.BufferedIOBase, values: np.ndarray) -> int:
    """Read into `values` until it is full or the stream ends; return the number of bytes read."""
    target = values.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < len(target):
        count = stream.readinto(target[filled : filled + _CHUNK])
        if not count:
            break
        filled += count
    return filled
