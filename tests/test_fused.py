"""Convolution and dense layers with pooling and activation in one kernel, against the ops apart."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cases import CONV2D, CONV2D_LARGE, DENSE, Case, arrays, conv, dense
from checkers import assert_exact, assert_same_bits, assert_within, gamma, guarded

from convkit import _core, geometry

pytestmark = pytest.mark.usefixtures("backend")

SLOPE = 0.25
KINDS = {"linear": -1, **geometry.ACTIVATION_KINDS}
POOLS = [(1, 1), (2, 2), (3, 3), (2, 1), (1, 2)]

# What the shared table lacks: outputs of every width and of odd sizes, several bands of rows,
# borders above and below alone, and filters that fill the registers or do not.
MORE = [
    *(
        conv(f"{width}_columns", (1, 7, width + 2, 3), (3, 3, 3, filters))
        for width, filters in zip(range(4, 30), itertools.cycle((8, 16, 5, 19, 32)), strict=False)
    ),
    *(conv(f"{f}_filters_same", (2, 9, 14, 1), (5, 5, 1, f), padding="same") for f in (1, 4, 7, 8)),
    conv("bands_of_planes", (1, 71, 61, 1), (5, 5, 1, 6), padding="same"),
    conv("wide_planes", (1, 5, 1100, 1), (3, 3, 1, 4), padding="same"),
    conv("bands_of_lines", (1, 41, 203, 8), (3, 3, 8, 16), padding="same"),
    conv("bands_of_strided_lines", (1, 83, 203, 5), (3, 4, 5, 9), strides=2, padding="same"),
    conv("border_above", (2, 8, 9, 6), (3, 3, 6, 16), padding=((2, 0), (0, 0))),
    conv("border_below", (2, 7, 9, 6), (3, 3, 6, 16), padding=((0, 3), (0, 0))),
    conv("dilated_borders", (1, 12, 17, 6), (3, 3, 6, 10), dilation_rate=(3, 2), padding="same"),
    conv("grouped_lines", (2, 9, 13, 8), (3, 3, 4, 34), groups=2, padding="same"),
]
every_case = pytest.mark.parametrize(
    "case", [*CONV2D, *MORE, *CONV2D_LARGE], ids=lambda case: case.name
)
every_dense = pytest.mark.parametrize(
    "case", [case for case in DENSE if len(case.shapes[0]) > 1], ids=lambda case: case.name
)


# ---- calls, with NaN around every array and in every output --------------------------------------


def run(kernel: str, spec: object, n: int, inputs: list, shape: tuple[int, ...]) -> np.ndarray:
    dtype = inputs[0].dtype
    y, y_intact = guarded(np.full(shape, np.nan, dtype))
    copies = [None if array is None else guarded(array) for array in inputs]
    _core.run_kernel(kernel, spec, n, dtype.name, [copy and copy[0] for copy in copies], [y])
    assert y_intact() and all(copy is None or copy[1]() for copy in copies)
    return y


def activate(kind: str, x: np.ndarray) -> np.ndarray:
    if kind == "linear" or not x.size:
        return x
    spec = _core.Activation(size=x[0].size, kind=KINDS[kind], slope=SLOPE)
    return run("activation", spec, len(x), [x], x.shape)


def convolution(case: Case) -> tuple:
    options = case.options
    return geometry.conv2d(
        "conv2d",
        *case.shapes,
        options.get("strides", 1),
        options.get("padding", "valid"),
        options.get("dilation_rate", 1),
        options.get("groups", 1),
    )


def fused(case: Case, given: list, pool: tuple[int, int], kind: str = "linear") -> np.ndarray:
    spec, (n, height, width, filters) = convolution(case)
    together = _core.FusedConv2d(
        conv=spec,
        activation=KINDS[kind],
        slope=SLOPE,
        pool_height=pool[0],
        pool_width=pool[1],
    )
    shape = (n, height // pool[0], width // pool[1], filters)
    return run("fused_conv2d", together, n, given, shape)


def pooled(x: np.ndarray, pool: tuple[int, int]) -> np.ndarray:
    if pool == (1, 1):
        return x
    spec, shape = geometry.pool2d("max_pool2d", x.shape, pool, None, "valid", 1, False, False)
    return run("max_pool2d", spec, len(x), [x], shape)


def fits(case: Case, pool: tuple[int, int]) -> bool:
    _, (_, height, width, _) = convolution(case)
    return height >= pool[0] and width >= pool[1]


# ---- convolution ---------------------------------------------------------------------------------


@every_case
def test_convolution_and_pooling_have_the_bits_of_both_apart(case, dtype):
    given = arrays(case, dtype)
    spec, shape = convolution(case)
    z = run("conv2d", spec, shape[0], given, shape)
    # The emulator takes its time, and an activation is the same for any size.
    kinds = ("relu",) if case.name.startswith("large") else ("linear", "relu")
    for pool in POOLS:
        if fits(case, pool):
            for kind in kinds:
                right = pooled(activate(kind, z), pool)
                assert_exact(fused(case, given, pool, kind), right, dtype)


@pytest.mark.parametrize(
    "name", ["lenet_first", "lenet_second", "no_bias", "many_filters", "depthwise"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_activation_may_follow_the_pooling(name, kind, dtype):
    case = next(case for case in CONV2D if case.name == name)
    given = arrays(case, dtype, "integers")
    given[0] = given[0] / 64  # keeps exp in range; sums stay exact
    spec, shape = convolution(case)
    z = run("conv2d", spec, shape[0], given, shape)
    for pool in POOLS:
        if not fits(case, pool):
            continue
        y = fused(case, given, pool, kind)
        assert_exact(y, activate(kind, pooled(z, pool)), dtype)
        before = pooled(activate(kind, z), pool).astype(np.float64)
        assert_within(y, before, gamma(8, dtype) * np.abs(before), dtype)


COPIES = [conv(f"{f}_copies", (3, 9, 11, f), (1, 1, f, f)) for f in (1, 3, 16, 20)]


@pytest.mark.parametrize("kind", ["linear", "relu"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("case", COPIES, ids=lambda case: case.name)
def test_nan_is_the_maximum_of_its_window(case, pool, kind, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, size=case.shapes[0]).astype(dtype)
    x[rng.random(x[..., 0].shape) < 0.2] = np.nan  # in all channels, since NaN * 0 is NaN
    filters = case.shapes[1][3]
    given = [x, np.eye(filters, dtype=dtype).reshape(case.shapes[1]), np.ones(filters, dtype)]
    y = fused(case, given, pool, kind)
    right = pooled(x, pool) + dtype(1)
    assert_exact(y, np.where(right < 0, dtype(0), right) if kind == "relu" else right, dtype)
    assert np.isnan(y).any() and not np.isnan(y).all()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", ["lenet_first", "lenet_second", "tails_of_lanes", "many_filters"])
def test_samples_do_not_depend_on_their_number(name, pool, dtype):
    case = next(case for case in CONV2D if case.name == name).batch(7)
    if not fits(case, pool):
        pytest.skip("no whole window")
    given = arrays(case, dtype)
    y = fused(case, given, pool, "relu")
    for n in (1, 2, 5):
        some = fused(case.batch(n), [given[0][:n], *given[1:]], pool, "relu")
        assert_same_bits(some, np.ascontiguousarray(y[:n]))


MANY = [
    conv("many_samples", (37, 34, 34, 3), (3, 3, 3, 12)),  # a few at a time where nothing is fused
    conv("many_samples_and_filters", (9, 33, 34, 3), (3, 3, 3, 70), padding="same"),
    conv("many_samples_in_planes", (40, 31, 30, 1), (5, 5, 1, 5), padding="same"),
]


@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("case", MANY, ids=lambda case: case.name)
def test_bits_do_not_depend_on_threads(case, pool, threads):
    given = arrays(case, np.float32)
    spec, shape = convolution(case)
    right = pooled(activate("relu", run("conv2d", spec, shape[0], given, shape)), pool)
    for count in (1, 2, 3, 7):
        threads(count)
        assert_exact(fused(case, given, pool, "relu"), right, np.float32)


@pytest.mark.parametrize("pool", POOLS)
def test_no_samples_are_no_work(pool, dtype):
    case = conv("none", (0, 6, 7, 3), (3, 3, 3, 6))
    assert fused(case, arrays(case, dtype), pool, "relu").shape[0] == 0


def test_without_a_whole_window_nothing_is_left(dtype):
    case = conv("small", (3, 2, 5, 1), (1, 1, 1, 4))
    for pool in ((3, 2), (2, 6), (3, 3)):
        assert not fused(case, arrays(case, dtype), pool).size


# ---- dense ---------------------------------------------------------------------------------------


@every_dense
@pytest.mark.parametrize("kind", KINDS)
def test_dense_and_activation_have_the_bits_of_both_apart(case, kind, dtype):
    for n in (1, 2, 37):
        some = replace(case, shapes=((n, *case.shapes[0][1:]), *case.shapes[1:]))
        check_dense(some, kind, dtype)


def check_dense(case: Case, kind: str, dtype: type) -> None:
    given = arrays(case, dtype)
    given[0] = given[0] / 8  # keeps exp in range
    spec, shape = geometry.dense("dense", *case.shapes)
    together = _core.FusedDense(dense=spec, activation=KINDS[kind], slope=SLOPE)
    y = run("fused_dense", together, shape[0], given, shape)
    assert_same_bits(y, activate(kind, run("dense", spec, shape[0], given, shape)))


@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_dense_keeps_nan(kind, dtype):
    case = dense("nan", (1, 9), 21)
    given = arrays(case, dtype)
    given[1][:, ::3] = np.nan
    spec, shape = geometry.dense("dense", *case.shapes)
    together = _core.FusedDense(dense=spec, activation=KINDS[kind], slope=SLOPE)
    y = run("fused_dense", together, 1, given, shape)
    assert_exact(np.isnan(y), np.arange(21)[None] % 3 == 0, bool)
