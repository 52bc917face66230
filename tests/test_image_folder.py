"""datasets.image_folder: layouts, image files of every kind, corrupt ones, splits, threads."""

from __future__ import annotations

import builtins
import errno
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from convkit.data import Dataset
from convkit.datasets import image_folder, images
from convkit.datasets.images import ImageError

pillow = pytest.importorskip("PIL.Image")


def picture(height: int = 6, width: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two classes of three and two images, one of them deeper, and what is no image."""
    root = tmp_path / "photos"
    for seed, name in enumerate(
        ["dog/1.png", "dog/a/2.PNG", "dog/3.bmp", "cat/b.png", "cat/a.tif"]
    ):
        save(root / name, picture(seed=seed), format=None if name[-3:] != "PNG" else "PNG")
    (root / "dog" / "notes.txt").write_text("no image")
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / ".thumbnails").mkdir()
    save(root / "beside.png", picture())
    return root


SIZE = (6, 8)


def names(dataset) -> list[str]:
    return [Path(path).name for path in dataset.file_paths]


# --- Layout --------------------------------------------------------------------------------------


def test_layout(photos):
    dataset = image_folder(photos, SIZE, shuffle=False, batch_size=2)
    assert isinstance(dataset, Dataset)
    assert dataset.class_names == ("cat", "dog")
    assert names(dataset) == ["a.tif", "b.png", "1.png", "3.bmp", "2.PNG"]
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1] and dataset.labels.dtype == np.int32
    assert (len(dataset), dataset.samples) == (3, 5)
    batches = list(dataset)
    assert [x.shape for x, _ in batches] == [(2, 6, 8, 3), (2, 6, 8, 3), (1, 6, 8, 3)]
    x, y = dataset.as_arrays()
    assert x.dtype == np.uint8 and y.dtype == np.int32
    assert y.tolist() == [0, 0, 1, 1, 1]
    for got, seed in zip(x, [4, 3, 0, 2, 1], strict=True):
        np.testing.assert_array_equal(got, picture(seed=seed))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), x)


def test_labels(photos):
    _, y = image_folder(photos, SIZE, labels="categorical").as_arrays()
    np.testing.assert_array_equal(
        y, np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], np.float32), strict=True
    )
    dataset = image_folder(photos, SIZE, labels=None)
    assert dataset.labels is None and dataset.class_names == ()
    assert sorted(names(dataset)) == ["1.png", "2.PNG", "3.bmp", "a.tif", "b.png", "beside.png"]
    assert dataset.as_arrays().shape == (6, 6, 8, 3)


def test_class_names(photos):
    dataset = image_folder(photos, SIZE, class_names=["dog", "cat"])
    assert dataset.class_names == ("dog", "cat")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    only = image_folder(photos, SIZE, class_names=["dog"], labels="categorical")
    assert only.as_arrays()[1].tolist() == [[1.0]] * 3
    for wrong in (["cat", "fish"], ["cat", "cat"], []):
        with pytest.raises(ValueError, match=r"class_names to be different ones of \['cat', 'dog'"):
            image_folder(photos, SIZE, class_names=wrong)
    with pytest.raises(TypeError, match="class_names as a sequence"):
        image_folder(photos, SIZE, class_names="cat")
    with pytest.raises(ValueError, match="class_names with labels only"):
        image_folder(photos, SIZE, class_names=["cat"], labels=None)


def test_one_class(photos):
    for path in (photos / "dog").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(ValueError, match=r"images in the class folder .*dog, got none; class_name"):
        image_folder(photos, SIZE)
    dataset = image_folder(photos, SIZE, class_names=["cat"])
    assert dataset.as_arrays()[1].tolist() == [0, 0]


def test_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"a folder for each class in .*, got none \(labels=None"):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"images in .*, got none"):
        image_folder(tmp_path, labels=None)
    save(tmp_path / "a.png", picture())
    with pytest.raises(ValueError, match="a folder for each class"):
        image_folder(tmp_path)
    with pytest.raises(NotADirectoryError):
        image_folder(tmp_path / "a.png")


def test_links(photos, tmp_path):
    other = tmp_path / "other"
    save(other / "more" / "9.png", picture(seed=9))
    (photos / "dog" / "4.png").symlink_to(other / "more" / "9.png")
    (photos / "dog" / "inside").symlink_to(other)
    (photos / "fox").symlink_to(other)  # a class folder that is a link
    dataset = image_folder(photos, SIZE)
    assert dataset.class_names == ("cat", "dog", "fox")
    assert names(dataset) == ["a.tif", "b.png", "1.png", "3.bmp", "4.png", "2.PNG", "9.png"]
    followed = image_folder(photos, SIZE, follow_links=True)
    assert names(followed).count("9.png") == 2
    assert followed.labels.tolist() == [0, 0, 1, 1, 1, 1, 1, 2]
    assert followed.as_arrays()[0].shape == (8, 6, 8, 3)


@pytest.mark.parametrize("follow_links", [False, True])
def test_loops_of_links(photos, follow_links):
    expected = names(image_folder(photos, SIZE))
    dog = photos / "dog"
    (dog / "up").symlink_to(photos)
    (dog / "far-up").symlink_to("/")
    (dog / "self").symlink_to(dog)
    (dog / "a" / "up").symlink_to(dog)
    (dog / "b").symlink_to(dog / "c")
    (dog / "c").symlink_to(dog / "b")
    (dog / "again").symlink_to(dog / "a")
    dataset = image_folder(photos, SIZE, follow_links=follow_links)
    assert names(dataset) == expected
    everything = image_folder(photos, SIZE, labels=None, follow_links=follow_links)
    assert sorted(names(everything)) == sorted([*expected, "beside.png"])
    (photos / "round").symlink_to(photos)
    with pytest.raises(ValueError, match=r"round, a link to a folder that holds it"):
        image_folder(photos, SIZE, follow_links=follow_links)
    dataset = image_folder(photos, SIZE, class_names=["cat", "dog"], follow_links=follow_links)
    assert names(dataset) == expected


def test_paths_do_not_depend_on_the_order_of_a_folder(photos, monkeypatch):
    scandir = os.scandir
    (photos / "dog" / "l1").symlink_to(photos / "cat")
    (photos / "dog" / "l2").symlink_to(photos / "cat")

    class Turned:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *arguments):
            pass

    expected = image_folder(photos, SIZE, follow_links=True).file_paths
    assert len(expected) == 7 and any("l1" in path for path in expected)
    monkeypatch.setattr(os, "scandir", Turned)
    assert image_folder(photos, SIZE, follow_links=True).file_paths == expected


def test_a_pipe_is_no_image(photos):
    os.mkfifo(photos / "dog" / "pipe.png")
    assert "pipe.png" not in names(image_folder(photos, SIZE))


# --- Pixels --------------------------------------------------------------------------------------


def read(path: Path, channels: int = 3, size=SIZE) -> np.ndarray:
    """The one image at a path, through a folder's stream."""
    (x,) = image_folder(path.parent, size, channels, labels=None, threads=1)
    assert x.shape == (1, *size, channels) and x.dtype == np.uint8
    return x[0]


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif", "webp", "ppm", "tga", "jp2", "qoi"])
def test_formats_without_loss(tmp_path, ending):
    if f".{ending}" not in images.extensions():
        pytest.skip(f"this Pillow reads no {ending}")
    array = picture() // 64 * 64
    options = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(ending, {})
    path = save(tmp_path / "f" / f"x.{ending}", array, **options)
    np.testing.assert_array_equal(read(path), array)


def test_jpeg(tmp_path):
    smooth = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)
    array = np.stack([smooth] * 3, axis=2)
    path = save(tmp_path / "x.jpeg", array, quality=95)
    assert np.abs(read(path).astype(int) - array).max() <= 6


@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
@pytest.mark.parametrize("size", [(3, 4), (12, 10), (5, 13), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pillows(tmp_path, interpolation, size, channels):
    array = picture(7, 9, channels)
    save(tmp_path / "x.png", array)
    dataset = image_folder(
        tmp_path, size, channels, labels=None, interpolation=interpolation, threads=1
    )
    resized = pillow.fromarray(array).resize(
        size[::-1], getattr(pillow.Resampling, interpolation.upper())
    )
    expected = np.asarray(resized).reshape(*size, channels)
    np.testing.assert_array_equal(dataset.as_arrays()[0], expected)


@pytest.mark.parametrize(("height", "width"), [(10, 20), (20, 10), (10, 10), (7, 31), (31, 7)])
@pytest.mark.parametrize("size", [(4, 4), (4, 8), (9, 3)])
def test_crop_to_aspect_ratio(tmp_path, height, width, size):
    array = picture(height, width)
    save(tmp_path / "x.png", array)
    (x,) = image_folder(
        tmp_path, size, labels=None, crop_to_aspect_ratio=True, interpolation="nearest", threads=0
    )
    # The part that Keras's smart_resize takes.
    inner_height = min(height, int(width * size[0] / size[1]))
    inner_width = min(width, int(height * size[1] / size[0]))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    part = array[top : top + inner_height, left : left + inner_width]
    rows = ((np.arange(size[0]) + 0.5) * part.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * part.shape[1] / size[1]).astype(int)
    np.testing.assert_array_equal(x[0], part[rows][:, columns])


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation(tmp_path, ending, orientation):
    array = picture(6, 8) // 64 * 64
    exif = pillow.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    path = save(tmp_path / f"x.{ending}", array, exif=exif, **options)
    stored = array
    if ending == "jpg":
        with pillow.open(path) as image:
            stored = np.asarray(image)
    # How the stored rows and columns are to be shown, by the EXIF standard.
    shown = {
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }.get(orientation, stored)
    np.testing.assert_array_equal(read(path, size=shown.shape[:2]), shown)


def test_broken_exif_does_no_harm(tmp_path):
    path = save(tmp_path / "x.jpg", picture(), quality=100)
    with pillow.open(path) as image:
        expected = np.asarray(image)
    content = path.read_bytes()
    segment = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 999) + b"\xff" * 5
    content = (
        content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    )
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own
        np.testing.assert_array_equal(read(path), expected)


def test_grey(tmp_path):
    grey, colour = picture(channels=1), picture()
    one = save(tmp_path / "a" / "x.png", grey)
    np.testing.assert_array_equal(read(one, 1)[..., 0], grey)
    np.testing.assert_array_equal(read(one, 3), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(read(one, 4)[..., 3], np.full(SIZE, 255))
    two = save(tmp_path / "b" / "x.png", colour)
    expected = np.asarray(pillow.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(read(two, 1)[..., 0], expected)
    weights = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(expected - weights).max() <= 1


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_16_bit(tmp_path, ending):
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(SIZE)
    path = save(tmp_path / f"x.{ending}", values)
    np.testing.assert_array_equal(read(path, 1)[..., 0], np.rint(values / 257))
    dark = save(tmp_path / "d" / f"x.{ending}", values // 1000)  # its scale is not guessed
    assert read(dark, 1).max() == 0


def test_32_bit(tmp_path):
    values = np.arange(48, dtype=np.int32).reshape(SIZE) * 2000 - 5000
    path = save(tmp_path / "x.tif", values)
    np.testing.assert_array_equal(
        read(path, 1)[..., 0], np.rint(np.clip(values, 0, 65535) / 257).astype(np.uint8)
    )


def test_floating_point_pixels(tmp_path):
    save(tmp_path / "x.tif", picture(channels=1).astype(np.float32))
    with pytest.raises(ImageError, match=r"x\.tif: expected pixels of whole numbers"):
        image_folder(tmp_path, SIZE, labels=None).as_arrays()


def test_palettes_and_one_bit(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 90, 200], [9, 9, 9]], np.uint8)
    places = picture(channels=1) % 4
    image = pillow.new("P", SIZE[::-1])
    image.putdata(places.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "x.png")
    np.testing.assert_array_equal(read(tmp_path / "a" / "x.png"), colours[places])
    image.info["transparency"] = bytes([0, 255, 255, 255])
    (tmp_path / "b").mkdir()
    image.save(tmp_path / "b" / "x.png", transparency=bytes([0, 255, 255, 255]))
    colours[0] = 255  # white shows through
    np.testing.assert_array_equal(read(tmp_path / "b" / "x.png"), colours[places])
    np.testing.assert_array_equal(
        read(tmp_path / "b" / "x.png", 4)[..., 3], np.where(places == 0, 0, 255)
    )
    (tmp_path / "c").mkdir()
    pillow.fromarray(places > 1).save(tmp_path / "c" / "x.png")
    np.testing.assert_array_equal(
        read(tmp_path / "c" / "x.png", 1)[..., 0], np.where(places > 1, 255, 0)
    )


def test_alpha(tmp_path):
    array = picture(channels=4)
    path = save(tmp_path / "a" / "x.png", array)
    np.testing.assert_array_equal(read(path, 4), array)
    alpha = array[..., 3:] / 255
    expected = array[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(read(path, 3) - expected).max() <= 1
    grey = pillow.fromarray(array[..., 0]).convert("LA")
    grey.putalpha(pillow.fromarray(array[..., 3]))
    (tmp_path / "b").mkdir()
    grey.save(tmp_path / "b" / "x.png")
    shown = array[..., :1] * alpha + 255 * (1 - alpha)
    assert np.abs(read(tmp_path / "b" / "x.png", 1) - shown).max() <= 1
    opaque = array.copy()
    opaque[..., 3] = 255
    path = save(tmp_path / "c" / "x.png", opaque)
    np.testing.assert_array_equal(read(path, 3), opaque[..., :3])


def test_cmyk(tmp_path):
    image = pillow.fromarray(picture() // 64 * 64).convert("CMYK")
    image.save(tmp_path / "x.tif")
    np.testing.assert_array_equal(read(tmp_path / "x.tif"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_first_frame(tmp_path, ending):
    frames = [np.full((6, 8, 3), value, np.uint8) for value in (64, 128, 192)]
    first, *rest = (pillow.fromarray(frame) for frame in frames)
    options = {"lossless": True} if ending == "webp" else {}
    first.save(tmp_path / f"x.{ending}", save_all=True, append_images=rest, **options)
    np.testing.assert_array_equal(read(tmp_path / f"x.{ending}"), frames[0])


# --- What cannot be read -------------------------------------------------------------------------


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def bad_files(folder: Path) -> dict[str, str]:
    """Writes files that are no whole images; their names and what is said of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending in ("jpg", "png", "gif", "bmp", "webp", "tif"):
        whole = save(folder / f"whole.{ending}", picture(40, 50)).read_bytes()
        (folder / f"whole.{ending}").unlink()
        (folder / f"half.{ending}").write_bytes(whole[: len(whole) // 2])
    png = save(folder / "x.png", picture(40, 50)).read_bytes()
    (folder / "x.png").unlink()
    (folder / "changed.png").write_bytes(png[:300] + bytes([png[300] ^ 255]) + png[301:])
    (folder / "text.jpg").write_text("not an image at all")
    (folder / "empty.png").write_bytes(b"")
    (folder / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (folder / "bomb.png").write_bytes(png_of_size(50_000, 50_000))
    (folder / "link.png").symlink_to(folder / "nothing")
    return {
        **{f"half.{ending}": "" for ending in ("jpg", "png", "gif", "bmp", "webp", "tif")},
        "changed.png": "",
        "text.jpg": "not an image that Pillow can read",
        "empty.png": "not an image that Pillow can read",
        "script.png": "not an image that Pillow can read",
        "bomb.png": "pixels",
        "link.png": "No such file",
    }


@pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated)")
def test_every_bad_file_is_named(tmp_path):
    for name, reason in bad_files(tmp_path / "all").items():
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        path = folder / name
        os.rename(tmp_path / "all" / name, path)
        for threads in (0, 2):
            with pytest.raises(ImageError) as caught:
                list(image_folder(folder, SIZE, labels=None, threads=threads))
            text = str(caught.value)
            assert text.startswith(f"{path}: ") and reason in text
            assert caught.value.__notes__ == [f"Dataset: while loading {path}"]


@pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated)")
@pytest.mark.parametrize("threads", [1, 4])
def test_corrupt_files_are_skipped(photos, threads):
    bad = bad_files(photos / "dog")
    dataset = image_folder(
        photos, SIZE, corrupt="skip", batch_size=4, shuffle=True, seed=2, threads=threads
    )
    with pytest.warns(UserWarning, match=f"image_folder: {len(bad)} of {len(bad) + 5}") as told:
        batches = list(dataset)
    assert all(str(photos / "dog" / name) in str(told[-1].message) for name in bad)
    assert {Path(path).name for path in dataset.skipped} == set(bad)
    assert sorted(y for _, labels in batches for y in labels) == [0, 0, 1, 1, 1]
    assert all(len(x) == len(y) for x, y in batches)
    list(dataset)  # silent
    x, y = dataset.as_arrays()
    assert y.tolist() == [0, 0, 1, 1, 1] and len(x) == 5


# Up to twice the limit Pillow itself only warns.
@pytest.mark.filterwarnings("ignore:Image size")
def test_pillows_limit_of_pixels(tmp_path, monkeypatch):
    save(tmp_path / "x.png", picture(10, 10))
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 100)
    assert image_folder(tmp_path, SIZE, labels=None).as_arrays().shape == (1, *SIZE, 3)
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(ImageError, match="10 × 10 pixels, more than PIL"):
        image_folder(tmp_path, SIZE, labels=None).as_arrays()
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", None)
    assert image_folder(tmp_path, SIZE, labels=None).as_arrays().shape == (1, *SIZE, 3)


@pytest.mark.parametrize("where", ["open", "read"])
def test_errors_of_the_disk_are_no_corrupt_files(photos, monkeypatch, where):
    dataset = image_folder(photos, SIZE, corrupt="skip", threads=1)
    real = builtins.open

    class Failing:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read(self, *arguments):
            raise OSError(errno.EIO, "Input/output error")

    def fails(path, *arguments, **options):
        if "photos" not in str(path):
            return real(path, *arguments, **options)
        if where == "open":
            raise OSError(errno.EMFILE, "Too many open files")
        return Failing(real(path, *arguments, **options))

    monkeypatch.setattr(builtins, "open", fails)
    with pytest.raises(OSError, match=r"Too many open files|Input/output error"):
        list(dataset)
    assert dataset.skipped == {}


def test_memory_errors_are_no_corrupt_files(photos, monkeypatch):
    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr(images, "_in_channels", full)
    with pytest.raises(MemoryError):
        list(image_folder(photos, SIZE, corrupt="skip"))


# --- Streams -------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    for number in range(45):
        height, width = 10 + number % 7, 12 + number % 5
        save(
            tmp_path / "many" / "abc"[number % 3] / f"{number}.png",
            picture(height, width, 3, number),
        )
    return tmp_path / "many"


def test_same_bits_for_any_number_of_threads(many):
    def epochs(threads: int) -> list:
        dataset = image_folder(many, (8, 9), seed=4, batch_size=7, threads=threads)
        return [(x.tobytes(), y.tobytes()) for _ in range(2) for x, y in dataset]

    expected = epochs(0)
    assert len(expected) == 14 and expected[:7] != expected[7:]
    assert epochs(1) == epochs(4) == expected


def test_split(many):
    parts = {}
    for subset in ("training", "validation"):
        for shuffle in (True, False):
            for seed in (None, 5):
                dataset = image_folder(
                    many,
                    (4, 4),
                    validation_split=0.3,
                    subset=subset,
                    seed=seed,
                    shuffle=shuffle,
                )
                parts[subset, shuffle, seed] = dataset.file_paths
                assert dataset.class_names == ("a", "b", "c")
                folders = [Path(path).parent.name for path in dataset.file_paths]
                assert ["abc".index(name) for name in folders] == dataset.labels.tolist()
    everything = image_folder(many, (4, 4)).file_paths
    for seed in (None, 5):
        training, validation = (parts[s, True, seed] for s in ("training", "validation"))
        assert (len(training), len(validation)) == (32, 13)
        assert sorted(training + validation) == sorted(everything)
        assert parts["training", False, seed] == training
        assert parts["validation", False, seed] == validation
    assert parts["validation", True, None] != parts["validation", True, 5]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subset": "training"}, ValueError, "validation_split where there is a subset"),
        ({"validation_split": 0.2}, ValueError, "subset to be one of 'training', 'validation'"),
        ({"validation_split": 0.2, "subset": "test"}, ValueError, "subset to be one of"),
        ({"validation_split": 1, "subset": "training"}, ValueError, "0 <= validation_split < 1"),
        ({"validation_split": 0.01, "subset": "validation"}, ValueError, "images for validation"),
        ({"labels": "binary"}, ValueError, "image_folder: expected labels to be one of"),
        ({"channels": 2}, ValueError, r"channels to be 1 \(grey\), 3"),
        ({"image_size": 0}, ValueError, "image_size to be at least 1"),
        ({"image_size": (2, 3, 4)}, ValueError, "image_size to be an integer or two"),
        ({"interpolation": "area"}, ValueError, "interpolation to be one of 'nearest'"),
        ({"corrupt": "ignore"}, ValueError, "corrupt to be one of 'raise', 'skip'"),
        ({"batch_size": 0}, ValueError, "batch_size to be at least 1"),
    ],
)
def test_bad_arguments(photos, options, error, message):
    with pytest.raises(error, match=message):
        image_folder(photos, **options)


def test_state_goes_on_in_the_middle(many):
    def make(threads: int):
        return image_folder(many, (4, 4), batch_size=4, threads=threads)

    one = make(2)
    batches = iter(one)
    for _ in range(5):
        next(batches)
    state = one.state()
    rest = [(x.tobytes(), y.tobytes()) for x, y in batches]
    other = make(1)
    other.restore(state)
    assert [(x.tobytes(), y.tobytes()) for x, y in other] == rest
    assert len(rest) == 7


def test_without_pillow(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"image_folder: needs Pillow: pip install 'convkit-nn\["):
        image_folder(photos)
