"""Noise: spatial dropout and normal numbers, as kernels on every backend and as layers."""

from __future__ import annotations

import numpy as np
import philox
import pytest
from checkers import assert_same_bits, assert_within, guarded, to_first, to_last
from devices import DEVICES
from test_planner import trained
from tiles import TILE, from_tiles, to_tiles

import convkit
from convkit import _core, layers, optimizers
from convkit.graph import SOURCE_TYPES
from convkit.layers import Input
from convkit.models import Model, Sequential

every_backend = pytest.mark.parametrize(
    "backend", [*_core.available_backends(), *DEVICES], indirect=True
)
every_set = pytest.mark.parametrize("backend", _core.available_backends(), indirect=True)

SEED, STEP, STREAM = 2**33 + 5, 2**32 + 77, 3
RANDOM = np.array([SEED, STEP])
IMAGES = [(1, 1), (5, 3), (7, 4), (12, 17), (3, 64), (9, 6), (4, 2)]  # rows, channels
SIZES = [1, 2, 3, 4, 10, 16, 17, 31, 49, 100]


def call(kernel: str, spec, x: np.ndarray, n: int) -> np.ndarray:
    """A kernel's result, guarded; in place it must be the same."""
    name = x.dtype.name
    y, untouched = guarded(np.full_like(x, np.nan))
    _core.run_kernel(kernel, spec, n, name, [x, RANDOM], [y])
    assert untouched()
    in_place = x.copy()
    _core.run_kernel(kernel, spec, n, name, [in_place, RANDOM], [in_place])
    assert_same_bits(in_place, y)
    return y


def in_parts(kernel: str, spec, x: np.ndarray, size: int, tiles_at_once: int) -> np.ndarray:
    """A kernel for tiles in a program, which takes the batch in parts; rows in and out."""
    name, width = x.dtype.name, x.dtype.itemsize
    program = _core.Program(name)
    given = x[0].size
    fed, state = program.fed(width, given), program.state(8, 2)
    result = program.fed(width, size)
    before, after = program.tile(width, given), program.tile(width, size)
    rows = _core.Gather(size=given, type=SOURCE_TYPES[name], scale=1, offset=0)
    program.node("tile_gather", rows, [fed, -1, before], True)
    program.node(kernel, spec, [before, state, after], True)
    program.node("untile", _core.Elementwise(size=size), [after, result], True)
    program.set_tiles_at_once(tiles_at_once)
    y = np.zeros((len(x), size), x.dtype)
    for value, array in ((fed, x), (state, RANDOM), (result, y)):
        program.bind(value, array)
    program.run(0, len(x), len(x), 1e9)
    return y


# ---- spatial dropout ---------------------------------------------------------------------------


def dropped(n: int, channels: int, rate: float) -> np.ndarray:
    numbers = philox.of_elements(SEED, STEP, STREAM, n * channels)
    return (philox.uniform(numbers) < rate).reshape(n, 1, channels)


def spatial(rows: int, channels: int, rate: float = 0.4):
    return _core.SpatialDropout(rows=rows, channels=channels, stream=STREAM, rate=rate)


@every_backend
@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize(("rows", "channels"), [*IMAGES, (999, 17), (40000, 1), (1, 70001)])
def test_spatial_dropout_drops_what_philox_says(backend, rows, channels, n, dtype, rng):
    x = rng.normal(size=(n, rows, channels)).astype(dtype)
    x[..., -1:, -1:] = np.nan
    y = call("spatial_dropout", spatial(rows, channels), x, n)
    gone = np.broadcast_to(dropped(n, channels, 0.4), x.shape)
    assert_same_bits(y, np.where(gone, dtype(0), x * dtype(1 / 0.6)))


@every_set
@pytest.mark.parametrize("n", [1, 5, 16, 37])
@pytest.mark.parametrize(("rows", "channels"), IMAGES)
def test_spatial_dropout_in_tiles(backend, rows, channels, n, dtype, rng):
    x = rng.normal(size=(n, rows, channels)).astype(dtype)
    spec = spatial(rows, channels)
    right = call("spatial_dropout", spec, x, n)
    assert_same_bits(from_tiles(call("tile_spatial_dropout", spec, to_tiles(x), n), n), right)
    for tiles_at_once in (1, 2):
        y = in_parts("tile_spatial_dropout", spec, x, rows * channels, tiles_at_once)
        assert_same_bits(y.reshape(x.shape), right)


def test_spatial_dropout_drops_its_share_of_channels():
    x = np.full((400, 3, 2, 50), 3, np.float32)
    for rate in (0.1, 0.5, 0.9):
        y = layers.SpatialDropout2D(rate, seed=1)(x, training=True)
        kept = y[:, 0, 0] != 0
        np.testing.assert_array_equal(y != 0, np.broadcast_to(kept[:, None, None], x.shape))
        np.testing.assert_allclose(y[y != 0], 3 / (1 - rate), rtol=1e-6)
        limit = 5 * np.sqrt(rate * (1 - rate) / kept.size)
        assert abs(1 - kept.mean() - rate) < limit
        for axis in (0, 1):  # no pattern
            limit = 6 * np.sqrt(rate * (1 - rate) / kept.shape[axis])
            assert np.abs(1 - kept.mean(axis=axis) - rate).max() < limit


# ---- gaussian noise ----------------------------------------------------------------------------


def noise(size: int, stddev: float = 0.7):
    return _core.GaussianNoise(size=size, stream=STREAM, stddev=stddev)


def assert_noisy(y: np.ndarray, x: np.ndarray, stddev: float = 0.7) -> None:
    z = philox.normal(SEED, STEP, STREAM, x.size).reshape(x.shape)
    right = x.astype(np.float64) + stddev * z
    # The logarithm, the root, the series and three products: some units in the last place each;
    # and the rounding of the angle in the reference, up to 2 pi.
    bound = np.finfo(x.dtype).eps * (16 * np.abs(stddev * z) + np.abs(right)) + 8e-15
    assert_within(y, right, bound, x.dtype)


@every_backend
@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("size", [*SIZES, 30001])
def test_gaussian_noise_adds_what_philox_says(backend, size, n, dtype, rng):
    x = rng.normal(size=(n, size)).astype(dtype)
    assert_noisy(call("gaussian_noise", noise(size), x, n), x)


@every_set
@pytest.mark.parametrize("n", [1, 5, 16, 37])
@pytest.mark.parametrize("size", SIZES)
def test_gaussian_noise_in_tiles(backend, size, n, dtype, rng):
    x = rng.normal(size=(n, size)).astype(dtype)
    spec = noise(size)
    right = call("gaussian_noise", spec, x, n)
    assert_noisy(right, x)
    assert_same_bits(from_tiles(call("tile_gaussian_noise", spec, to_tiles(x), n), n), right)
    for tiles_at_once in (1, 2):
        assert_same_bits(in_parts("tile_gaussian_noise", spec, x, size, tiles_at_once), right)


@every_backend
def test_noise_is_normal(backend, dtype):
    count = 2**16 if backend in DEVICES else 2**21
    spec, zeros = noise(count, 1.0), np.zeros((1, count), dtype)
    (z,) = _core.run_kernel("gaussian_noise", spec, 1, dtype.__name__, [zeros, RANDOM], [(count,)])
    z = z.astype(np.float64)
    # Moments of the normal distribution, to five standard deviations of theirs.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - mean) < 5 * np.sqrt(variance / count)
    for distance in (1, 2, 3, 4):  # neighbours know nothing of each other, nor do their sizes
        assert abs(np.mean(z[distance:] * z[:-distance])) < 5 / np.sqrt(count)
        assert abs(np.mean((z[distance:] ** 2 - 1) * (z[:-distance] ** 2 - 1))) < 10 / np.sqrt(
            count
        )
    for level, share in ((0.5, 0.6914624613), (1, 0.8413447461), (2, 0.9772498681)):
        for signed in (z, -z):
            limit = 5 * np.sqrt(share * (1 - share) / count)
            assert abs(np.mean(signed < level) - share) < limit
    assert np.isfinite(z).all() and np.abs(z).max() < 5.8


# ---- layers ------------------------------------------------------------------------------------

NOISY = [
    lambda **options: layers.SpatialDropout2D(0.5, **options),
    lambda **options: layers.GaussianNoise(0.5, **options),
]
every_layer = pytest.mark.parametrize("make", NOISY, ids=["spatial_dropout", "gaussian_noise"])


@every_layer
def test_at_inference_nothing_happens(make, rng):
    x = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(make()(x), x)
    model = Sequential([Input((4, 5, 6)), make()])
    np.testing.assert_array_equal(model.predict(x), x)
    np.testing.assert_array_equal(layers.SpatialDropout2D(0.0)(x, training=True), x)
    np.testing.assert_array_equal(layers.GaussianNoise(0.0)(x, training=True), x)


@every_layer
def test_a_seed_draws_the_same_and_goes_on_drawing(make):
    x = np.ones((4, 3, 2, 20), np.float32)
    first, second = make(seed=9), make(seed=9)
    draws = [first(x, training=True) for _ in range(3)]
    for draw in draws:
        np.testing.assert_array_equal(second(x, training=True), draw)
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[1], draws[2])
    assert not np.array_equal(make(seed=10)(x, training=True), draws[0])
    convkit.utils.set_random_seed(0)
    assert not np.array_equal(make()(x, training=True), make()(x, training=True))


@every_layer
@pytest.mark.parametrize("n", [3, 40])  # breadth-first and depth-first
def test_a_program_draws_what_a_call_draws(make, n):
    x = np.random.default_rng(1).random((n, 3, 2, 5), np.float32)
    eager = make(seed=4)
    identity = layers.Dense(5, use_bias=False, kernel_initializer=lambda s, d: np.eye(5, dtype=d))
    model = Sequential([Input((3, 2, 5)), make(seed=4), identity])
    model.compile(optimizers.SGD(0.0), "mse")
    for _ in range(3):
        loss = model.train_on_batch(x, np.zeros_like(x))
        assert loss == pytest.approx(float(np.mean(eager(x, training=True) ** 2)), rel=1e-6)


@every_layer
def test_a_layer_in_two_places_draws_for_each(make):
    x = Input((10, 10, 50))
    layer = make(seed=1)
    model = Model(x, layers.Add()([layer(x), layer(x)]))
    model.compile("sgd", "mse")
    loss = model.train_on_batch(np.ones((40, 10, 10, 50)), np.zeros((40, 10, 10, 50)))
    # The variances of two draws add up: the mean is 2, its square 4. One draw twice: 4 (1 + v).
    variance = 1 if isinstance(layer, layers.SpatialDropout2D) else 0.25
    assert loss == pytest.approx(4 + 2 * variance, abs=0.25 * variance)


def noisy_network() -> Sequential:
    return Sequential(
        [
            layers.Conv2D(5, 3, activation="relu", input_shape=(9, 7, 2)),
            layers.SpatialDropout2D(0.3, seed=5),
            layers.GaussianNoise(0.1, seed=6),
            layers.Conv2D(3, 3, activation="tanh"),
            layers.GaussianNoise(0.2, seed=7),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def test_both_schedules_train_alike():
    expected, logs, _ = trained(noisy_network, False, dtype="float64")
    weights, tiled_logs, step = trained(noisy_network, True, dtype="float64")
    tiled = {one.kernel for one in step.program.steps if one.tiled}
    assert {"tile_spatial_dropout", "tile_gaussian_noise"} <= tiled
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert tiled_logs == pytest.approx(logs, abs=1e-10)


@pytest.mark.parametrize("depth_first", [False, True])
def test_bits_do_not_depend_on_threads(threads, depth_first):
    found = set()
    for count in (1, 2, 3):
        threads(count)
        weights, _, _ = trained(noisy_network, depth_first, n=100, batch=70)
        found.add(b"".join(weight.tobytes() for weight in weights))
    assert len(found) == 1


def test_gradients_pass_the_noise_and_the_channels_that_were_kept(rng):
    """Of a linear network the gradient of the sum of outputs is known."""
    x = rng.normal(size=(7, 1, 1, 6))
    for make, passes in (
        (lambda: layers.GaussianNoise(0.5, seed=3, dtype="float64"), False),
        (lambda: layers.SpatialDropout2D(0.5, seed=3, dtype="float64"), True),
    ):
        noisy = make()(np.ones((7, 1, 1, 4)), training=True)
        first = layers.Dense(4, use_bias=False, dtype="float64")
        model = Sequential([Input((1, 1, 6), dtype="float64"), first, make()])
        model.compile(optimizers.SGD(1.0), "mae")
        before = first.get_weights()[0]
        model.train_on_batch(x, np.full((7, 1, 1, 4), -1e6))  # all differences are above zero
        gradient = before - first.get_weights()[0]
        factors = noisy if passes else np.ones_like(noisy)
        right = np.einsum("nabi,nabo->io", x, factors) / factors.size
        np.testing.assert_allclose(gradient, right, rtol=1e-9, atol=1e-12)


def test_channels_first(rng):
    x = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    right = layers.SpatialDropout2D(0.5, seed=2)(x, training=True)
    first = layers.SpatialDropout2D(0.5, data_format="channels_first", seed=2)
    np.testing.assert_array_equal(to_last(first(to_first(x), training=True)), right)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.SpatialDropout2D(1.0), "0 <= rate < 1, got 1.0"),
        (lambda: layers.SpatialDropout2D(0.5, "last"), "data_format to be one of"),
        (lambda: layers.SpatialDropout2D(0.5, seed=-1), "seed to be at least 0, got -1"),
        (lambda: layers.SpatialDropout2D(0.5)(np.ones((2, 3))), r"shape \(N, H, W, C\), got"),
        (lambda: layers.GaussianNoise(1.5), "0 <= stddev <= 1, got 1.5"),
        (lambda: layers.GaussianNoise(float("nan")), "<= stddev <"),
        (lambda: layers.GaussianNoise("a"), "stddev to be a number"),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_configurations_make_the_layer_again():
    for layer in (layers.SpatialDropout2D(0.3, "channels_first", 5), layers.GaussianNoise(0.2)):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()


def test_no_samples_are_no_tiles(dtype):
    nothing = np.zeros((0, 4, 3, TILE), dtype)
    for kernel, spec in (
        ("tile_spatial_dropout", spatial(4, 3)),
        ("tile_gaussian_noise", noise(12)),
    ):
        assert call(kernel, spec, nothing, 0).size == 0
