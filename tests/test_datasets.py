"""convkit.datasets: the IDX reader, the lookup and download of files, and the data sets."""

import dataclasses
import gzip
import hashlib
import http.server
import os
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from mirrors import Mirror

from convkit.datasets import digits, download, fashion_mnist, idx, mnist

IDX_TYPES = {
    0x08: np.uint8,
    0x09: np.int8,
    0x0B: np.int16,
    0x0C: np.int32,
    0x0D: np.float32,
    0x0E: np.float64,
}


def idx_bytes(array: np.ndarray) -> bytes:
    """An array as the content of an IDX file."""
    code = next(code for code, dtype in IDX_TYPES.items() if dtype == array.dtype)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx_header(code: int, *shape: int) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


@pytest.fixture
def write(tmp_path):
    """Write bytes to a file and return its path."""

    def write_file(content: bytes, name: str = "data-ubyte") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


# --- IDX ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (1, 2, 1, 3, 2), (0,), (4, 0, 2)])
@pytest.mark.parametrize("dtype", IDX_TYPES.values())
def test_idx_types_and_ranks(write, pack, shape, dtype):
    values = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    array = idx.read_idx(write(pack(idx_bytes(values))))
    np.testing.assert_array_equal(array, values, strict=True)
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.flags.c_contiguous


def test_idx_highest_rank(write):
    values = np.arange(2, dtype=np.uint8).reshape((1,) * 31 + (2,))
    np.testing.assert_array_equal(idx.read_idx(write(idx_bytes(values))), values, strict=True)
    with pytest.raises(ValueError, match="expected an IDX file of 1 to 32 dimensions, got 33"):
        idx.read_idx(write(idx_header(0x08, *(1,) * 33) + b"\0"))
    with pytest.raises(ValueError, match="of 1 to 32 dimensions, got 0"):
        idx.read_idx(write(idx_header(0x08) + b"\0"))


def test_idx_parse_of_bytes():
    values = np.arange(6, dtype=np.int16).reshape(2, 3)
    np.testing.assert_array_equal(idx.parse_idx(idx_bytes(values)), values, strict=True)
    with pytest.raises(ValueError, match="some name: truncated"):
        idx.parse_idx(idx_bytes(values)[:-1], "some name")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_truncated_at_every_byte(write, pack):
    content = idx_bytes(np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    for length in range(len(content)):
        with pytest.raises(ValueError, match="data-ubyte: truncated"):
            idx.read_idx(write(pack(content[:length])))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("extra", [1, 1000])
def test_idx_too_long(write, pack, extra):
    content = idx_bytes(np.zeros((2, 3), np.int32))
    with pytest.raises(ValueError, match="data-ubyte: too long: bytes follow the 24 bytes"):
        idx.read_idx(write(pack(content + bytes(extra))))


@pytest.mark.parametrize(
    "start", [b"\x89PNG", b"\1\0\x08\1", b"\0\1\x08\1", b"\0\0\x07\1", b"\0\0\x0a\1", b"\0\0\x0f\1"]
)
def test_idx_wrong_magic(write, start):
    with pytest.raises(ValueError, match=f"not an IDX file: it starts with .* {start.hex(' ')}"):
        idx.read_idx(write(start + bytes(20)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "shape",
    [
        (1_000_000, 1_000_000),
        (0x7FFFFFFF,),
        (0x80000000,),  # would be negative if read as signed
        (0xFFFFFFFF, 28, 28),
        (0xFFFFFFFF,) * 4,  # overflows 64 bits
        (200_000,),  # more than deflate could hide in the gzipped file
    ],
)
def test_idx_false_header_allocates_nothing(write, pack, shape):
    path = write(pack(idx_header(0x08, *shape) + bytes(64)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="truncated, or a false header"):
            idx.read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_idx_empty_array_of_impossible_shape(write):
    with pytest.raises(ValueError, match="exceeds the limit"):
        idx.read_idx(write(idx_header(0x08, 0, 0xFFFFFFFF, 0xFFFFFFFF)))


def test_idx_gzip_bomb_is_bounded(write):
    size = 50_000_000
    # An honest header that asks for more than the caller allows, and a small one before a bomb.
    honest = write(gzip.compress(idx_header(0x08, size) + bytes(size)), "honest.gz")
    hidden = write(gzip.compress(idx_header(0x08, 10) + bytes(size)), "hidden.gz")
    assert honest.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="exceeds the limit of 1000000 bytes"):
            idx.read_idx(honest, max_bytes=1_000_000)
        with pytest.raises(ValueError, match="too long"):
            idx.read_idx(hidden)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert idx.read_idx(honest, max_bytes=size).shape == (size,)


def test_idx_gzip_truncated_at_every_byte(write):
    packed = gzip.compress(idx_bytes(np.arange(50, dtype=np.int32)))
    for length in range(2, len(packed)):
        with pytest.raises(ValueError, match=r"data-ubyte: (damaged gzip file|truncated)"):
            idx.read_idx(write(packed[:length]))


def test_idx_gzip_with_any_byte_changed(write):
    values = np.arange(50, dtype=np.int32)
    packed = bytearray(gzip.compress(idx_bytes(values)))
    harmless = set(range(4, 10))  # time, flags and system of the gzip header
    for position in set(range(2, len(packed))) - harmless:
        changed = bytearray(packed)
        changed[position] ^= 0xFF
        with pytest.raises(ValueError, match="data-ubyte"):
            idx.read_idx(write(changed))


def test_idx_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        idx.read_idx(tmp_path / "nothing")


# --- Lookup and download -----------------------------------------------------------------------

CONTENT = idx_bytes(np.arange(240, dtype=np.uint8).reshape(4, 60))
FILE = download.DataFile("some-images", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
SECOND = download.DataFile("some-labels", 5, hashlib.sha256(b"label").hexdigest())


@pytest.fixture
def mirror():
    mirror = Mirror()
    yield mirror
    mirror.close()


@pytest.fixture
def dataset(mirror):
    """A data set of two files, served by the mirror under /one/ and, as a second choice, /two/."""
    return download.Dataset("some_set", (FILE, SECOND), (mirror.url + "one/", mirror.url + "two/"))


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """No data folder, an empty cache, no proxies and no waiting; returns the cache's folder."""
    monkeypatch.delenv("CONVKIT_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0)
    cache = tmp_path / "cache"
    monkeypatch.setattr("pooch.os_cache", lambda project: cache / project)
    return cache / "convkit" / "some_set"


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """The data set's folder in CONVKIT_DATA."""
    monkeypatch.setenv("CONVKIT_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "some_set"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_own_folder_comes_first(dataset, mirror, places, own_folder, pack, suffix):
    (own_folder / f"some-images{suffix}").write_bytes(pack(CONTENT))
    places.mkdir(parents=True)
    (places / "some-images").write_bytes(b"never looked at")
    assert download.fetch(dataset, FILE) == CONTENT
    assert mirror.asked == []
    assert (places / "some-images").exists()


def test_own_folder_of_the_home(dataset, own_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(own_folder.parent.parent))
    monkeypatch.setenv("CONVKIT_DATA", "~/data")
    (own_folder / "some-images").write_bytes(CONTENT)
    assert download.fetch(dataset, FILE) == CONTENT


def test_wrong_file_in_own_folder_is_an_error(dataset, mirror, own_folder):
    path = own_folder / "some-images.gz"
    wrong = bytes(len(CONTENT))
    path.write_bytes(gzip.compress(wrong))
    with pytest.raises(ValueError, match="not the published some-images") as caught:
        download.fetch(dataset, FILE)
    for part in (str(path), FILE.sha256, hashlib.sha256(wrong).hexdigest()):
        assert part in str(caught.value)
    assert mirror.asked == []
    assert path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(CONTENT)[:-5], "damaged gzip file"),
        (gzip.compress(CONTENT)[:60] + b"x" + gzip.compress(CONTENT)[61:], "some-images"),
        (gzip.compress(bytes(30_000_000)), f"expected {FILE.size} bytes of content, got more"),
        (CONTENT + b"\0", f"expected {FILE.size} bytes of content, got more"),
        (CONTENT[:-1], f"got {FILE.size - 1} bytes with sha256"),
        (b"", "got 0 bytes with sha256"),
    ],
    ids=["truncated gzip", "changed gzip", "bomb", "too long", "too short", "empty"],
)
def test_damaged_file_in_own_folder(dataset, own_folder, content, message):
    path = own_folder / "some-images.gz"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            download.fetch(dataset, FILE)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)


def test_download_once_then_from_the_cache(dataset, mirror, places):
    mirror.answers["/one/some-images.gz"] = [(200, gzip.compress(CONTENT))]
    assert download.fetch(dataset, FILE) == CONTENT
    assert download.fetch(dataset, FILE) == CONTENT
    assert mirror.asked == ["/one/some-images.gz"]
    assert [path.name for path in places.iterdir()] == ["some-images.gz"]
    assert stat.S_ISREG((places / "some-images.gz").stat().st_mode)


def test_own_folder_without_the_file_falls_through(dataset, mirror, own_folder):
    mirror.answers["/one/some-images.gz"] = [(200, gzip.compress(CONTENT))]
    assert download.fetch(dataset, FILE) == CONTENT
    assert list(own_folder.iterdir()) == []


def test_file_put_into_the_cache_by_hand(dataset, mirror, places):
    places.mkdir(parents=True)
    (places / "some-images").write_bytes(CONTENT)
    assert download.fetch(dataset, FILE) == CONTENT
    assert mirror.asked == []


@pytest.mark.parametrize("name", ["some-images", "some-images.gz"])
@pytest.mark.parametrize("damage", [b"", b"\x1f\x8bno", CONTENT[:-1], CONTENT + b"\0"])
def test_damaged_cache_is_fetched_again(dataset, mirror, places, name, damage):
    places.mkdir(parents=True)
    (places / name).write_bytes(damage)
    mirror.answers["/one/some-images.gz"] = [(200, gzip.compress(CONTENT))]
    assert download.fetch(dataset, FILE) == CONTENT
    assert [path.name for path in places.iterdir()] == ["some-images.gz"]
    assert download.fetch(dataset, FILE) == CONTENT
    assert len(mirror.asked) == 1


def test_mirror_that_sends_the_plain_file(dataset, mirror):
    # Some servers undo the compression themselves.
    mirror.answers["/one/some-images.gz"] = [(200, CONTENT)]
    assert download.fetch(dataset, FILE) == CONTENT


# What a mirror may answer, and what is then said of it.
BAD_ANSWERS = {
    "not found": (404, b"no such file", "404 Client Error"),
    "server error": (503, b"busy", "503 Server Error"),
    "wrong content": (200, gzip.compress(bytes(len(CONTENT))), "not the published some-images"),
    "a page": (200, b"<html>please log in</html>", "not the published some-images"),
    "nothing": (200, b"", "not the published some-images"),
    "damaged gzip": (200, gzip.compress(CONTENT)[:-3], "damaged gzip file"),
    "dropped": (200, gzip.compress(CONTENT) + b"DROP", "bytes read, 7 more expected"),
    "endless": (200, bytes(len(CONTENT) + 3 * 2**16), "the answer is longer than the file"),
    "bomb": (200, gzip.compress(bytes(30_000_000)), "bytes of content, got more"),
}


@pytest.mark.parametrize(
    "answer", [answer[:2] for answer in BAD_ANSWERS.values()], ids=BAD_ANSWERS.keys()
)
def test_second_mirror(dataset, mirror, places, answer):
    mirror.answers["/one/some-images.gz"] = [answer]
    mirror.answers["/two/some-images.gz"] = [(200, gzip.compress(CONTENT))]
    assert download.fetch(dataset, FILE) == CONTENT
    assert mirror.asked == ["/one/some-images.gz", "/two/some-images.gz"]
    assert [path.name for path in places.iterdir()] == ["some-images.gz"]


@pytest.mark.parametrize(
    "answer", [answer[:2] for answer in BAD_ANSWERS.values()], ids=BAD_ANSWERS.keys()
)
def test_second_round(dataset, mirror, places, answer):
    mirror.answers["/one/some-images.gz"] = [answer, (200, gzip.compress(CONTENT))]
    mirror.answers["/two/some-images.gz"] = [answer]
    assert download.fetch(dataset, FILE) == CONTENT
    assert mirror.asked == [f"/{place}/some-images.gz" for place in ("one", "two", "one")]
    assert [path.name for path in places.iterdir()] == ["some-images.gz"]


@pytest.mark.parametrize(("code", "body", "reason"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_no_mirror_has_it(dataset, mirror, places, code, body, reason):
    for place in ("one", "two"):
        mirror.answers[f"/{place}/some-images.gz"] = [(code, body)]
    with pytest.raises(FileNotFoundError) as caught:
        download.fetch(dataset, FILE)
    assert str(caught.value).count(reason) >= 2
    assert len(mirror.asked) == 4
    assert list(places.iterdir()) == []


def test_offline_error_says_what_to_do(dataset, places, monkeypatch, tmp_path):
    # Nothing listens on port 9 of this machine.
    dataset = dataclasses.replace(
        dataset, mirrors=("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/")
    )
    with pytest.raises(FileNotFoundError) as caught:
        download.fetch(dataset, FILE)
    text = str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert text.startswith("some_set: some-images is not on this machine and could not be")
    assert "CONVKIT_DATA names (it is not set)" in text
    assert str(places) in text
    assert text.count("http://127.0.0.1:9/a/some-images.gz: ") == 1
    assert text.count("http://127.0.0.1:9/b/some-images.gz: ") == 1
    for file in dataset.files:
        assert f"\n  {file.name}.gz\n" in text

    monkeypatch.setenv("CONVKIT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as caught:
        download.fetch(dataset, FILE)
    assert str(tmp_path / "nowhere" / "some_set") in str(caught.value)


def test_a_mirror_that_does_not_answer_times_out(dataset, mirror, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", (0.2, 0.2))
    silent = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    mirror.answers["/two/some-images.gz"] = [(200, gzip.compress(CONTENT))]
    mirrors = (f"http://127.0.0.1:{silent.server_port}/", dataset.mirrors[1])
    start = time.monotonic()
    try:
        content = download.fetch(dataclasses.replace(dataset, mirrors=mirrors), FILE)
    finally:
        silent.server_close()
    assert content == CONTENT
    assert 0.2 <= time.monotonic() - start < 10


def test_stopped_download_leaves_nothing_behind(dataset, mirror, places, monkeypatch):
    mirror.answers["/one/some-images.gz"] = [(200, gzip.compress(CONTENT))]

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            download.fetch(dataset, FILE)
    assert list(places.iterdir()) == []
    assert download.fetch(dataset, FILE) == CONTENT


def test_file_appears_in_the_cache_only_when_it_is_whole(dataset, mirror, places, monkeypatch):
    mirror.answers["/one/some-images.gz"] = [(200, gzip.compress(CONTENT))]
    steps = []

    def sync(handle):
        steps.append(("fsync", (places / "some-images.gz").exists()))

    def replace(source, target):
        assert Path(source).parent == places
        assert gzip.decompress(Path(source).read_bytes()) == CONTENT
        steps.append(("replace", Path(target).exists()))
        Path(source).rename(target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    download.fetch(dataset, FILE)
    assert steps == [("fsync", False), ("replace", False)]


def test_errors_of_the_disk_are_not_blamed_on_the_mirrors(dataset, mirror, monkeypatch):
    mirror.answers["/one/some-images.gz"] = [(200, gzip.compress(CONTENT))]

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        download.fetch(dataset, FILE)
    assert len(mirror.asked) == 1


def test_several_processes_at_once(dataset, mirror, tmp_path):
    # Large enough that the downloads overlap.
    content = np.random.default_rng(0).bytes(3_000_000)
    mirror.answers["/one/large.gz"] = [(200, gzip.compress(content, 1))]
    digest = hashlib.sha256(content).hexdigest()
    program = (
        "import hashlib, pathlib, pooch\n"
        "from convkit.datasets import download\n"
        f"pooch.os_cache = lambda project: pathlib.Path({str(tmp_path / 'shared')!r})\n"
        f"file = download.DataFile('large', {len(content)}, {digest!r})\n"
        f"data = download.fetch(download.Dataset('s', (file,), ({dataset.mirrors[0]!r},)), file)\n"
        f"assert hashlib.sha256(data).hexdigest() == {digest!r}\n"
    )
    command = [sys.executable, "-W", "error", "-P", "-c", program]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    (path,) = (tmp_path / "shared" / "s").iterdir()
    assert gzip.decompress(path.read_bytes()) == content


def test_progress_bar_without_a_length(dataset, mirror, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    mirror.tells_length = False
    packed = gzip.compress(CONTENT)
    mirror.answers["/one/some-images.gz"] = [(200, packed)]
    assert download.fetch(dataset, FILE) == CONTENT
    assert f"some-images: {len(packed)}B" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bar_on_a_terminal_only(dataset, mirror, monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    mirror.answers["/one/some-images.gz"] = [(404, b"")]
    mirror.answers["/two/some-images.gz"] = [(200, gzip.compress(CONTENT))]
    download.fetch(dataset, FILE)
    shown = capsys.readouterr().err
    assert ("some-images: 100%" in shown) == terminal
    assert shown.count("\n") == terminal  # nothing stays of the mirror that failed


# --- The data sets -----------------------------------------------------------------------------


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_registry(module):
    dataset = module._DATASET
    assert len(dataset.mirrors) == len(set(dataset.mirrors)) >= 2
    assert all(url.startswith("https://") and url.endswith("/") for url in dataset.mirrors)
    assert [file.size for file in dataset.files] == [47_040_016, 60_008, 7_840_016, 10_008]
    assert len({file.sha256 for file in dataset.files}) == 4
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in dataset.files)
    assert dataset.name == module.__name__.rpartition(".")[2]


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_load_data_from_files(module, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in [(6, 28, 28), 6, (2, 28, 28), 2]]
    folder = tmp_path / module._DATASET.name
    folder.mkdir()
    files = []
    for file, array in zip(module._DATASET.files, arrays, strict=True):
        content = idx_bytes(array)
        files.append(
            download.DataFile(file.name, len(content), hashlib.sha256(content).hexdigest())
        )
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(
        module, "_DATASET", dataclasses.replace(module._DATASET, files=tuple(files))
    )
    monkeypatch.setenv("CONVKIT_DATA", str(tmp_path))
    (x_train, y_train), (x_test, y_test) = module.load_data()
    for got, array in zip((x_train, y_train, x_test, y_test), arrays, strict=True):
        np.testing.assert_array_equal(got, array, strict=True)


def test_fashion_class_names():
    assert len(fashion_mnist.CLASS_NAMES) == 10


OWN_DATA = os.environ.get("CONVKIT_DATA", "")


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_the_published_files(module, monkeypatch):
    if not OWN_DATA or not (Path(OWN_DATA) / module._DATASET.name).is_dir():
        pytest.skip(f"CONVKIT_DATA has no folder {module._DATASET.name}")
    monkeypatch.setenv("CONVKIT_DATA", OWN_DATA)
    (x_train, y_train), (x_test, y_test) = module.load_data()
    assert x_train.shape == (60_000, 28, 28)
    assert x_test.shape == (10_000, 28, 28)
    assert x_train.dtype == y_train.dtype == x_test.dtype == y_test.dtype == np.uint8
    assert x_train.max() == x_test.max() == 255
    assert len(y_train) == 60_000
    assert len(y_test) == 10_000
    assert set(y_train) == set(y_test) == set(range(10))
    if module is mnist:
        assert y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_digits_files_are_the_published_ones():
    expected = {
        "images-idx3-ubyte.gz": "359cd13f0f514122884198b78a131df597421cbf5e93a76678fa96fc548f0d96",
        "labels-idx1-ubyte.gz": "ce71631c1f31ce56fa54f31d1d498fafacff59b001e6c30c4a5e29508aa277ad",
    }
    for name, digest in expected.items():
        content = gzip.decompress((digits._FOLDER / name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == digest


def test_digits_split():
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert x_train.shape == (1442, 8, 8)
    assert x_test.shape == (355, 8, 8)
    assert len(y_train) == 1442
    assert x_train.dtype == y_train.dtype == x_test.dtype == y_test.dtype == np.uint8
    assert np.bincount(y_test).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]

    # Both parts together are the whole set, each image once, 0 to 16 stretched to 0 to 255.
    images = idx.read_idx(digits._FOLDER / "images-idx3-ubyte.gz")
    stretched = np.rint(images * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, np.concatenate([x_train, x_test]))) == sorted(map(bytes, stretched))

    again = digits.load_data()
    np.testing.assert_array_equal(again[0][0], x_train)
    np.testing.assert_array_equal(again[1][1], y_test)


@pytest.mark.parametrize(("size", "factor", "border"), [(28, 3, 2), (32, 4, 0)])
def test_digits_scaled_up(size, factor, border):
    (small, small_labels), (small_test, _) = digits.load_data()
    (x_train, y_train), (x_test, _) = digits.load_data(size)
    assert x_train.shape == (1442, size, size)
    assert x_test.shape == (355, size, size)
    assert x_train.dtype == np.uint8
    np.testing.assert_array_equal(y_train, small_labels)

    # Interpolation along one axis, half-pixel centres: a matrix from 8 pixels to 8 * factor.
    centres = np.clip((np.arange(8 * factor) + 0.5) / factor - 0.5, 0, 7)
    matrix = np.maximum(0, 1 - np.abs(centres[:, np.newaxis] - np.arange(8)))
    for x, originals in ((x_train, small), (x_test, small_test)):
        unrounded = np.rint(originals * (16 / 255)) * (255 / 16)
        expected = matrix @ unrounded @ matrix.T
        inner = x[:, border : size - border, border : size - border].astype(float)
        assert np.abs(inner - expected).max() <= 0.501  # it is rounded to whole numbers
        assert x.sum(dtype=int) == inner.sum(dtype=int)  # the border is empty


@pytest.mark.parametrize("size", [0, 16, 28.5, "28", None])
def test_digits_of_another_size(size):
    with pytest.raises(ValueError, match=r"digits\.load_data: expected size 8, 28 or 32, got"):
        digits.load_data(size)


def test_names_in_the_package():
    from convkit import datasets

    assert set(datasets.__all__) <= set(dir(datasets))
    assert datasets.mnist is mnist
    with pytest.raises(AttributeError, match="no attribute 'cifar'"):
        _ = datasets.cifar


def test_importing_the_package_loads_no_downloader():
    program = (
        "import sys; from convkit.datasets import digits, mnist; digits.load_data();"
        "sys.exit(any(name in sys.modules for name in ('pooch', 'requests', 'tqdm')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program]).returncode == 0
