"""Convolution, max-pooling and activation in one on tiles, and the way back to the convolution."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import reference
import winograd
from cases import CONV2D, Case, arrays, conv, upstream
from checkers import (
    assert_exact,
    assert_same_bits,
    assert_within,
    expected,
    forward,
    gamma,
    guarded,
    sizes,
)
from tiles import TILE, from_tiles, gradient_to_tiles, to_tiles

from convkit import _core, geometry

pytestmark = pytest.mark.usefixtures("backend")

SLOPE = 0.25
KINDS = {"linear": -1, **geometry.ACTIVATION_KINDS}

# What the shared table lacks: blocks of pixels and filters of every size, also with borders.
MORE = [
    *(conv(f"{f}_filters", (1, 6, 11, 3), (3, 3, 3, f), padding="same") for f in (1, 2, 3, 4, 5)),
    *(conv(f"{f}_filters", (1, 5, 9, 2), (2, 3, 2, f), padding=1) for f in (7, 8, 12, 13, 24, 25)),
    conv("grouped_borders", (1, 7, 9, 6), (3, 3, 3, 14), groups=2, padding=((2, 0), (0, 3))),
    conv("dilated_borders", (1, 9, 12, 3), (3, 3, 3, 5), dilation_rate=(3, 2), padding="same"),
    conv("windows_in_the_border", (1, 4, 5, 2), (2, 2, 2, 3), padding=4),
    conv("strided_borders", (1, 12, 17, 2), (4, 5, 2, 7), strides=(2, 3), padding="same"),
]
# What goes by Winograd's windows of 2 x 2: sizes that they do not fill, borders on every side.
WINDOWS = [
    conv("windows_even", (1, 14, 14, 24), (3, 3, 24, 40), padding="same"),
    conv("windows_odd", (1, 9, 13, 48), (3, 3, 48, 33)),
    conv("windows_prime_channels", (1, 14, 15, 17), (3, 3, 17, 37), padding=1, bias=False),
    conv("windows_padded", (1, 13, 14, 40), (3, 3, 40, 40), padding=2),
    conv("windows_uneven", (1, 12, 13, 40), (3, 3, 40, 40), padding=((0, 2), (3, 1))),
    conv("windows_small", (1, 7, 7, 64), (3, 3, 64, 64), padding="same"),
    conv("large_windows_odd", (1, 11, 17, 12), (5, 5, 12, 33), bias=False),
    conv("large_windows_uneven", (1, 12, 13, 17), (5, 5, 17, 24), padding=((0, 4), (3, 1))),
    conv("large_windows_padded", (1, 7, 8, 20), (5, 5, 20, 37), padding=4),
]
SAMPLES = (5, 16, 37, 1)
POOLS = ((2, 2), (1, 1), (2, 2), (3, 3), (2, 2), (2, 1), (1, 3))


@dataclass(frozen=True)
class Fused:
    """A convolution's case, with a pool size and an activation."""

    conv: Case
    pool: tuple[int, int] = (2, 2)
    activation: str = "linear"

    def __str__(self) -> str:
        pool = "x".join(map(str, self.pool))
        return f"{self.conv.name}-{self.conv.shapes[0][0]}-pool_{pool}"

    @property
    def samples(self) -> int:
        return self.conv.shapes[0][0]

    def batch(self, n: int) -> Fused:
        return replace(self, conv=self.conv.batch(n))

    def spec(self) -> tuple:
        """The kernel's spec, and the shape of the convolution's output."""
        options = self.conv.options
        spec, shape = geometry.conv2d(
            "conv2d",
            *self.conv.shapes,
            options.get("strides", 1),
            options.get("padding", "valid"),
            options.get("dilation_rate", 1),
            options.get("groups", 1),
        )
        fused = _core.FusedConv2d(
            conv=spec,
            activation=KINDS[self.activation],
            slope=SLOPE,
            pool_height=self.pool[0],
            pool_width=self.pool[1],
        )
        return fused, shape


def fitting(case: Fused) -> Fused:
    """The case with windows that fit at least once."""
    _, (_, height, width, _) = case.spec()
    return replace(case, pool=(min(case.pool[0], height), min(case.pool[1], width)))


CASES = [
    fitting(Fused(case.batch(n), pool))
    for case, n, pool in zip(
        [*CONV2D, *MORE], itertools.cycle(SAMPLES), itertools.cycle(POOLS), strict=False
    )
    if case.shapes[0][0]
]
CASES += [
    Fused(case.batch(n), pool)
    for (case, pool), n in zip(
        itertools.product(WINDOWS, [(2, 2), (1, 1)]), itertools.cycle((5, 17, 1)), strict=False
    )
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def find(name: str) -> Fused:
    return next(case for case in CASES if case.conv.name == name)


# ---- what is expected ----------------------------------------------------------------------------


def may_round(case: Fused, given: list, dtype: type) -> np.ndarray | None:
    """By how much each sum may be wrong where Winograd's large windows may be used; else None."""
    spec, shape = case.spec()
    if not winograd.may_be_used(spec.conv):
        return None
    pads = spec.conv.pad_top, spec.conv.pad_left
    bound = winograd.bound(*given[:2], pads, shape[1:3], dtype)
    return bound if given[2] is None else bound + gamma(1, dtype) * np.abs(given[2])


def windows(z: np.ndarray, pool: tuple[int, int]) -> np.ndarray:
    """Values (N, OH, OW, F) as (N, pooled height, pooled width, F, window), whole windows only."""
    n, height, width, filters = z.shape
    down, right = height // pool[0], width // pool[1]
    z = z[:, : down * pool[0], : right * pool[1]]
    z = z.reshape(n, down, pool[0], right, pool[1], filters)
    return z.transpose(0, 1, 3, 5, 2, 4).reshape(n, down, right, filters, pool[0] * pool[1])


def pooled(z: np.ndarray, pool: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of each window, or its first NaN, and which it was."""
    values = windows(z, pool)
    nan = np.isnan(values)
    mask = np.where(nan.any(axis=-1), nan.argmax(axis=-1), values.argmax(axis=-1))
    return np.take_along_axis(values, mask[..., None], axis=-1)[..., 0], mask.astype(np.uint8)


def activated(v: np.ndarray, name: str) -> np.ndarray:
    if name == "leaky_relu":
        return reference.leaky_relu(v, SLOPE)
    return v if name == "linear" else getattr(reference, name)(v)


def slopes(y: np.ndarray, name: str) -> np.ndarray:
    """The derivative of an activation where its result is y."""
    return {
        "linear": np.ones_like(y),
        "relu": np.where(y > 0, 1.0, 0.0),
        "leaky_relu": np.where(y > 0, 1.0, SLOPE),
        "sigmoid": y * (1 - y),
        "tanh": 1 - y * y,
        "exp": y,
    }[name]


def scattered(case: Fused, g: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """g (N, pooled height, pooled width, F) where mask says so in its window, else 0."""
    _, shape = case.spec()
    dz = np.zeros(shape)
    for at in range(case.pool[0] * case.pool[1]):
        i, j = divmod(at, case.pool[1])
        rows = slice(i, shape[1] // case.pool[0] * case.pool[0], case.pool[0])
        columns = slice(j, shape[2] // case.pool[1] * case.pool[1], case.pool[1])
        dz[:, rows, columns] = np.where(mask == at, g, 0.0)
    return dz


# ---- calls, with NaN around every array and in every output --------------------------------------


def tiled(shape: tuple[int, ...], value: float, dtype: type) -> tuple:
    n, *rest = shape
    return guarded(np.full((-(-n // TILE), *rest, TILE), value, dtype))


def run(case: Fused, given: list, dtype: type, with_mask: bool = True) -> tuple:
    """y and mask; the latter None if not asked for."""
    spec, shape = case.spec()
    n, filters = shape[0], shape[3]
    out = (n, shape[1] // case.pool[0], shape[2] // case.pool[1], filters)
    x, kernel, bias = (None if a is None else a.astype(dtype) for a in given)
    inputs = [guarded(to_tiles(x) if n else x), guarded(kernel)]
    inputs.append((None, lambda: True) if bias is None else guarded(bias))
    y, y_intact = tiled(out, np.nan, dtype)
    mask, mask_intact = tiled(out, 255, np.uint8)
    outputs = [y, mask if with_mask else None]
    name = np.dtype(dtype).name
    _core.run_kernel("tile_conv2d", spec, n, name, [array for array, _ in inputs], outputs)
    assert y_intact() and mask_intact() and all(intact() for _, intact in inputs)
    return from_tiles(y, n), from_tiles(mask, n) if with_mask else None


def run_back(case: Fused, dy: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """dz."""
    spec, shape = case.spec()
    n = shape[0]
    dz, dz_intact = tiled(shape, np.nan, y.dtype)
    arrays_in = [gradient_to_tiles(dy.astype(y.dtype)), to_tiles(y), to_tiles(mask)]
    inputs = [guarded(array) for array in arrays_in]
    name = y.dtype.name
    _core.run_kernel("tile_unpool2d", spec, n, name, [array for array, _ in inputs], [dz])
    assert dz_intact() and all(intact() for _, intact in inputs)
    dead = np.moveaxis(dz, -1, 1).reshape(-1, *shape[1:])[n:]
    assert not dead.any(), "lanes without a sample"
    return from_tiles(dz, n)


# ---- forward -------------------------------------------------------------------------------------


@every_case
def test_integers_are_exact(case, dtype):
    given, _, z, _ = expected(case.conv, "integers")
    y, mask = run(case, given, dtype)
    best, where = pooled(z, case.pool)
    wrong = may_round(case, given, dtype)
    if wrong is None:
        assert_exact(y, best, dtype)
        assert_exact(mask, where, np.uint8)
    else:
        limit = windows(wrong, case.pool).max(axis=-1)
        assert_within(y, best, limit, dtype)
        chosen = np.take_along_axis(windows(z, case.pool), mask[..., None].astype(int), -1)[..., 0]
        assert_within(chosen.astype(dtype), best, 2 * limit, dtype)


@every_case
def test_rounding_stays_within_its_bound(case, dtype):
    given, _, z, _ = expected(case.conv)
    count = int(np.prod(given[1].shape[:3])) + 1
    bound = may_round(case, given, dtype)
    if bound is None:
        bound = gamma(count, dtype) * forward(case.conv, sizes(given), module=reference)
    y, _ = run(case, given, dtype)
    largest = windows(bound, case.pool).max(axis=-1, initial=0)
    assert_within(y, pooled(z, case.pool)[0], largest, dtype)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", ["large_windows_odd", "windows_prime_channels"])
def test_windows_round_little_more_than_sums(name, size):
    case = replace(find(name), pool=(1, 1)).batch(16)
    rng = np.random.default_rng(5)
    x, kernel = (
        (rng.standard_normal(shape) * size**0.5).astype(np.float32)
        for shape in case.conv.shapes[:2]
    )
    right = forward(case.conv, [x.astype(float), kernel.astype(float), None], module=reference)
    sums = np.zeros(right.shape, np.float32)
    rows, columns = right.shape[1:3]
    options = case.spec()[0].conv
    padded = np.pad(x, ((0, 0), (options.pad_top,) * 2, (options.pad_left,) * 2, (0, 0)))
    for i, j, c in np.ndindex(kernel.shape[:3]):
        sums += padded[:, i : i + rows, j : j + columns, c, None] * kernel[i, j, c]
    y, _ = run(case, [x, kernel, None], np.float32)
    assert np.square(y - right).mean() < 3**2 * np.square(sums - right).mean()


def test_the_large_windows_of_the_bound_are_the_convolution():
    case = find("large_windows_uneven")
    given, _, z, _ = expected(case.conv)
    options = case.spec()[0].conv
    pads = options.pad_top, options.pad_left
    y = winograd.transformed(*given[:2], pads, z.shape[1:3], winograd.matrices()) + given[2]
    np.testing.assert_allclose(y, z, rtol=0, atol=1e-12)


@every_case
def test_a_mask_nobody_needs_changes_nothing(case):
    given = arrays(case.conv, np.float32)
    y, _ = run(case, given, np.float32)
    alone, none = run(case, given, np.float32, with_mask=False)
    assert none is None
    assert_same_bits(alone, y)


ACTIVATED = [
    replace(find(name), activation=activation, pool=pool)
    for name, pool in (
        ("prime_sizes", (2, 2)),
        ("padding_uneven", (1, 1)),
        ("no_bias", (3, 2)),
        ("depthwise", (2, 2)),
        ("windows_odd", (2, 2)),
        ("windows_uneven", (1, 1)),
    )
    for activation in KINDS
]
every_activation = pytest.mark.parametrize(
    "case", ACTIVATED, ids=lambda case: f"{case}-{case.activation}"
)


@every_activation
def test_the_activation_comes_after_the_maximum(case, dtype):
    given = arrays(case.conv, dtype, "integers")
    given[0] = given[0] / 64  # keeps exp in range; sums stay exact
    best, mask = run(replace(case, activation="linear"), given, dtype)
    y, same = run(case, given, dtype)
    right = activated(best.astype(np.float64), case.activation)
    if case.activation in ("linear", "relu", "leaky_relu"):
        assert_exact(y, right, dtype)
    else:
        assert_within(y, right, gamma(8, dtype) * np.abs(right), dtype)
    assert_same_bits(same, mask)


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (2, 3)])
def test_the_first_nan_of_a_window_is_its_maximum(pool, activation, dtype):
    case = Fused(conv("copies", (21, 6, 6, 3), (1, 1, 3, 3)), pool, activation)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, size=case.conv.shapes[0]).astype(np.float64)
    kernel = np.eye(3).reshape(1, 1, 3, 3)
    x[rng.random(x[..., 0].shape) < 0.2] = np.nan  # in all channels, since NaN * 0 is NaN
    given = [x, kernel, np.zeros(3)]
    z = forward(case.conv, given, module=reference)
    assert np.isnan(z).any() and not np.isnan(z).all()
    y, mask = run(case, given, dtype)
    best, where = pooled(z, pool)
    assert_exact(y, clipped(best) if activation == "relu" else best, dtype)
    assert_exact(mask, where, np.uint8)


@pytest.mark.parametrize("pool", [(1, 1), (2, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["windows_odd", "windows_uneven", "large_windows_odd", "large_windows_uneven"]
)
def test_windows_spread_what_is_not_finite_no_further_than_sums(name, value, pool, dtype):
    case = replace(find(name), pool=pool).batch(2)
    given = list(expected(case.conv)[0])
    given[0] = given[0].copy()
    _, height, width, channels = given[0].shape
    for row, column in [(0, 0), (3, 4), (6, 9), (height - 1, width - 1)]:
        given[0][1, row, column, (row + column) % channels] = value
    with np.errstate(invalid="ignore"):
        z = forward(case.conv, given, module=reference)
    best, _ = pooled(np.where(np.isfinite(z), z, np.nan), pool)
    assert 0 < np.isnan(best).sum() < best[1].size
    y, _ = run(case, given, dtype)
    if value == np.inf and pool != (1, 1):  # -inf may lie beside a larger value
        assert np.isfinite(y[~np.isnan(best)]).all()
    else:
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(best))


def clipped(v: np.ndarray) -> np.ndarray:
    return np.where(v < 0, 0.0, v)  # NaN stays


@pytest.mark.parametrize("pool", [(2, 2), (3, 3), (2, 1)])
def test_the_first_of_equal_values_is_the_maximum(pool, dtype):
    case = Fused(conv("ties", (18, 9, 8, 1), (1, 1, 1, 4)), pool)
    x = np.random.default_rng(1).integers(0, 2, size=case.conv.shapes[0]).astype(np.float64)
    given = [x, np.array([1.0, -1.0, 0.0, 2.0]).reshape(1, 1, 1, 4), np.zeros(4)]
    best, where = pooled(forward(case.conv, given, module=reference), pool)
    y, mask = run(case, given, dtype)
    assert_exact(y, best, dtype)
    assert_exact(mask, where, np.uint8)


# ---- backward ------------------------------------------------------------------------------------


@every_case
def test_gradients_go_to_the_maximum_alone(case, dtype):
    """Every value of dz is written, those that no whole window covers with 0."""
    best, mask = pooled(expected(case.conv, "integers")[2], case.pool)
    dy = upstream(case.conv, best.shape, dtype, "integers")
    case = replace(case, activation="relu")
    dz = run_back(case, dy, clipped(best).astype(dtype), mask)
    assert_exact(dz, scattered(case, np.where(best > 0, dy, 0), mask), dtype)


@every_activation
def test_gradients_go_through_the_activation(case, dtype):
    given = arrays(case.conv, dtype, "integers")
    given[0] = given[0] / 64
    y, mask = run(case, given, dtype)
    dy = upstream(case.conv, y.shape, dtype)
    dz = run_back(case, dy, y, mask)
    wide = y.astype(np.float64)
    right = scattered(case, dy.astype(np.float64) * slopes(wide, case.activation), mask)
    if case.activation in ("linear", "relu", "leaky_relu"):
        assert_exact(dz, right, dtype)
    else:
        scale = scattered(case, np.abs(dy) * (1 + np.abs(wide)) ** 2, mask)
        assert_within(dz, right, gamma(4, dtype) * scale, dtype)


def test_without_a_whole_window_there_is_no_gradient(dtype):
    case = Fused(conv("small", (3, 2, 5, 1), (1, 1, 1, 4)), (3, 2))
    spec, shape = case.spec()
    none = np.zeros((1, 0, 2, 4, TILE))
    dz, intact = tiled(shape, np.nan, dtype)
    inputs = [none.astype(dtype), none.astype(dtype), none.astype(np.uint8)]
    _core.run_kernel("tile_unpool2d", spec, 3, np.dtype(dtype).name, inputs, [dz])
    assert intact() and not dz.any()


# ---- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "prime_sizes",
        "padding_uneven",
        "groups_same_strided",
        "windows_odd",
        "large_windows_uneven",
    ],
)
def test_samples_do_not_depend_on_their_number(name, dtype):
    case = find(name).batch(37)
    given, _, _, _ = expected(case.conv)
    y, mask = run(case, given, dtype)
    for n in SAMPLES:
        some, where = run(case.batch(n), [given[0][:n], *given[1:]], dtype)
        assert_same_bits(some, np.ascontiguousarray(y[:n]))
        assert_same_bits(where, np.ascontiguousarray(mask[:n]))


def test_no_samples_are_no_work(dtype):
    case = Fused(next(case for case in CONV2D if case.name == "empty_batch"))
    given, _, _, _ = expected(case.conv)
    spec, _ = case.spec()
    name = np.dtype(dtype).name
    inputs = [np.zeros((0, 6, 7, 3, TILE), dtype), *(a.astype(dtype) for a in given[1:])]
    (y, _) = _core.run_kernel("tile_conv2d", spec, 0, name, inputs, [(0, 3, 3, 6, TILE), None])
    assert y.shape == (0, 3, 3, 6, TILE)
    inputs = [y, y, np.zeros(y.shape, np.uint8)]
    (dz,) = _core.run_kernel("tile_unpool2d", spec, 0, name, inputs, [(0, 6, 7, 6, TILE)])
    assert dz.shape == (0, 6, 7, 6, TILE)
