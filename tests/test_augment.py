"""Augmentation: flips, crops, shifts, turns, zooms and contrast, as kernels on every backend and as
layers."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import philox
import pytest
import reference
from checkers import assert_same_bits, assert_within, guarded, to_first, to_last
from devices import DEVICES, emulator
from test_noise import RANDOM, SEED, STEP, STREAM, call, every_backend, every_set, in_parts
from test_planner import trained
from tiles import from_tiles, to_tiles

import convkit
from convkit import _core, layers, utils
from convkit.layers import Input
from convkit.layers.augmentation import FILL_MODES
from convkit.models import Sequential

# ---- random_transform, against Philox and a naive sampling -------------------------------------

UNCHANGED = {
    "crop": 0,
    "bilinear": 1,
    "fill": 2,
    "fill_value": 0.0,
    "flip_horizontal": 0.0,
    "flip_vertical": 0.0,
    **dict.fromkeys(("angle_low", "angle_high"), 0.0),
    **dict.fromkeys(("shift_height_low", "shift_height_high"), 0.0),
    **dict.fromkeys(("shift_width_low", "shift_width_high"), 0.0),
    **dict.fromkeys(("zoom_height_low", "zoom_height_high"), 1.0),
    **dict.fromkeys(("zoom_width_low", "zoom_width_high"), 1.0),
    "zoom_both": 0,
}
SHIFTS = {"shift_height_low": -0.4, "shift_height_high": 0.3, "shift_width_low": -1.0}
TURNS = {"angle_low": -3.0, "angle_high": 2.0}
ZOOMS = {
    "zoom_height_low": 0.5,
    "zoom_height_high": 1.9,
    "zoom_width_low": 0.8,
    "zoom_width_high": 2.0,
}
BOTH = {"flip_horizontal": 0.5, "flip_vertical": 0.5}
COPIES = {
    "unchanged": {},
    "horizontal": {"flip_horizontal": 0.5},
    "vertical": {"flip_vertical": 0.7},
    "both": BOTH,
    "always": {"flip_horizontal": 1.0, "flip_vertical": 1.0},
    "crop": {"crop": 1},
    "crop_and_flip": {"crop": 1, **BOTH},
}
MOVES = {
    "shift": SHIFTS,
    "turn": TURNS,
    "zoom": ZOOMS,
    "zoom_both": {**ZOOMS, "zoom_both": 1},
    "all": {**SHIFTS, **TURNS, **ZOOMS, **BOTH},
    "far": {"shift_width_low": -5.0, "shift_height_high": 7.0, "zoom_height_high": 3.0},
}
IMAGES = [(1, 1, 1), (5, 7, 1), (6, 5, 3), (4, 9, 4), (8, 8, 17), (2, 3, 6), (1, 6, 2)]


def spec(image: tuple[int, int, int], changes: dict[str, Any]):
    height, width, channels = image
    less = (height // 3, width // 2) if changes.get("crop") else (0, 0)
    return _core.RandomTransform(
        height=height,
        width=width,
        channels=channels,
        out_height=height - less[0],
        out_width=width - less[1],
        stream=STREAM,
        **{**UNCHANGED, **changes},
    )


@functools.cache
def pictures(image: tuple[int, int, int], n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, *image)).astype(np.float32)


def drawn(n: int) -> np.ndarray:
    return philox.of_samples(SEED, STEP, STREAM, n, 8)


def copied(s: Any, x: np.ndarray) -> np.ndarray:
    """Crops, then flips."""
    y = []
    for image, numbers in zip(x, drawn(len(x)), strict=True):
        top = (s.height - s.out_height + 1) * int(numbers[3]) >> 32
        left = (s.width - s.out_width + 1) * int(numbers[4]) >> 32
        part = image[top : top + s.out_height, left : left + s.out_width]
        across, down = philox.uniform(numbers[:2]) < (s.flip_horizontal, s.flip_vertical)
        y.append(part[:: -1 if down else 1, :: -1 if across else 1])
    shape = (len(x), s.out_height, s.out_width, s.channels)
    return np.array(y, x.dtype).reshape(shape)


def moved(s: Any, x: np.ndarray) -> np.ndarray:
    """Where (i, j) of the result comes from: flipped, turned, zoomed, shifted, about the centre."""
    rows, columns = np.zeros((2, len(x), 3))
    middle = np.array([(s.height - 1) / 2, (s.width - 1) / 2])
    for k, numbers in enumerate(drawn(len(x))):
        u = philox.uniform(numbers)

        def between(name: str, u: float) -> float:
            low, high = getattr(s, f"{name}_low"), getattr(s, f"{name}_high")
            return low + u * (high - low)

        flip = np.diag([-1.0 if u[1] < s.flip_vertical else 1, 1 - 2 * (u[0] < s.flip_horizontal)])
        angle = between("angle", u[2])
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        tall = between("zoom_height", u[5])
        wide = tall if s.zoom_both else between("zoom_width", u[6])
        matrix = np.diag([tall, wide]) @ turn @ flip
        shift = between("shift_height", u[3]) * s.height, between("shift_width", u[4]) * s.width
        at = middle - shift - matrix @ middle
        rows[k], columns[k] = (at[0], *matrix[0]), (at[1], *matrix[1])
    return reference.affine_transform(
        x,
        rows,
        columns,
        bilinear=bool(s.bilinear),
        fill_mode=FILL_MODES[s.fill],
        fill_value=s.fill_value,
    )


@functools.cache
def expected(image: tuple[int, int, int], n: int, name: str, bilinear: int, fill: int):
    changes = {**MOVES[name], "bilinear": bilinear, "fill": fill, "fill_value": 0.75}
    s = spec(image, changes)
    return s, moved(s, pictures(image, n).astype(np.float64))


def run(kernel: str, s: Any, x: np.ndarray, n: int) -> np.ndarray:
    shape = (len(x), s.out_height, s.out_width, s.channels, *x.shape[4:])
    y, untouched = guarded(np.full(shape, np.nan, x.dtype))
    _core.run_kernel(kernel, s, n, x.dtype.name, [guarded(x)[0], RANDOM], [y])
    assert untouched()
    return y


@every_backend
@pytest.mark.parametrize("n", [0, 1, 9])
@pytest.mark.parametrize("image", [*IMAGES, (161, 71, 7)])
@pytest.mark.parametrize("name", COPIES)
def test_flips_and_crops_are_copies(backend, name, image, n, dtype):
    x = pictures(image, n).astype(dtype)
    x[:, -1:, :1] = np.inf
    s = spec(image, COPIES[name])
    assert_same_bits(run("random_transform", s, x, n), copied(s, x))


@every_backend
@pytest.mark.parametrize("bilinear", [0, 1], ids=["nearest_pixel", "bilinear"])
@pytest.mark.parametrize("fill", range(4), ids=FILL_MODES)
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", MOVES)
def test_pixels_come_from_where_they_should(backend, name, image, fill, bilinear, dtype):
    n = 3
    s, right = expected(image, n, name, bilinear, fill)
    x = pictures(image, n).astype(dtype)
    # Three interpolations; coordinates and shares have 31 bits after the point.
    bound = (12 * np.finfo(dtype).eps + 2.0**-24) * max(4.0, np.abs(x).max()) if bilinear else 0
    assert_within(run("random_transform", s, x, n), right, bound, dtype)


@every_backend
def test_large_images(backend):
    """More values than the emulated device counts in 32 bits."""
    image, n = (61, 120, 3), 3
    x = pictures(image, n)
    s, right = expected(image, n, "all", 1, 2)
    bound = (12 * np.finfo(np.float32).eps + 2.0**-20) * np.abs(x).max()
    assert_within(run("random_transform", s, x, n), right, bound, np.float32)


@every_set
@pytest.mark.parametrize("n", [1, 5, 16, 37])
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", ["both", "crop", "all"])
def test_tiles_hold_what_the_batch_holds(backend, name, image, n, dtype):
    x = pictures(image, n).astype(dtype)
    s = spec(image, {**COPIES, **MOVES}[name])
    right = run("random_transform", s, x, n)
    tiled = run("tile_random_transform", s, to_tiles(x), n)
    assert_same_bits(from_tiles(tiled, n), right)
    size = s.out_height * s.out_width * s.channels
    for tiles_at_once in (1, 2):
        parts = in_parts("tile_random_transform", s, x, size, tiles_at_once)
        assert_same_bits(parts.reshape(right.shape), right)


@every_backend
def test_a_sample_does_not_see_the_others(backend, dtype):
    x = pictures((6, 5, 3), 37).astype(dtype)
    s = spec((6, 5, 3), MOVES["all"])
    whole = run("random_transform", s, x, 37)
    assert_same_bits(run("random_transform", s, x[:5], 5), whole[:5])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_change_no_bit(threads, count):
    x = pictures((61, 120, 3), 3)
    threads(1)
    for name in ("both", "all"):
        s = spec((61, 120, 3), {**COPIES, **MOVES}[name])
        threads(1)
        right = run("random_transform", s, x, 3)
        threads(count)
        assert_same_bits(run("random_transform", s, x, 3), right)


# ---- random_contrast ---------------------------------------------------------------------------


def contrast(rows: int, channels: int):
    return _core.RandomContrast(
        rows=rows, channels=channels, stream=STREAM, low=0.4, high=1.9, value_low=-0.8, value_high=1
    )


@every_backend
@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize(
    ("rows", "channels"), [(1, 1), (5, 3), (35, 4), (100, 17), (3, 600), (30000, 1), (700, 16)]
)
def test_contrast(backend, rows, channels, n, dtype, rng):
    x = rng.normal(size=(n, rows, channels)).astype(dtype)
    y = call("random_contrast", contrast(rows, channels), x, n)
    u = philox.uniform(philox.of_samples(SEED, STEP, STREAM, n, 4)[:, :1, None])
    wide = x.astype(np.float64)
    mean = wide.mean(axis=1, keepdims=True)
    right = np.clip((wide - mean) * (0.4 + 1.5 * u) + mean, -0.8, 1)
    bound = np.finfo(dtype).eps * (12 * np.abs(wide).max(initial=0) + np.sqrt(rows))
    assert_within(y, right, bound, dtype)


@every_backend
def test_contrast_keeps_a_nan(backend, dtype):
    x = np.zeros((2, 5, 2), dtype)
    x[1, 3, 1] = np.nan
    y = call("random_contrast", contrast(5, 2), x, 2)
    # The channel's mean is one, too.
    np.testing.assert_array_equal(np.isnan(y).any(axis=1), [[False, False], [False, True]])
    assert np.isnan(y[1, :, 1]).all()


@every_set
@pytest.mark.parametrize("n", [1, 5, 16, 37])
@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (5, 3), (35, 4), (100, 17), (16, 6)])
def test_contrast_in_tiles(backend, rows, channels, n, dtype, rng):
    x = rng.normal(size=(n, rows, channels)).astype(dtype)
    s = contrast(rows, channels)
    right = call("random_contrast", s, x, n)
    assert_same_bits(from_tiles(call("tile_random_contrast", s, to_tiles(x), n), n), right)
    for tiles_at_once in (1, 2):
        y = in_parts("tile_random_contrast", s, x, rows * channels, tiles_at_once)
        assert_same_bits(y.reshape(x.shape), right)


def test_no_samples_are_no_tiles(dtype):
    nothing = np.zeros((0, 4, 6, 3, 16), dtype)
    assert run("tile_random_transform", spec((4, 6, 3), TURNS), nothing, 0).size == 0
    flat = nothing.reshape(0, 24, 3, 16)
    assert call("tile_random_contrast", contrast(24, 3), flat, 0).size == 0


# ---- what is drawn -----------------------------------------------------------------------------


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """All of low .. high and nothing else, evenly: Kolmogorov and Smirnov's test."""
    n = len(values)
    slack = 1e-5 * (high - low)
    assert low - slack <= values.min() and values.max() <= high + slack
    gap = np.abs((np.sort(values) - low) / (high - low) - (np.arange(n) + 0.5) / n).max()
    assert gap * np.sqrt(n) < 2.0  # one in a thousand is larger


def assert_independent(first: np.ndarray, second: np.ndarray) -> None:
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(len(first))


def in_training(layer: Any, image: np.ndarray, n: int) -> np.ndarray:
    """n results of one image, without channels, in float64."""
    x = np.broadcast_to(image[None, :, :, None], (n, *image.shape, 1))
    return layer(x, training=True)[..., 0].astype(np.float64)


def test_each_flip_happens_half_of_the_time():
    n, image = 4000, np.array([[0.0, 1], [2, 3]])
    for mode, allowed in (
        ("horizontal", [0, 1]),
        ("vertical", [0, 2]),
        ("horizontal_and_vertical", [0, 1, 2, 3]),
    ):
        first = in_training(layers.RandomFlip(mode, seed=1), image, n)[:, 0, 0]
        values, counts = np.unique(first, return_counts=True)
        assert values.tolist() == allowed
        assert np.abs(counts - n / len(allowed)).max() < 5 * np.sqrt(n / len(allowed))


def test_crops_are_taken_everywhere_alike():
    image = np.arange(9.0 * 11).reshape(9, 11)
    places, each = 7 * 8, 100
    y = in_training(layers.RandomCrop(3, 4, seed=1), image, places * each)
    np.testing.assert_array_equal(y, y[:, :1, :1] + image[:3, :4])
    counts = np.unique(y[:, 0, 0], return_counts=True)[1]
    assert len(counts) == places
    square = np.sum((counts - each) ** 2 / each)
    assert abs(square - (places - 1)) < 5 * np.sqrt(2 * (places - 1))


def test_shifts_are_uniform():
    rows, columns = np.mgrid[:101, :51].astype(np.float64)
    options = {"seed": 2, "fill_mode": "nearest", "dtype": "float64"}
    found = []
    for image in (rows, columns):
        layer = layers.RandomTranslation((-0.2, 0.3), 0.25, **options)
        found.append(image[50, 25] - in_training(layer, image, 3000)[:, 50, 25])
    assert_uniform(found[0] / 101, -0.2, 0.3)
    assert_uniform(found[1] / 51, -0.25, 0.25)
    assert_independent(*found)


def test_angles_are_uniform():
    columns = np.mgrid[:9, :9].astype(np.float64)[1]
    for factor, low, high in ((0.2, -0.2, 0.2), ((-0.1, 0.4), -0.1, 0.4)):
        y = in_training(layers.RandomRotation(factor, seed=3, dtype="float64"), columns, 3000)
        angle = np.arctan2(y[:, 4, 4] - y[:, 5, 4], y[:, 4, 5] - y[:, 4, 4])
        assert_uniform(angle / (2 * np.pi), low, high)


def test_zooms_are_uniform():
    rows, columns = np.mgrid[:9, :9].astype(np.float64)
    options = {"seed": 4, "dtype": "float64"}

    def zooms(*factors: Any) -> tuple[np.ndarray, np.ndarray]:
        down = in_training(layers.RandomZoom(*factors, **options), rows, 3000)
        right = in_training(layers.RandomZoom(*factors, **options), columns, 3000)
        np.testing.assert_allclose(down[:, 4, 4], 4, atol=1e-8)  # the centre stays
        return down[:, 5, 4] - down[:, 4, 4], right[:, 4, 5] - right[:, 4, 4]

    tall, wide = zooms((-0.3, 0.5), 0.2)
    assert_uniform(tall, 0.7, 1.5)
    assert_uniform(wide, 0.8, 1.2)
    assert_independent(tall, wide)
    tall, wide = zooms(0.4)
    assert_uniform(tall, 0.6, 1.4)
    np.testing.assert_allclose(tall, wide, atol=1e-8)


def test_contrasts_are_uniform():
    image = np.array([[0.25, 0.75]])
    for factor, low, high in ((0.4, 0.6, 1.4), ((0.1, 0.8), 0.9, 1.8)):
        layer = layers.RandomContrast(factor, value_range=(-9, 9), seed=5, dtype="float64")
        y = in_training(layer, image, 3000)[:, 0]
        assert_uniform((y[:, 1] - y[:, 0]) * 2, low, high)
        np.testing.assert_allclose(y.mean(axis=1), 0.5)


# ---- layers with a factor that is given, as Keras ----------------------------------------------

SIDES = (9, 7)


def keras_matrix(name: str) -> np.ndarray:
    """(a0, a1, a2, b0, b1, b2) of Keras's affine_transform: x' = a0 x + a1 y + a2, and y'."""
    height, width = SIDES
    if name == "translation":  # (0.21, -0.33)
        return np.array([1, 0, 0.33 * width, 0, 1, -0.21 * height])
    if name == "zoom":  # (0.37, -0.2)
        return np.array([0.8, 0, 0.2 * (width - 1) / 2, 0, 1.37, -0.37 * (height - 1) / 2])
    angle, x, y = 2 * np.pi * 0.07, (width - 1) / 2, (height - 1) / 2
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array(
        [cosine, -sine, x - x * cosine + y * sine, sine, cosine, y - x * sine - y * cosine]
    )


FIXED = {
    "translation": lambda **o: layers.RandomTranslation((0.21, 0.21), (-0.33, -0.33), **o),
    "rotation": lambda **o: layers.RandomRotation((0.07, 0.07), **o),
    "zoom": lambda **o: layers.RandomZoom((0.37, 0.37), (-0.2, -0.2), **o),
}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("name", FIXED)
def test_a_layer_samples_as_keras_does(name, fill_mode, interpolation, dtype):
    x = pictures((*SIDES, 3), 4).astype(dtype)
    options = {"fill_mode": fill_mode, "interpolation": interpolation, "fill_value": 0.25}
    y = FIXED[name](**options, dtype=np.dtype(dtype).name)(x, training=True)
    a0, a1, a2, b0, b1, b2 = keras_matrix(name)
    right = reference.affine_transform(
        x.astype(np.float64),
        np.tile([b2, b1, b0], (4, 1)),
        np.tile([a2, a1, a0], (4, 1)),
        bilinear=interpolation == "bilinear",
        fill_mode=fill_mode,
        fill_value=0.25,
    )
    np.testing.assert_allclose(y, right, atol=2e-6 if dtype == np.float32 else 1e-7)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_quarters_of_a_turn_are_copies(interpolation, dtype):
    x = pictures((8, 8, 3), 2).astype(dtype)
    for quarters in (-2, -1, 0, 1, 2, 3):
        factor = (quarters / 4, quarters / 4)
        layer = layers.RandomRotation(
            factor, interpolation=interpolation, dtype=np.dtype(dtype).name
        )
        right = np.rot90(x, quarters, axes=(1, 2))  # counter-clockwise
        np.testing.assert_array_equal(layer(x, training=True), right)


@pytest.mark.parametrize("mode", ["constant", "wrap", "nearest", "reflect"])
def test_shifts_by_whole_pixels_are_copies(mode, dtype):
    x = pictures((8, 4, 3), 2).astype(dtype)
    layer = layers.RandomTranslation(
        (0.25, 0.25), (-0.25, -0.25), mode, fill_value=7, dtype=np.dtype(dtype).name
    )
    padded = np.pad(
        x,
        ((0, 0), (2, 0), (0, 1), (0, 0)),
        {"nearest": "edge", "reflect": "symmetric"}.get(mode, mode),
        **({"constant_values": 7} if mode == "constant" else {}),
    )
    np.testing.assert_array_equal(layer(x, training=True), padded[:, :8, 1:])


# ---- layers ------------------------------------------------------------------------------------

LAYERS = {
    "flip": lambda **o: layers.RandomFlip(**o),
    "translation": lambda **o: layers.RandomTranslation(0.3, 0.2, **o),
    "rotation": lambda **o: layers.RandomRotation(0.1, **o),
    "zoom": lambda **o: layers.RandomZoom(0.4, **o),
    "crop": lambda **o: layers.RandomCrop(5, 4, **o),
    "contrast": lambda **o: layers.RandomContrast(0.5, (-9, 9), **o),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


@every_layer
def test_at_inference_images_pass(make):
    x = pictures((8, 7, 3), 5)
    layer = make()
    right = x[:, 1:6, 1:5] if isinstance(layer, layers.RandomCrop) else x
    np.testing.assert_array_equal(layer(x), right)
    model = Sequential([Input((8, 7, 3)), layer])
    assert model.output_shape == (None, *right.shape[1:])
    np.testing.assert_array_equal(model.predict(x), right)
    assert layer.compute_output_shape((None, 8, 7, 3)) == (None, *right.shape[1:])


@every_layer
def test_a_seed_draws_the_same_and_goes_on_drawing(make):
    x = pictures((8, 7, 3), 5)
    first, second = make(seed=9), make(seed=9)
    draws = [first(x, training=True) for _ in range(3)]
    for draw in draws:
        np.testing.assert_array_equal(second(x, training=True), draw)
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[1], draws[2])
    assert not np.array_equal(make(seed=10)(x, training=True), draws[0])
    utils.set_random_seed(0)
    assert not np.array_equal(make()(x, training=True), make()(x, training=True))


@every_layer
@pytest.mark.parametrize("n", [3, 40])  # breadth-first and depth-first
def test_a_program_draws_what_a_call_draws(make, n):
    x = pictures((8, 7, 3), n)
    eager = make(seed=4)
    identity = layers.Dense(3, use_bias=False, kernel_initializer=lambda s, d: np.eye(3, dtype=d))
    model = Sequential([Input((8, 7, 3)), make(seed=4), identity])
    model.compile(convkit.optimizers.SGD(0.0), "mse")
    for _ in range(3):
        right = eager(x, training=True)
        loss = model.train_on_batch(x, np.zeros_like(right))
        assert loss == pytest.approx(float(np.mean(right.astype(np.float64) ** 2)), rel=1e-5)


@every_layer
def test_channels_first(make):
    x = pictures((8, 7, 3), 5)
    for training in (False, True):
        right = make(seed=1)(x, training=training)
        y = make(seed=1, data_format="channels_first")(to_first(x), training=training)
        np.testing.assert_array_equal(to_last(y), right)


@every_layer
def test_configurations_make_the_layer_again(make):
    layer = make(seed=1)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    x = pictures((8, 7, 3), 5)
    np.testing.assert_array_equal(again(x, training=True), layer(x, training=True))


def augmented() -> Sequential:
    return Sequential(
        [
            layers.RandomFlip("horizontal", seed=1, input_shape=(9, 8, 3)),
            layers.RandomTranslation(0.2, 0.1, seed=2),
            layers.RandomRotation(0.05, seed=3),
            layers.RandomZoom(0.1, seed=4),
            layers.RandomContrast(0.3, seed=5),
            layers.RandomCrop(7, 7, seed=6),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "uint8"])
def test_both_schedules_train_alike(pixels):
    expected, logs, _ = trained(augmented, False, dtype="float64", pixels=pixels)
    weights, tiled_logs, step = trained(augmented, True, dtype="float64", pixels=pixels)
    kernels = [one.kernel for one in step.program.steps if one.tiled]
    assert kernels.count("tile_random_transform") == 5
    assert kernels.count("tile_random_contrast") == 1
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert tiled_logs == pytest.approx(logs, abs=1e-10)


@pytest.mark.parametrize("depth_first", [False, True])
def test_bits_do_not_depend_on_threads(threads, depth_first):
    found = set()
    for count in (1, 2, 3):
        threads(count)
        weights, _, _ = trained(augmented, depth_first, n=100, batch=70, pixels=True)
        found.add(b"".join(weight.tobytes() for weight in weights))
    assert len(found) == 1


@pytest.mark.parametrize("batch_size", [4, 37])
def test_pixels_go_through_fit(batch_size):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 9, 8, 3), dtype=np.uint8)
    y = (x.mean(axis=(1, 2, 3)) > 127.5).astype(np.int32)
    x[y == 1] |= 0x40  # something to learn
    histories = []
    for _ in range(2):
        utils.set_random_seed(1)
        model = augmented()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        fitted = model.fit(x, y, batch_size=batch_size, epochs=3, verbose=0)
        histories.append(fitted.history["loss"])
    assert histories[0] == histories[1]
    assert histories[0][-1] < histories[0][0]
    assert model.predict(x).shape == (60, 5)


KERNELS = [
    name
    for name in DEVICES
    if name == "cuda_emulated" or importlib.util.find_spec("cupy") is not None
]


@pytest.fixture(params=KERNELS or [pytest.param("", marks=pytest.mark.skip("no device"))])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    if request.param == "cuda_emulated":
        emulator().emulator_recover()


def test_a_gpu_trains_on_the_same_images(cp):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (37, 9, 8, 3), dtype=np.uint8)
    y = rng.integers(0, 5, 37)
    states = []
    for where in ("cpu", "cuda"):
        utils.set_random_seed(1)
        model = augmented()
        model.compile(convkit.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, device=where)
        states.append([v.numpy() for v in model.weights])
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, 5e-5, 5e-5)


@every_layer
def test_arrays_on_a_gpu(cp, make):
    x = pictures((8, 7, 3), 5)
    here, there = make(seed=3), make(seed=3)
    for _ in range(2):
        right = here(x, training=True)
        y = there(cp.asarray(x), training=True)
        np.testing.assert_allclose(cp.asnumpy(y), right, rtol=0, atol=2e-6)


def test_what_is_trained_must_come_behind():
    model = Sequential([layers.Conv2D(3, 3, input_shape=(6, 6, 1)), layers.RandomFlip()])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="expected kernels with a gradient, got random_transform"):
        model.train_on_batch(np.zeros((2, 6, 6, 1)), np.zeros((2, 4, 4, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.RandomFlip("sideways"), "mode to be one of 'horizontal'"),
        (lambda: layers.RandomFlip(seed=-1), "seed to be at least 0, got -1"),
        (lambda: layers.RandomFlip()(np.zeros((2, 3))), r"shape \(N, H, W, C\), got \(2, 3\)"),
        (lambda: layers.RandomTranslation(1.5, 0), "-1 <= height_factor <= 1, got 1.5"),
        (lambda: layers.RandomTranslation(0, (0, -2)), "-1 <= width_factor <= 1, got -2"),
        (lambda: layers.RandomTranslation(0, "a"), "width_factor to be a number"),
        (lambda: layers.RandomTranslation(0, (1, 0, 1)), "width_factor to be a number or two"),
        (lambda: layers.RandomTranslation(0, 0, "mirror"), "fill_mode to be one of 'constant'"),
        (lambda: layers.RandomTranslation(0, 0, "wrap", "cubic"), "interpolation to be one of"),
        (lambda: layers.RandomTranslation(0, 0, fill_value="x"), "fill_value to be a number"),
        (lambda: layers.RandomRotation(2), "-1 <= factor <= 1, got 2"),
        (lambda: layers.RandomZoom(-1), "-1 < height_factor <= 1, got -1"),
        (lambda: layers.RandomZoom(0, (-1, 0)), "-1 < width_factor <= 1"),
        (lambda: layers.RandomCrop(0, 3), "height to be at least 1, got 0"),
        (
            lambda: layers.RandomCrop(5, 3)(np.zeros((2, 4, 4, 1))),
            "images of at least 5 x 3 pixels, got 4 x 4",
        ),
        (lambda: layers.RandomContrast(1.5), "lower <= 1"),
        (lambda: layers.RandomContrast((-0.5, 0.2)), "lower <= 1"),
        (lambda: layers.RandomContrast(0.5, 255), "value_range to be two numbers, got 255"),
        (lambda: layers.RandomContrast(0.5, (1, 0)), r"value_range \(low, high\)"),
        (
            lambda: layers.RandomFlip().build((None, 2**24 + 1, 3, 1)),
            "images of at most 16777216 pixels a side",
        ),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
