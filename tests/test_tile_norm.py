"""Normalisation, PReLU, factors for channels and copies for every sample, on tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from cases import Case
from checkers import assert_exact, assert_same_bits, assert_within, gamma, guarded
from norms import Bounds
from tiles import TILE, from_tiles, to_tiles

from convkit import _core
from convkit.graph import SOURCE_TYPES

pytestmark = pytest.mark.usefixtures("backend")

SAMPLES = [1, 5, 16, 37]
SHAPES = [(1, 1), (7, 1), (3, 3), (5, 6), (1, 17), (4, 33), (2, 84)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_count = pytest.mark.parametrize("n", SAMPLES)


def spec_of(kernel: str, shape: tuple[int, int]) -> Any:
    rows, size = shape
    if "channel_affine" in kernel:
        return _core.ChannelAffine(rows=rows, channels=size)
    if "layer_norm" in kernel:
        return _core.LayerNorm(rows=rows, size=size, epsilon=1e-3)
    if "prelu" in kernel:
        return _core.PRelu(rows=rows, size=size)
    return _core.Elementwise(size=rows * size)


def run(kernel: str, shape: tuple[int, int], x: Any, numbers: list, dtype: type) -> np.ndarray:
    """The one result of a kernel without sums; NaN stands around all arrays and in the result."""
    n = len(x)
    given = [guarded(to_tiles(x.astype(dtype)))]
    given += [None if a is None else guarded(a.astype(dtype)) for a in numbers]
    y, intact = guarded(np.full((-(-n // TILE), *shape, TILE), np.nan, dtype))
    inputs = [None if a is None else a[0] for a in given]
    _core.run_kernel(kernel, spec_of(kernel, shape), n, np.dtype(dtype).name, inputs, [y])
    assert intact() and all(a[1]() for a in given if a is not None)
    in_place = to_tiles(x.astype(dtype))
    inputs[0] = in_place
    _core.run_kernel(kernel, spec_of(kernel, shape), n, np.dtype(dtype).name, inputs, [in_place])
    assert_same_bits(in_place, y)
    return from_tiles(y, n)


class Backward:
    """A program with one backward kernel in its stretch: what it gives for each sample, and what
    its sums take from parameters.

    Args:
        kernel, shape: with the spec of `spec_of`.
        samples: arrays with a row for each sample, the gradient first. Zeros fill the last tile:
            its gathering would repeat a sample.
        numbers: arrays without samples, or None.
        with_dx: whether the gradient of the samples is wanted.
        sums: sizes of the sums, or None where one is not wanted; a second node may add to them.
    """

    def __init__(
        self,
        kernel: str,
        shape: tuple[int, int],
        samples: list,
        numbers: list,
        with_dx: bool,
        sums: list,
        *,
        nodes: int = 1,
    ) -> None:
        dtype = samples[0].dtype
        width, size = dtype.itemsize, shape[0] * shape[1]
        fill = [(0, -len(samples[0]) % TILE), (0, 0), (0, 0)]
        self.native = native = _core.Program(dtype.name)
        bound = []
        arguments: list[int] = []
        rows = _core.Gather(size=size, type=SOURCE_TYPES[dtype.name], scale=1, offset=0)
        for array in samples:
            if array is None:
                arguments.append(-1)
                continue
            fed, tile = native.fed(width, size), native.tile(width, size)
            native.node("tile_gather", rows, [fed, -1, tile], True)
            bound.append((fed, np.pad(array, fill)))
            arguments.append(tile)
        for array in numbers:
            arguments.append(-1 if array is None else native.state(width, array.size))
            if array is not None:
                bound.append((arguments[-1], array.copy()))
        self.dx = None
        if with_dx is not None:
            arguments.append(native.tile(width, size) if with_dx else -1)
        places = [-1 if s is None else native.sum(width, s) for s in sums]
        for _ in range(nodes):
            native.node(kernel, spec_of(kernel, shape), [*arguments, *places], True)
        if with_dx:
            result = native.fed(width, size)
            self.dx = np.full((len(bound[0][1]), *shape), np.nan, dtype)
            untile = _core.Elementwise(size=size)
            native.node("untile", untile, [arguments[-1], result], True)
            bound.append((result, self.dx))
        self.parameters = [None if s is None else np.zeros(s, dtype) for s in sums]
        if any(s is not None for s in sums):
            rate = native.state(width, 1)
            bound.append((rate, np.ones(1, dtype)))
        for place, parameter in zip(places, self.parameters, strict=True):
            if parameter is not None:
                state = native.state(width, parameter.size)
                sgd = _core.Sgd(size=parameter.size, momentum=0, nesterov=0)
                native.node("sgd", sgd, [rate, place, -1, state])
                bound.append((state, parameter))
        for value, array in bound:
            native.bind(value, array)
        self.length = len(bound[0][1])

    def run(self) -> list:
        """dx, then the sums over all samples. The second run finds what the first one left."""
        for _ in range(2):
            for parameter in self.parameters:
                if parameter is not None:
                    parameter[...] = 0
            self.native.run(0, self.length, self.length, float("inf"))
        return [self.dx, *(None if p is None else -p for p in self.parameters)]


def integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, size=shape).astype(np.float64)


# ---- a factor and an offset for each channel -----------------------------------------------------


@every_count
@every_shape
@pytest.mark.parametrize("there", ["sf", "s", "f", ""])
def test_channel_affine(there, shape, n, dtype):
    x, numbers = integers(1, n, *shape), integers(2, 2, shape[1])
    scale, shift = (v if w in there else None for v, w in zip(numbers, "sf", strict=True))
    y = run("tile_channel_affine", shape, x, [scale, shift], dtype)
    right = x * (1 if scale is None else scale) + (0 if shift is None else shift)
    assert_exact(y, right, dtype)


@every_count
@every_shape
@pytest.mark.parametrize("wanted", ["xsf", "sf", "s", "f", "xf", "x"])
def test_channel_affine_backward(wanted, shape, n, dtype):
    dy, x = integers(3, 2, n, *shape).astype(dtype)
    scale = integers(4, shape[1]).astype(dtype) if wanted != "xf" else None
    sums = [shape[1] if w in wanted else None for w in "sf"]
    samples = [dy, x if "s" in wanted else None]
    found = Backward(
        "tile_channel_affine_backward", shape, samples, [scale], "x" in wanted, sums
    ).run()
    factor = 1 if scale is None else scale
    rights = [dy * factor, (dy * x).sum(axis=(0, 1)), dy.sum(axis=(0, 1))]
    for one, right in zip(found, rights, strict=True):
        if one is not None:
            assert_exact(one[: len(right)], right.astype(np.float64), dtype)


# ---- PReLU ---------------------------------------------------------------------------------------


@every_count
@every_shape
def test_prelu(shape, n, dtype):
    x, alpha = integers(5, n, *shape), integers(6, shape[1])
    y = run("tile_prelu", shape, x, [alpha], dtype)
    assert_exact(y, np.where(x > 0, x, alpha * x), dtype)


@every_count
@every_shape
@pytest.mark.parametrize("wanted", ["xa", "x", "a"])
def test_prelu_backward(wanted, shape, n, dtype):
    dy, x = integers(7, 2, n, *shape).astype(dtype)
    alpha = integers(8, shape[1]).astype(dtype)
    sums = [shape[1] if "a" in wanted else None]
    found = Backward("tile_prelu_backward", shape, [dy, x], [alpha], "x" in wanted, sums).run()
    rights = [np.where(x > 0, dy, alpha * dy), np.where(x > 0, 0, dy * x).sum(axis=(0, 1))]
    for one, right in zip(found, rights, strict=True):
        if one is not None:
            assert_exact(one[: len(right)], right.astype(np.float64), dtype)


def test_prelu_keeps_nan(dtype):
    x = np.array([[[np.nan, -np.inf, np.inf, 2, -2]]])
    y = run("tile_prelu", (1, 5), x, [np.full(5, 0.5)], dtype)
    np.testing.assert_array_equal(y, [[[np.nan, -np.inf, np.inf, 2, -1]]])


# ---- layer normalisation -------------------------------------------------------------------------


@every_count
@every_shape
@pytest.mark.parametrize("there", ["gb", "g", "b", ""])
def test_layer_norm(there, shape, n, dtype):
    rng = np.random.default_rng(9)
    x = rng.normal(size=(n, *shape)).astype(np.float32).astype(np.float64)
    numbers = rng.normal(size=(2, shape[1])).astype(np.float32).astype(np.float64)
    both = [v if w in there else None for v, w in zip(numbers, "gb", strict=True)]
    y = run("tile_layer_norm", shape, x, both, dtype)
    case = Case("layer_norm", "", (x.shape, None, None))
    assert_within(y, reference.layer_norm(x, *both), Bounds(case, [x, *both], dtype).y(), dtype)


@every_count
@every_shape
@pytest.mark.parametrize("wanted", ["xgb", "x", "gb", "b"])
def test_layer_norm_backward(wanted, shape, n, dtype):
    rng = np.random.default_rng(10)
    dy, x = rng.normal(size=(2, n, *shape)).astype(np.float32).astype(np.float64)
    gamma_ = rng.normal(size=shape[1]).astype(np.float32).astype(np.float64)
    gamma_ = None if wanted == "x" else gamma_
    samples = [dy.astype(dtype), x.astype(dtype)]
    numbers = [None if gamma_ is None else gamma_.astype(dtype)]
    sums = [shape[1] if w in wanted else None for w in "gb"]
    found = Backward("tile_layer_norm_backward", shape, samples, numbers, "x" in wanted, sums).run()
    rights = reference.layer_norm_backward(dy, x, gamma_, np.zeros(shape[1]))
    case = Case("layer_norm", "", (x.shape, None, None))
    bounds = Bounds(case, [x, gamma_, None], dtype).gradients(dy)
    for one, right, bound in zip(found, rights, bounds, strict=True):
        if one is not None:
            assert_within(one[: len(right)], right, bound, dtype)


# ---- one row for every sample --------------------------------------------------------------------


@every_count
@every_shape
def test_broadcast(shape, n, dtype):
    x, size = integers(11, *shape).astype(dtype), shape[0] * shape[1]
    y, intact = guarded(np.full((-(-n // TILE), size, TILE), np.nan, dtype))
    spec = _core.Elementwise(size=size)
    _core.run_kernel("tile_broadcast", spec, n, np.dtype(dtype).name, [x], [y])
    assert intact()
    np.testing.assert_array_equal(y, np.broadcast_to(x.reshape(1, -1, 1), y.shape))


@every_count
@every_shape
def test_broadcast_backward(shape, n, dtype):
    dy = integers(12, n, *shape).astype(dtype)
    size = shape[0] * shape[1]
    (_, dx) = Backward("tile_broadcast_backward", shape, [dy], [], None, [size]).run()
    assert_exact(dx, dy.sum(axis=0).ravel().astype(np.float64), dtype)


# ---- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["channel_affine", "layer_norm", "prelu"])
def test_sums_that_two_nodes_add_to_are_twice_as_large(kernel, dtype):
    shape, n = (3, 17), 37
    dy, x = integers(13, 2, n, *shape).astype(dtype)
    numbers = [integers(14, shape[1]).astype(dtype)]
    sums = [shape[1]] * (1 if kernel == "prelu" else 2)
    name = f"tile_{kernel}_backward"
    once = Backward(name, shape, [dy, x], numbers, False, sums).run()
    twice = Backward(name, shape, [dy, x], numbers, False, sums, nodes=2).run()
    for one, both in zip(once[1:], twice[1:], strict=True):
        np.testing.assert_allclose(both, 2 * one, rtol=0, atol=float(gamma(999, dtype)) * 5e3)


@pytest.mark.parametrize("kernel", ["channel_affine", "layer_norm", "prelu"])
def test_sums_do_not_depend_on_threads(kernel, dtype, threads):
    shape, n = (3, 17), 16 * 11
    rng = np.random.default_rng(15)
    dy, x = rng.normal(size=(2, n, *shape)).astype(dtype)
    numbers = [rng.normal(size=shape[1]).astype(dtype)]
    sums = [shape[1]] * (1 if kernel == "prelu" else 2)
    found = []
    for count in (1, 2, 5):
        threads(count)
        program = Backward(f"tile_{kernel}_backward", shape, [dy, x], numbers, True, sums)
        found.append([array.copy() for array in program.run()])
    for others in found[1:]:
        for one, other in zip(others, found[0], strict=True):
            assert_same_bits(one, other)


@pytest.mark.parametrize("kernel", ["channel_affine", "layer_norm", "prelu", "broadcast"])
def test_tiles_may_be_taken_one_by_one_or_together(kernel, dtype):
    shape, name = (3, 17), np.dtype(dtype).name
    rng = np.random.default_rng(16)
    dy, x = (to_tiles(a) for a in rng.normal(size=(2, 64, *shape)).astype(dtype))
    spec = spec_of(f"tile_{kernel}_backward", shape)
    width = 51 if kernel == "broadcast" else 17
    count = {"layer_norm": 2, "channel_affine": 2}.get(kernel, 1)
    numbers = [] if kernel == "broadcast" else [rng.normal(size=17).astype(dtype)]

    def add(begin: int, end: int, sums: list) -> None:
        samples = [dy[begin:end]] if kernel == "broadcast" else [dy[begin:end], x[begin:end]]
        outputs = sums if kernel == "broadcast" else [None, *sums]
        samples = [np.ascontiguousarray(a) for a in samples]
        n = (end - begin) * TILE
        _core.run_kernel(f"tile_{kernel}_backward", spec, n, name, [*samples, *numbers], outputs)

    together, one_by_one = ([np.zeros(width, dtype) for _ in range(count)] for _ in range(2))
    add(0, 4, together)
    for tile in range(4):
        add(tile, tile + 1, one_by_one)
    for one, other in zip(together, one_by_one, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("kernel", ["channel_affine", "layer_norm", "prelu", "broadcast"])
def test_what_was_there_is_added_to(kernel, dtype):
    """A kernel on its own is not fresh; without samples it adds nothing."""
    shape, name = (2, 17), np.dtype(dtype).name
    spec = spec_of(f"tile_{kernel}_backward", shape)
    count = {"layer_norm": 2, "channel_affine": 2}.get(kernel, 1)
    width = 34 if kernel == "broadcast" else 17
    for n in (0, 16):
        tiles = np.ones((n // TILE, *shape, TILE), dtype)
        inputs = [tiles] if kernel == "broadcast" else [tiles, tiles, np.ones(17, dtype)]
        outputs: list = [] if kernel == "broadcast" else [None]
        zero = [np.zeros(width, dtype) for _ in range(count)]
        _core.run_kernel(f"tile_{kernel}_backward", spec, n, name, inputs, [*outputs, *zero])
        seven = [np.full(width, 7, dtype) for _ in range(count)]
        _core.run_kernel(f"tile_{kernel}_backward", spec, n, name, inputs, [*outputs, *seven])
        for one, other in zip(zero, seven, strict=True):
            assert_same_bits(other, one + dtype(7))
            assert n or not one.any()
