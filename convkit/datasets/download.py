"""Finding a data set's files: the user's own folder, else the cache, else the public mirrors.

Every file is checked against the sha256 of its decompressed content, so it does not matter who
compressed it, or whether it is compressed at all. Archives of many files are checked as they are
served.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

_TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of data
_ROUNDS = 2  # how often each mirror is asked
_PAUSE = 1.0  # seconds between the rounds
_CHUNK = 2**16

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class DataFile:
    """A file by its name without `.gz`; its size in bytes and sha256 are of the plain content.

    Attributes:
        packed: an archive: the name is whole, and size and sha256 are of the file as it is served.
    """

    name: str
    size: int
    sha256: str
    packed: bool = False

    @property
    def served(self) -> str:
        """The name under which mirrors and the cache have it."""
        return self.name if self.packed else f"{self.name}.gz"


@dataclass(frozen=True)
class Dataset:
    """A data set's folder name, its files, and the URLs, each ending in `/`, that serve them."""

    name: str
    files: tuple[DataFile, ...]
    mirrors: tuple[str, ...]


def fetch(dataset: Dataset, file: DataFile) -> bytes:
    """Return the plain content of `file`, downloading it into the cache where need be.

    Looked up in this order: the folder `$CONVKIT_DATA/<dataset.name>`, the user's cache, the
    mirrors. Safe for several processes at once: a file appears in the cache whole or not at all.

    Raises:
        ValueError: the file in `CONVKIT_DATA` is not the one that the data set consists of.
        FileNotFoundError: it is nowhere on this machine, and no mirror could give it.
    """
    return _obtain(dataset, file, lambda path: read_checked(path, file))


def open_archive(dataset: Dataset, file: DataFile) -> BinaryIO:
    """Like `fetch`, for a file that is `packed`: open at its beginning, once it was checked."""
    return _obtain(dataset, file, lambda path: _open_checked(path, file))


def _obtain(dataset: Dataset, file: DataFile, check: Callable[[Path], _Content]) -> _Content:
    """What `check` makes of the file's path, wherever the file is found, or once it is there."""
    own_folder = own_folder_of(dataset)
    path = _find(own_folder, file) if own_folder else None
    if path:
        return check(path)

    cache_folder = _cache_folder(dataset)
    path = _find(cache_folder, file)
    if path:
        try:
            return check(path)
        except (ValueError, FileNotFoundError):
            # Damaged, or another process has just found it so and removed it.
            path.unlink(missing_ok=True)

    failures = []
    for round_number in range(_ROUNDS):
        if round_number:
            time.sleep(_PAUSE)
        for mirror in dataset.mirrors:
            url = f"{mirror}{file.served}"
            try:
                return _download(url, cache_folder / file.served, file, check)
            except _download_errors() as error:
                failures.append(f"{url}: {_reason(error)}")
    # The second round's reasons say what the first's did, or better.
    failures = failures[-len(dataset.mirrors) :]
    raise FileNotFoundError(_help(dataset, file, own_folder, cache_folder, failures))


def own_folder_of(dataset: Dataset) -> Path | None:
    """The data set's folder in `CONVKIT_DATA`, which need not exist; None where that is not set."""
    root = os.environ.get("CONVKIT_DATA")
    return Path(root).expanduser() / dataset.name if root else None


def _cache_folder(dataset: Dataset) -> Path:
    import pooch

    return Path(pooch.os_cache("convkit")) / dataset.name


def _find(folder: Path, file: DataFile) -> Path | None:
    candidates = (folder / file.name, folder / file.served)
    return next((path for path in candidates if path.is_file()), None)


def read_checked(path: Path, file: DataFile) -> bytes:
    """Read a plain or gzipped file, never more than its known size, and check its sha256.

    Raises:
        ValueError: its content is not the published one.
    """
    with open(path, "rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            content = stream.read(file.size + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from error
    if len(content) > file.size:
        raise ValueError(f"{path}: expected {file.size} bytes of content, got more")
    actual = hashlib.sha256(content).hexdigest()
    if actual != file.sha256:
        raise ValueError(
            f"{path}: not the published {file.name}: expected content of {file.size} bytes with "
            f"sha256 {file.sha256}, got {len(content)} bytes with sha256 {actual}"
        )
    return content


def _open_checked(path: Path, file: DataFile) -> BinaryIO:
    """Open a file after its size and sha256 have been found right."""
    stream = open(path, "rb")  # noqa: SIM115 - it is returned
    try:
        digest, size = hashlib.sha256(), os.fstat(stream.fileno()).st_size
        while size == file.size and (piece := stream.read(_CHUNK)):
            digest.update(piece)
        if size != file.size or digest.hexdigest() != file.sha256:
            actual = f" with sha256 {digest.hexdigest()}" if size == file.size else ""
            raise ValueError(
                f"{path}: not the published {file.name}: expected {file.size} bytes with sha256 "
                f"{file.sha256}, got {size} bytes{actual}"
            )
        stream.seek(0)
        return stream
    except BaseException:
        stream.close()
        raise


def _download_errors() -> tuple[type[Exception], ...]:
    """What a mirror's failure looks like; errors of the local disk are not among them."""
    import requests

    return (requests.RequestException, _WrongDownload)


def _reason(error: Exception) -> object:
    """What went wrong in few words: requests wraps urllib3's reason in two longer errors."""
    return getattr(error.args[0], "reason", error) if error.args else error


class _WrongDownload(Exception):
    """A mirror answered, but not with the file."""


def _download(
    url: str, target: Path, file: DataFile, check: Callable[[Path], _Content]
) -> _Content:
    """Download to a temporary file beside `target`, check it, and move it into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{file.name}-")
    try:
        with open(handle, "wb") as output:
            _transfer(url, output, file)
            output.flush()
            os.fsync(output.fileno())
        try:
            content = check(Path(temporary))
        except ValueError as error:
            # The temporary file's name would say nothing to the reader; the URL goes before this.
            raise _WrongDownload(str(error).removeprefix(f"{temporary}: ")) from error
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return content


def _transfer(url: str, output: BinaryIO, file: DataFile) -> None:
    """Copy `url` to `output`, with a progress bar where standard error is a terminal."""
    import pooch
    from tqdm import tqdm

    with tqdm(total=file.size, desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
        downloader = pooch.HTTPDownloader(_Length(bar), chunk_size=_CHUNK, timeout=_TIMEOUT)
        try:
            # Gzip adds a few bytes where it cannot compress.
            downloader(url, _Bounded(output, file.size + _CHUNK, bar), None)
        except BaseException:
            bar.leave = False  # a mirror that failed leaves no line behind
            raise


class _Length:
    """A progress bar for pooch that only passes on how long the answer will be.

    Pooch counts whole chunks, and at the end starts anew and counts everything at once, so its
    sizes and speeds are off; `_Bounded` counts the bytes instead.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    @property
    def total(self) -> int | None:
        return self._bar.total  # type: ignore[no-any-return]

    @total.setter
    def total(self, count: int) -> None:
        self._bar.total = count or None  # 0: the server did not say

    def update(self, count: int) -> None:
        pass

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Bounded:
    """A file to write to that refuses more than `limit` bytes, so no mirror can fill the disk."""

    def __init__(self, file: BinaryIO, limit: int, bar: Any) -> None:
        self._file = file
        self._left = limit
        self._bar = bar

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise _WrongDownload("the answer is longer than the file")
        self._bar.update(len(data))
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _help(
    dataset: Dataset, file: DataFile, own_folder: Path | None, cache: Path, failures: list[str]
) -> str:
    names = "".join(f"\n  {each.served}" for each in dataset.files)
    either = "" if all(each.packed for each in dataset.files) else " (with or without .gz)"
    tried = "".join(f"\n  {failure}" for failure in failures)
    return (
        f"{dataset.name}: {file.name} is not on this machine and could not be downloaded.\n"
        f"Looked in:\n"
        f"  {own_folder or 'the folder that CONVKIT_DATA names (it is not set)'}\n"
        f"  {cache}\n"
        f"Tried to download:{tried}\n"
        f"To put the data set there by hand, get these files{either}:{names}\n"
        f"and place them in {cache}\n"
        f"or in a folder {dataset.name}/ inside any folder that CONVKIT_DATA is then set to."
    )
