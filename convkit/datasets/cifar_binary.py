"""The binary form of CIFAR: records of labels and an image, in files in a gzipped tar archive.

A record is one byte for each label, then 32 × 32 bytes of red, of green and of blue, row by row.
Nothing is unpacked to the disk: the archive is checked, then its files are read out of it.
Source: A. Krizhevsky's page on the sets, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np

from convkit.datasets import Split
from convkit.datasets.download import (
    DataFile,
    Dataset,
    open_archive,
    own_folder_of,
    read_checked,
)

MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")

_SIDE, _CHANNELS = 32, 3
_PIXELS = _CHANNELS * _SIDE * _SIDE


@dataclass(frozen=True)
class Records:
    """Where a set's records are.

    Attributes:
        source: a data set of one file, the archive.
        folder: the folder inside the archive.
        train, test: files in it, in order.
        labels: how many classes each of a record's labels has.
    """

    source: Dataset
    folder: str
    train: tuple[DataFile, ...]
    test: tuple[DataFile, ...]
    labels: tuple[int, ...]


def load(records: Records, label: int) -> tuple[Split, Split]:
    """Both parts: images (N, 32, 32, 3) and labels (N, 1), uint8.

    From `CONVKIT_DATA`, be it the archive or the files out of it, else the archive in the user's
    cache, else from the mirrors.

    Args:
        label: which of a record's labels.

    Raises:
        ValueError: a file is not the published one.
        FileNotFoundError: the archive is nowhere, and no mirror could give it.
    """
    record = len(records.labels) + _PIXELS
    splits, places = [], {}
    for files in (records.train, records.test):
        ends = np.cumsum([0, *(file.size // record for file in files)])
        images = np.empty((ends[-1], _SIDE, _SIDE, _CHANNELS), np.uint8)
        labels = np.empty((ends[-1], 1), np.uint8)
        splits.append((images, labels))
        for file, begin, end in zip(files, ends, ends[1:], strict=False):
            places[file.name] = images[begin:end], labels[begin:end]
    for name, content in _contents(records):
        rows = np.frombuffer(content, np.uint8).reshape(-1, record)
        for place, classes in enumerate(records.labels):
            if (largest := rows[:, place].max()) >= classes:
                raise ValueError(f"{name}: expected labels below {classes}, got {largest}")
        images, labels = places[name]
        labels[:, 0] = rows[:, label]
        planes = rows[:, len(records.labels) :].reshape(-1, _CHANNELS, _SIDE, _SIDE)
        images[...] = planes.transpose(0, 2, 3, 1)
    return splits[0], splits[1]


def _contents(records: Records) -> Iterator[tuple[str, bytes]]:
    """The name and content of each file, in any order."""
    files = records.train + records.test
    own_folder = own_folder_of(records.source)
    for folder in (own_folder / records.folder, own_folder) if own_folder else ():
        if all((folder / file.name).is_file() for file in files):
            for file in files:
                yield file.name, read_checked(folder / file.name, file)
            return
    with open_archive(records.source, records.source.files[0]) as stream:
        yield from _unpacked(stream, records.folder, files)


def _unpacked(
    stream: BinaryIO, folder: str, files: tuple[DataFile, ...]
) -> Iterator[tuple[str, bytes]]:
    """The name and content of each file of an archive's folder; all else is passed over."""
    wanted = {PurePosixPath(folder, file.name): file for file in files}
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                file = wanted.pop(PurePosixPath(member.name), None)
                if file is None:
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or member.size != file.size:
                    raise ValueError(
                        f"{member.name}: expected a file of {file.size} bytes in the archive, got "
                        f"{f'{member.size} bytes' if content else 'something else'}"
                    )
                yield file.name, content.read()
                if not wanted:
                    return
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{folder}: damaged archive: {error}") from error
    raise ValueError(f"{folder}: not in the archive: {', '.join(map(str, wanted))}")
