"""CIFAR-10 and CIFAR-100 from small archives of the same form, downloaded from this machine."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from mirrors import Mirror

from convkit.datasets import cifar10, cifar100, cifar_binary, download

MODULES = [cifar10, cifar100]
ROWS = {cifar10: [3, 1, 2, 4, 1, 5], cifar100: [7, 3]}


def archive_of(members: list) -> bytes:
    """A gzipped tar archive of (name, content) or ready members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Small:
    """A few records in place of a module's 60,000, with the sums that belong to them."""

    def __init__(self, module, monkeypatch, mirrors=("http://127.0.0.1:9/",)) -> None:
        self.module = module
        self.records = module._RECORDS
        rng = np.random.default_rng(0)
        self.labels, self.images, self.contents, files = [], [], {}, []
        for file, rows in zip(self.records.train + self.records.test, ROWS[module], strict=True):
            labels = np.stack([rng.integers(0, n, rows, np.uint8) for n in self.records.labels], 1)
            images = rng.integers(0, 256, (rows, 32, 32, 3), np.uint8)
            planes = images.transpose(0, 3, 1, 2).reshape(rows, -1)
            content = np.concatenate([labels, planes], axis=1).tobytes()
            digest = hashlib.sha256(content).hexdigest()
            files.append(download.DataFile(file.name, len(content), digest))
            self.contents[file.name] = content
            self.labels.append(labels)
            self.images.append(images)
        train = len(self.records.train)
        self.records = dataclasses.replace(
            self.records, train=tuple(files[:train]), test=tuple(files[train:])
        )
        self.mirrors = tuple(mirrors)
        self.monkeypatch = monkeypatch
        folder = self.records.folder
        self.pack(
            [
                (f"{folder}/readme.html", b"<html>"),
                *((f"{folder}/{name}", content) for name, content in self.contents.items()),
            ]
        )

    def pack(self, members: list) -> None:
        """Make these the archive, and its sum the published one."""
        self.archive = archive_of(members)
        file = dataclasses.replace(
            self.records.source.files[0],
            size=len(self.archive),
            sha256=hashlib.sha256(self.archive).hexdigest(),
        )
        source = dataclasses.replace(self.records.source, files=(file,), mirrors=self.mirrors)
        self.records = dataclasses.replace(self.records, source=source)
        self.monkeypatch.setattr(self.module, "_RECORDS", self.records)

    @property
    def name(self) -> str:
        return self.records.source.files[0].name

    def check(self, loaded, label: int = -1) -> None:
        train = len(self.records.train)
        for (x, y), part in zip(loaded, (slice(train), slice(train, None)), strict=True):
            np.testing.assert_array_equal(x, np.concatenate(self.images[part]), strict=True)
            labels = np.concatenate(self.labels[part])[:, label]
            np.testing.assert_array_equal(y, labels[:, np.newaxis], strict=True)
            assert x.flags.c_contiguous and x.flags.writeable


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """No data folder, an empty cache, no proxies and no waiting; returns the cache's folder."""
    monkeypatch.delenv("CONVKIT_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "convkit"


@pytest.fixture
def mirror():
    mirror = Mirror()
    yield mirror
    mirror.close()


@pytest.fixture(params=MODULES, ids=["cifar10", "cifar100"])
def small(request, monkeypatch, mirror):
    return Small(request.param, monkeypatch, (f"{mirror.url}one/", f"{mirror.url}two/"))


@pytest.fixture
def own_folder(small, tmp_path, monkeypatch):
    """The data set's folder in CONVKIT_DATA."""
    monkeypatch.setenv("CONVKIT_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / small.records.source.name
    folder.mkdir(parents=True)
    return folder


def test_download_once_then_from_the_cache(small, mirror, places):
    mirror.answers[f"/one/{small.name}"] = [(200, small.archive)]
    small.check(small.module.load_data())
    small.check(small.module.load_data())
    assert mirror.asked == [f"/one/{small.name}"]
    folder = places / small.records.source.name
    assert [path.name for path in folder.iterdir()] == [small.name]


def test_label_modes(monkeypatch, mirror):
    small = Small(cifar100, monkeypatch, (mirror.url,))
    mirror.answers[f"/{small.name}"] = [(200, small.archive)]
    small.check(cifar100.load_data("coarse"), 0)
    small.check(cifar100.load_data("fine"), 1)
    small.check(cifar100.load_data(label_mode="fine"), 1)
    with pytest.raises(ValueError, match=r"cifar100\.load_data: expected label_mode to be one of"):
        cifar100.load_data("all")


@pytest.mark.parametrize(
    "answer",
    [
        (404, b"no such file"),
        (200, b"<html>please log in</html>"),
        (200, None),
        (200, b"DROP"),
    ],
    ids=["not found", "a page", "changed", "dropped"],
)
def test_second_mirror(small, mirror, places, answer):
    code, body = answer
    if body is None:
        body = small.archive[:-9] + b"x" + small.archive[-8:]
    elif body == b"DROP":
        body = small.archive + body
    mirror.answers[f"/one/{small.name}"] = [(code, body)]
    mirror.answers[f"/two/{small.name}"] = [(200, small.archive)]
    small.check(small.module.load_data())
    assert mirror.asked == [f"/one/{small.name}", f"/two/{small.name}"]
    folder = places / small.records.source.name
    assert [path.name for path in folder.iterdir()] == [small.name]


def test_damaged_cache_is_fetched_again(small, mirror, places):
    folder = places / small.records.source.name
    folder.mkdir(parents=True)
    (folder / small.name).write_bytes(small.archive[:-1])
    mirror.answers[f"/one/{small.name}"] = [(200, small.archive)]
    small.check(small.module.load_data())
    assert (folder / small.name).read_bytes() == small.archive


def test_nowhere_to_be_had(small, mirror, places):
    with pytest.raises(FileNotFoundError) as caught:
        small.module.load_data()
    text = str(caught.value)
    assert f"get these files:\n  {small.name}\n" in text
    assert text.count("404 Client Error") == 2
    assert str(places / small.records.source.name) in text


@pytest.mark.parametrize("form", ["archive", "folder", "files"])
def test_own_folder(small, own_folder, mirror, form):
    if form == "archive":
        (own_folder / small.name).write_bytes(small.archive)
    else:
        folder = own_folder / small.records.folder if form == "folder" else own_folder
        folder.mkdir(exist_ok=True)
        for name, content in small.contents.items():
            (folder / name).write_bytes(content)
    small.check(small.module.load_data())
    assert mirror.asked == []


@pytest.mark.parametrize("damage", ["changed", "short", "long"])
@pytest.mark.parametrize("form", ["archive", "folder"])
def test_wrong_files_in_the_own_folder(small, own_folder, mirror, form, damage):
    folder = own_folder / small.records.folder
    folder.mkdir()
    for name, content in small.contents.items():
        (folder / name).write_bytes(content)
    name = small.records.test[0].name
    path = folder / name
    if form == "archive":
        path.unlink()
        name, path = small.name, own_folder / small.name
        path.write_bytes(small.archive)
    right = path.read_bytes()
    wrong = {"changed": right[:-1] + bytes([right[-1] ^ 255]), "short": right[:-1]}
    path.write_bytes(wrong.get(damage, right + b"\0"))
    with pytest.raises(ValueError, match=r"not the published|expected \d+ bytes") as caught:
        small.module.load_data()
    assert str(path) in str(caught.value)
    assert mirror.asked == []


def test_some_files_are_not_the_set(small, own_folder, mirror):
    name, content = next(iter(small.contents.items()))
    (own_folder / name).write_bytes(content)
    mirror.answers[f"/one/{small.name}"] = [(200, small.archive)]
    small.check(small.module.load_data())


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_archives_that_reach_outside(small, own_folder, tmp_path):
    """Nothing is unpacked, so the worst names do no harm; nor do other members."""
    folder = small.records.folder
    wanted = [(f"./{folder}/{name}", content) for name, content in small.contents.items()]
    evil = [
        ("../escaped", b"x"),
        (str(tmp_path / "absolute"), b"x"),
        link(f"{folder}/link", "/etc/passwd", tarfile.SYMTYPE),
        (f"{folder}/../../escaped", b"x"),
        *[(f"other/{name}", b"x") for name in small.contents],
    ]
    small.pack(evil + wanted)
    (own_folder / small.name).write_bytes(small.archive)
    before = sorted(tmp_path.rglob("*"))
    small.check(small.module.load_data())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("change", ["missing", "short", "long", "link", "folder", "label"])
def test_archives_of_another_content(small, own_folder, change):
    folder, test = small.records.folder, small.records.test[0].name
    path = f"{folder}/{test}"
    contents = {f"{folder}/{name}": content for name, content in small.contents.items()}
    right = contents.pop(path)
    wrong = {
        "missing": [],
        "short": [(path, right[:-1])],
        "long": [(path, right + bytes(10_000_000))],
        "link": [link(path, "/etc/passwd", tarfile.SYMTYPE)],
        "folder": [link(path, "", tarfile.DIRTYPE)],
        "label": [(path, b"\xc8" + right[1:])],
    }[change]
    small.pack([*contents.items(), *wrong])
    (own_folder / small.name).write_bytes(small.archive)
    message = {
        "missing": f"not in the archive: {path}",
        "short": f"{test}: expected a file of {len(right)} bytes in the archive, got",
        "long": f"got {len(right) + 10_000_000} bytes",
        "link": "got something else",
        "folder": "got something else",
        "label": rf"{test}: expected labels below \d+, got 200",
    }[change]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            small.module.load_data()
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", ["cut", "no gzip", "no tar"])
def test_archives_that_are_damaged(small, own_folder, damage):
    pack = small.archive
    changed = {
        "cut": pack[: len(pack) // 2],
        "no gzip": b"not an archive",
        "no tar": gzip.compress(b"not an archive" * 100),
    }[damage]
    file = dataclasses.replace(
        small.records.source.files[0], size=len(changed), sha256=hashlib.sha256(changed).hexdigest()
    )
    source = dataclasses.replace(small.records.source, files=(file,))
    small.monkeypatch.setattr(
        small.module, "_RECORDS", dataclasses.replace(small.records, source=source)
    )
    (own_folder / small.name).write_bytes(changed)
    with pytest.raises(ValueError, match="damaged archive"):
        small.module.load_data()


@pytest.mark.parametrize("module", MODULES)
def test_what_is_known_of_the_published_files(module):
    records = module._RECORDS
    record = len(records.labels) + 3072
    assert sum(file.size for file in records.train) == 50_000 * record
    assert sum(file.size for file in records.test) == 10_000 * record
    assert len(cifar_binary.MIRRORS) == len(set(cifar_binary.MIRRORS)) >= 2
    assert all(url.startswith("https://") and url.endswith("/") for url in cifar_binary.MIRRORS)
    (archive,) = records.source.files
    assert archive.packed and archive.name.endswith(".tar.gz")
    files = (archive, *records.train, *records.test)
    assert len({bytes.fromhex(file.sha256) for file in files}) == len(files)
    assert all(len(file.sha256) == 64 for file in files)
    assert records.source.name == module.__name__.rpartition(".")[2]


def test_class_names():
    assert len(cifar10.CLASS_NAMES) == 10
    assert list(cifar10.CLASS_NAMES) == sorted(cifar10.CLASS_NAMES)
    for names, count in [(cifar100.CLASS_NAMES, 100), (cifar100.COARSE_NAMES, 20)]:
        assert list(names) == sorted(set(names)) and len(names) == count


OWN_DATA = os.environ.get("CONVKIT_DATA", "")


@pytest.mark.parametrize("module", MODULES)
def test_the_published_files(module, monkeypatch):
    if not OWN_DATA or not (Path(OWN_DATA) / module._RECORDS.source.name).is_dir():
        pytest.skip(f"CONVKIT_DATA has no folder {module._RECORDS.source.name}")
    monkeypatch.setenv("CONVKIT_DATA", OWN_DATA)
    (x_train, y_train), (x_test, y_test) = module.load_data()
    assert x_train.shape == (50_000, 32, 32, 3) and x_test.shape == (10_000, 32, 32, 3)
    classes = len(module.CLASS_NAMES)
    for y, images in ((y_train, 50_000), (y_test, 10_000)):
        assert y.shape == (images, 1) and y.dtype == np.uint8
        assert np.bincount(y[:, 0]).tolist() == [images // classes] * classes
