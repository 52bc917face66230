"""datasets.coco_segmentation: polygons and run lengths as masks, annotation files, streams."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from convkit.data import Dataset
from convkit.datasets import coco_segmentation, masks
from convkit.datasets.images import ImageError

pillow = pytest.importorskip("PIL.Image")


# --- Naive references ----------------------------------------------------------------------------


def naive_polygon(height: int, width: int, points) -> np.ndarray:
    """Pixel by pixel: a ray to the right from the centre, and how many edges it crosses."""
    mask = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if y0 > y1:
                    x0, y0, x1, y1 = x1, y1, x0, y0
                if y0 <= y < y1 and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
                    mask[row, column] ^= True
    return mask


def naive_compress(lengths: list[int]) -> str:
    """COCO's compressed form, number by number."""
    text = ""
    for place, length in enumerate(lengths):
        number = length - (lengths[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits = number & 31
            number >>= 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def naive_expand(text: str) -> list[int]:
    """The lengths of COCO's compressed form, character by character."""
    lengths: list[int] = []
    characters = iter(text)
    for character in characters:
        number, shift, code = 0, 0, ord(character) - 48
        while True:
            number |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
            code = ord(next(characters)) - 48
        if code & 16:
            number -= 1 << shift
        if len(lengths) > 2:
            number += lengths[-2]
        lengths.append(number)
    return lengths


def runs_of(mask: np.ndarray) -> list[int]:
    """A mask's run lengths, pixel by pixel."""
    lengths, value = [0], False
    for pixel in mask.T.ravel():
        if bool(pixel) != value:
            lengths.append(0)
            value = not value
        lengths[-1] += 1
    return lengths


def filled(height: int, width: int, points, value: int = 1) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    masks.fill_polygon(mask, np.array(points, np.float32), value)
    return mask


# --- Polygons ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fractions", "whole", "halves", "outside"])
@pytest.mark.parametrize("corners", [3, 4, 7, 20])
def test_polygons(rng, kind, corners):
    for height, width in [(1, 1), (5, 17), (13, 11)]:
        for _ in range(6):
            points = rng.uniform(-3, 20, (corners, 2)).astype(np.float32)
            if kind == "whole":
                points = np.rint(points)
            elif kind == "halves":
                points = np.rint(points * 2) / 2
            elif kind == "outside":
                points = points * 20 - 150
            expected = naive_polygon(height, width, points.astype(np.float64).tolist())
            np.testing.assert_array_equal(filled(height, width, points), expected)


def test_boxes_cover_their_area():
    mask = filled(12, 14, [(2, 3), (9, 3), (9, 8), (2, 8)], value=7)
    assert (mask == 7).sum() == 7 * 5
    assert (mask[3:8, 2:9] == 7).all()
    assert filled(5, 5, [(0, 0), (5, 0), (5, 5), (0, 5)]).all()
    assert filled(5, 5, [(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)]).all()


def test_neighbours_share_no_pixel_and_leave_none_out(rng):
    corners = np.array([(0.0, 0.0), (20.0, 0.0), (20.0, 15.0), (0.0, 15.0)])
    for _ in range(10):
        middle = rng.uniform(1, 14, 2)
        sum_of_parts = sum(
            filled(15, 20, [corners[i], corners[(i + 1) % 4], middle]).astype(int) for i in range(4)
        )
        assert (sum_of_parts == 1).all()


def test_polygons_of_no_area():
    for points in ([], [(1, 1)], [(1, 1), (4, 4)], [(1, 1), (4, 1), (2, 1)], [(2, 2)] * 5):
        assert not filled(6, 6, np.reshape(points, (-1, 2))).any()


def test_even_odd_rule():
    outer = [(0, 0), (9, 0), (9, 9), (0, 9), (0, 0)]
    inner = [(3, 3), (6, 3), (6, 6), (3, 6), (3, 3)]
    mask = filled(9, 9, outer + inner)
    assert mask.sum() == 81 - 9 and not mask[3:6, 3:6].any()


def distance(places: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """From places (N, 2) to the stretch between two points."""
    along = end - start
    share = np.clip((places - start) @ along / max(along @ along, 1e-9), 0, 1)
    return np.hypot(*(places - start - share[:, np.newaxis] * along).T)


def test_pillows_polygons_differ_along_their_outline_only(rng):
    from PIL import ImageDraw

    for _ in range(20):
        points = np.rint(rng.uniform(0, 40, (5, 2)))
        image = pillow.new("1", (40, 40))
        ImageDraw.Draw(image).polygon([tuple(point) for point in points], fill=1)
        rows, columns = np.nonzero(np.asarray(image) != filled(40, 40, points).astype(bool))
        places = np.stack([columns, rows], axis=1) + 0.5
        edges = zip(points, np.roll(points, -1, axis=0), strict=True)
        assert np.min([distance(places, *edge) for edge in edges], axis=0).max() < 1.5


# --- Run lengths ---------------------------------------------------------------------------------


def test_known_strings():
    # A square of 5 in 25 × 25, in a corner and in the middle, as COCO's own tools write it.
    for text, first in [("05d00000000d?", 0), ("R45d00000000b;", 5)]:
        mask = np.zeros((25, 25), np.uint8)
        masks.fill_runs(mask, masks.run_lengths(text), 3)
        expected = np.zeros((25, 25), np.uint8)
        expected[first : first + 5, first : first + 5] = 3
        np.testing.assert_array_equal(mask, expected)
    assert masks.run_lengths("0PP1").tolist() == [0, 1024]
    assert masks.run_lengths("").tolist() == []


@pytest.mark.parametrize("top", [2, 40, 5000, 2**40])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 50])
def test_compressed_lengths(rng, top, count):
    for _ in range(10):
        lengths = rng.integers(0, top, count).tolist()
        text = naive_compress(lengths)
        assert naive_expand(text) == lengths
        got = masks.run_lengths(text)
        assert got.tolist() == lengths and got.dtype == np.int64


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 5), (31, 40)])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_runs(rng, shape, share):
    mask = rng.random(shape) < share
    lengths = runs_of(mask)
    got = np.full(shape, 9, np.uint8)
    masks.fill_runs(got, np.array(lengths), 2)
    np.testing.assert_array_equal(got, np.where(mask, 2, 9))
    got[...] = 9
    masks.fill_runs(got, masks.run_lengths(naive_compress(lengths)), 2)
    np.testing.assert_array_equal(got, np.where(mask, 2, 9))


@pytest.mark.parametrize("text", ["P", "0P", "05/", "05\x7f", "05p", "ä", "0" + "P" * 12 + "0"])
def test_strings_that_are_none(text):
    with pytest.raises(
        ValueError, match=r"expected COCO's compressed|expected run lengths of less"
    ):
        masks.run_lengths(text)


@pytest.mark.parametrize(
    "lengths",
    [[], [3], [7], [-1, 7], [7, -1], [2**62, 2**62, 2**62, 2**62, 6], [1.5, 4.5], [[6]]],
)
def test_runs_that_do_not_fit(lengths):
    mask = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"expected a sum of 6|expected run lengths"):
        masks.fill_runs(mask, np.array(lengths), 1)
    assert not mask.any()


# --- Annotation files ----------------------------------------------------------------------------

HEIGHT, WIDTH = 12, 16
SIZE = (HEIGHT, WIDTH)


def box(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def boxed(mask: np.ndarray, x: int, y: int, w: int, h: int, value: int) -> None:
    mask[y : y + h, x : x + w] = value


class Folder:
    """Images and the annotations of them, written when they are complete."""

    def __init__(self, path: Path) -> None:
        self.images = path / "images"
        self.images.mkdir()
        self.file = path / "instances.json"
        self.content: dict = {
            "info": {"year": 2017},
            "images": [],
            "annotations": [],
            "categories": [
                {"id": 18, "name": "dog", "supercategory": "animal"},
                {"id": 1, "name": "person"},
                {"id": 7, "name": "train"},
            ],
        }
        self.pixels: dict[int, np.ndarray] = {}

    def image(self, number: int, height: int = HEIGHT, width: int = WIDTH, **options) -> np.ndarray:
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        pillow.fromarray(pixels).save(self.images / f"{number}.png", **options)
        self.pixels[number] = pixels
        self.content["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        )
        return pixels

    def annotate(self, image: int, category: int, segmentation, **more) -> None:
        self.content["annotations"].append(
            {
                "id": 100 + len(self.content["annotations"]),
                "image_id": image,
                "category_id": category,
                "segmentation": segmentation,
                "iscrowd": 0,
                **more,
            }
        )

    def load(self, size=SIZE, **options):
        self.file.write_text(json.dumps(self.content))
        return coco_segmentation(self.file, self.images, size, **options)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def street(folder):
    """Three images: one with all kinds of annotations, one with others over them, one without."""
    first, second = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    for number in (30, 10, 20):
        folder.image(number)
    # Two polygons of one thing, a hole made by run lengths, and a crowd.
    folder.annotate(30, 1, [box(1, 1, 4, 5), box(8, 2, 3, 3)])
    boxed(first, 1, 1, 4, 5, 1)
    boxed(first, 8, 2, 3, 3, 1)
    ring = np.zeros(SIZE, np.uint8)
    boxed(ring, 4, 4, 6, 6, 1)
    boxed(ring, 6, 6, 2, 2, 0)
    size = [HEIGHT, WIDTH]
    folder.annotate(30, 18, {"counts": naive_compress(runs_of(ring)), "size": size})
    first[ring > 0] = 3
    folder.annotate(10, 18, [box(0, 0, 10, 10)])
    folder.annotate(10, 7, [box(5, 5, 11, 7)])
    folder.annotate(10, 1, [box(7, 0, 3, 12)])
    boxed(second, 0, 0, 10, 10, 3)
    boxed(second, 5, 5, 11, 7, 2)
    boxed(second, 7, 0, 3, 12, 1)
    crowd = np.zeros(SIZE, np.uint8)
    boxed(crowd, 12, 0, 4, 3, 1)
    folder.annotate(30, 7, {"counts": runs_of(crowd), "size": size}, iscrowd=1)
    boxed(first, 12, 0, 4, 3, 2)
    folder.expected = np.stack([first, second, np.zeros(SIZE, np.uint8)])
    return folder


def test_images_and_masks(street):
    dataset = street.load()
    assert isinstance(dataset, Dataset)
    assert dataset.class_names == ("background", "person", "train", "dog")
    assert dataset.category_ids == (1, 7, 18)
    assert dataset.image_ids == [30, 10, 20]
    assert [Path(path).name for path in dataset.file_paths] == ["30.png", "10.png", "20.png"]
    ((x, y),) = dataset
    np.testing.assert_array_equal(
        x, np.stack([street.pixels[n] for n in (30, 10, 20)]), strict=True
    )
    np.testing.assert_array_equal(y, street.expected, strict=True)


def test_categories(street):
    dataset = street.load(categories=["dog", 1])
    assert dataset.class_names == ("background", "dog", "person")
    assert dataset.category_ids == (18, 1)
    _, y = dataset.as_arrays()
    assert (y[1, 5, 5], y[1, 0, 0], y[1, 0, 8], y[1, 11, 15]) == (1, 1, 2, 0)
    empty = street.load(categories=["train"], keep_empty=False)
    assert empty.image_ids == [30, 10]
    for wrong, message in [
        (["cat"], "one category 'cat' in .*instances.json, got none"),
        (["dog", 18], "categories to be different ones"),
        ([], "categories to be different ones"),
    ]:
        with pytest.raises(ValueError, match=message):
            street.load(categories=wrong)
    with pytest.raises(TypeError, match="categories as a sequence, got 'dog'"):
        street.load(categories="dog")
    street.content["categories"].append({"id": 99, "name": "dog"})
    with pytest.raises(ValueError, match=r"one category 'dog' in .*, got several"):
        street.load(categories=["dog"])
    assert street.load(categories=[99]).class_names == ("background", "dog")


def test_crowds(street):
    _, drawn = street.load().as_arrays()
    _, skipped = street.load(crowd="skip").as_arrays()
    _, marked = street.load(crowd=255).as_arrays()
    where = np.zeros((3, *SIZE), bool)
    where[0, 0:3, 12:16] = True
    np.testing.assert_array_equal(drawn, street.expected)
    np.testing.assert_array_equal(skipped, np.where(where, 0, drawn))
    np.testing.assert_array_equal(marked, np.where(where, 255, drawn))
    assert marked.dtype == np.uint8
    _, far = street.load(crowd=1000).as_arrays()
    np.testing.assert_array_equal(far, np.where(where, 1000, drawn.astype(np.int32)), strict=True)
    for wrong in ("draw it", -1):
        with pytest.raises(ValueError, match="expected crowd"):
            street.load(crowd=wrong)


def test_annotations_of_nothing(folder):
    folder.image(1)
    for nothing in ([], None, [[]], [[1, 1, 5, 5]]):
        folder.annotate(1, 1, nothing)
    folder.content["annotations"].append({"id": 1, "image_id": 1, "category_id": 1})
    folder.annotate(1, 7, [box(2, 2, 2, 2)])
    _, y = folder.load().as_arrays()
    assert y.sum() == 2 * 4


@pytest.mark.parametrize("size", [(6, 8), (24, 32), (7, 5), (1, 1)])
@pytest.mark.parametrize("crop", [False, True])
def test_resizing(street, size, crop):
    x, y = street.load(size, crop_to_aspect_ratio=crop).as_arrays()
    assert x.shape == (3, *size, 3) and y.shape == (3, *size)
    height, width, top, left = HEIGHT, WIDTH, 0, 0
    if crop:
        height = min(HEIGHT, WIDTH * size[0] // size[1])
        width = min(WIDTH, HEIGHT * size[1] // size[0])
        top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
    rows = top + ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = left + ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    np.testing.assert_array_equal(y, street.expected[:, rows][:, :, columns])
    image = pillow.fromarray(street.pixels[30])
    box_ = (left, top, left + width, top + height)
    expected = image.resize(size[::-1], pillow.Resampling.BILINEAR, box_)
    np.testing.assert_array_equal(x[0], np.asarray(expected))


def test_channels(street):
    x, _ = street.load(channels=1, batch_size=3).as_arrays()
    assert x.shape == (3, *SIZE, 1)
    x, _ = street.load(channels=4).as_arrays()
    assert x.shape == (3, *SIZE, 4)


def test_many_categories(folder):
    folder.image(1)
    folder.content["categories"] = [{"id": n, "name": str(n)} for n in range(1, 301)]
    folder.annotate(1, 300, [box(0, 0, 3, 3)])
    _, y = folder.load().as_arrays()
    assert y.dtype == np.int32 and y.max() == 300
    _, y = folder.load(categories=[300]).as_arrays()
    assert y.dtype == np.uint8 and y.max() == 1


def test_same_bits_for_any_number_of_threads(street):
    for number in range(40, 70):
        street.image(number, HEIGHT + number % 3, WIDTH)
        street.annotate(number, 18, [box(number % 7, 2, 5, 6)])

    def epochs(threads: int) -> list:
        dataset = street.load((9, 9), batch_size=4, shuffle=True, seed=1, threads=threads)
        return [(x.tobytes(), y.tobytes()) for _ in range(2) for x, y in dataset]

    expected = epochs(0)
    assert epochs(1) == epochs(4) == expected and len(expected) == 18


def turned(pixels: np.ndarray) -> np.ndarray:
    """How EXIF's orientation 6 shows what is stored."""
    return pixels[::-1].transpose(1, 0, 2)


@pytest.mark.parametrize("upright", [True, False])
def test_orientation(folder, upright):
    """What the file's size fits: the image as it is meant to be seen, or as it is stored."""
    exif = pillow.Exif()
    exif[0x0112] = 6
    pixels = folder.image(1, 12, 16, exif=exif)
    if upright:
        folder.content["images"][0].update(height=16, width=12)
        pixels = turned(pixels)
    folder.annotate(1, 1, [box(0, 0, 3, 2)])
    x, y = folder.load(pixels.shape[:2]).as_arrays()
    np.testing.assert_array_equal(x[0], pixels)
    assert y[0, :2, :3].all() and y.sum() == 6


def test_corrupt_images(street):
    street.content["images"][1]["height"] = 13
    (street.images / "20.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"10\.png: expected 16 × 13 pixels, got 16 × 12"):
        street.load().as_arrays()
    dataset = street.load(corrupt="skip")
    with pytest.warns(UserWarning, match="coco_segmentation: 2 of 3 samples were left out"):
        x, y = dataset.as_arrays()
    assert len(x) == len(y) == 1
    assert [Path(path).name for path in dataset.skipped] == ["10.png", "20.png"]


@pytest.mark.parametrize(
    "runs", ["0", [5], [HEIGHT * WIDTH, 1], "P", [-1, HEIGHT * WIDTH + 1], ["x"]]
)
def test_runs_of_another_image(folder, runs):
    folder.image(1)
    folder.annotate(1, 1, {"counts": runs, "size": [HEIGHT, WIDTH]})
    dataset = folder.load(corrupt="skip")  # the image is whole, so this is no matter of skipping
    with pytest.raises(ValueError, match=r"coco_segmentation: annotation 100: .*run lengths"):
        dataset.as_arrays()


def changed(folder: Folder, change: str) -> None:
    content = folder.content
    image, annotation, category = (
        content[key][0] for key in ("images", "annotations", "categories")
    )
    if change in ("images", "annotations", "categories"):
        del content[change]
    elif change == "list of numbers":
        content["images"] = [1, 2]
    elif change == "image without size":
        del image["height"]
    elif change == "image of no size":
        image["width"] = 0
    elif change == "image without name":
        image["file_name"] = 3
    elif change == "image twice":
        content["images"].append(image)
    elif change == "outside":
        image["file_name"] = "../../etc/passwd"
    elif change == "absolute":
        image["file_name"] = "/etc/passwd"
    elif change == "nul":
        image["file_name"] = "a\0.png"
    elif change == "unknown image":
        annotation["image_id"] = 555
    elif change == "unknown category":
        annotation["category_id"] = 555
    elif change == "text for a number":
        annotation["image_id"] = "30"
    elif change == "category twice":
        content["categories"].append(category)
    elif change == "category without name":
        del category["name"]
    elif change == "odd polygon":
        annotation["segmentation"] = [[1, 2, 3, 4, 5, 6, 7]]
    elif change == "polygon of text":
        annotation["segmentation"] = [[1, 2, "x", 4, 5, 6]]
    elif change == "polygon of NaN":
        annotation["segmentation"] = [[1, 2, float("nan"), 4, 5, 6]]
    elif change == "flat polygon":
        annotation["segmentation"] = box(1, 1, 2, 2)
    elif change == "text":
        annotation["segmentation"] = "everything"
    elif change == "runs without counts":
        annotation["segmentation"] = {"size": [HEIGHT, WIDTH]}
    elif change == "turned size":
        annotation["segmentation"] = {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}
    elif change == "no size":
        annotation["segmentation"] = {"counts": [HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("images", "lists of objects images, annotations, categories"),
        ("annotations", "lists of objects"),
        ("categories", "lists of objects"),
        ("list of numbers", "lists of objects"),
        ("image without size", "'height' of type int for image 30"),
        ("image of no size", "each image once, with its size, .* got image 30"),
        ("image without name", "'file_name' of type str for image 30 .* got 3"),
        ("image twice", "each image once"),
        ("outside", "file_name inside the folder"),
        ("absolute", "file_name inside the folder"),
        ("nul", "file_name inside the folder"),
        ("unknown image", "annotations of images in .* got image_id 555"),
        ("unknown category", "a category_id of the file for annotation 100 .*, got 555"),
        ("text for a number", "'image_id' of type int for annotation 100 .* got '30'"),
        ("category twice", "each category once"),
        ("category without name", "'name' of type str for category 18"),
        ("odd polygon", "polygons as lists of x, y, x, y, … for annotation 100"),
        ("polygon of text", "polygons as lists"),
        ("polygon of NaN", "polygons as lists"),
        ("flat polygon", "polygons as lists"),
        ("text", "a segmentation of polygons or run lengths for annotation 100"),
        ("runs without counts", "a segmentation of polygons or run lengths"),
        ("turned size", r"a size of \[12, 16\] for annotation 100 .*, got \[16, 12\]"),
        ("no size", r"a size of \[12, 16\] .*, got None"),
    ],
)
def test_files_that_are_wrong(street, change, message):
    changed(street, change)
    with pytest.raises(ValueError, match=f"coco_segmentation: expected .*{message}") as caught:
        street.load()
    assert str(street.file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"images": 1}', "\xff"])
def test_files_that_are_no_json(folder, text):
    folder.file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"coco_segmentation: .*instances.json"):
        coco_segmentation(folder.file, folder.images)
    with pytest.raises(FileNotFoundError):
        coco_segmentation(folder.images / "nothing.json", folder.images)


def test_no_images(folder):
    with pytest.raises(ValueError, match=r"images in .*instances\.json, got none"):
        folder.load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corrupt": "no"}, "coco_segmentation: expected corrupt to be one of"),
        ({"interpolation": "no"}, "coco_segmentation: expected interpolation to be one of"),
        ({"channels": 2}, "coco_segmentation: expected channels"),
        ({"size": (0, 4)}, "coco_segmentation: expected image_size"),
        ({"threads": -1}, "expected threads to be at least 0"),
    ],
)
def test_bad_arguments(street, options, message):
    with pytest.raises(ValueError, match=message):
        street.load(**options)


def test_without_pillow(street, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="coco_segmentation: needs Pillow: pip install 'convkit"):
        street.load()
