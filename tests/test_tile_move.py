"""Samples into tiles and out of them: copies, labels, dropout and the gradient of the mean."""

from __future__ import annotations

import numpy as np
import pytest
from checkers import assert_exact, assert_same_bits, guarded
from tiles import TILE, from_tiles, to_tiles

from convkit import _core

pytestmark = pytest.mark.usefixtures("backend")

SAMPLES = [1, 5, 16, 37]
SIZES = [1, 3, 7, 10, 15, 16, 17, 33, 100]
# In the order of the types of kernels.
SOURCE_TYPES = [np.uint8, np.int32, np.int64, np.float32, np.float64, np.bool_]


def run(kernel: str, spec, n: int, dtype, inputs: list, *, size: int) -> np.ndarray:
    """The one output of a kernel, `size` values of each sample in whole tiles, guarded."""
    y, untouched = guarded(np.zeros((-(-n // TILE), size, TILE), dtype))
    _core.run_kernel(kernel, spec, n, np.dtype(dtype).name, inputs, [y])
    assert untouched()
    return y


def gathered(
    source: np.ndarray,
    index: np.ndarray | None,
    n: int,
    dtype,
    *,
    scale: float = 1,
    offset: float = 0,
    labels: bool = False,
) -> np.ndarray:
    """Rows of a source that went through tiles, by a program: it alone may gather."""
    size = source.shape[1]
    program = _core.Program(np.dtype(dtype).name)
    width = np.dtype(dtype).itemsize
    place = program.fed if index is None else program.state
    rows = place(source.itemsize, size)
    order = -1 if index is None else program.fed(8, 1)
    tile, result = program.tile(width, size), program.fed(width, size)
    kind = SOURCE_TYPES.index(source.dtype.type)
    kernel = "tile_gather_labels" if labels else "tile_gather"
    spec = _core.Gather(size=size, type=kind, scale=scale, offset=offset)
    program.node(kernel, spec, [rows, order, tile], True)
    program.node("untile", _core.Elementwise(size=size), [tile, result], True)
    y, untouched = guarded(np.zeros((n, size), dtype))
    kept = source.view(np.uint8) if source.dtype == bool else source
    program.bind(rows, guarded(kept)[0].view(source.dtype))
    if index is not None:
        program.bind(order, index)
    program.bind(result, y)
    program.run(0, n, max(n, 1), 1e9)
    assert untouched()
    return y


@pytest.mark.parametrize("n", SAMPLES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("source", SOURCE_TYPES, ids=lambda t: np.dtype(t).name)
def test_gather_picks_converts_and_scales(source, size, n, dtype, rng):
    data = rng.integers(0, 200, size=(50, size)).astype(source)
    for index in (rng.integers(0, 50, size=n), None):
        rows = data[:n] if index is None else data[index]
        y = gathered(data, index, n, dtype, scale=1 / 255)
        assert_same_bits(y, rows.astype(dtype) * dtype(1 / 255))
        y = gathered(data, index, n, dtype, scale=0.5, offset=-1)
        assert_same_bits(y, (rows / 2 - 1).astype(dtype))


@pytest.mark.parametrize("size", [1, 33])
def test_gather_without_scale_and_offset_copies_every_bit(size, dtype):
    data = np.resize(np.array([0.0, -0.0, np.inf, -np.inf, 1e-30, -3.5], dtype), (20, size))
    assert_same_bits(gathered(data, None, 20, dtype), data)


@pytest.mark.parametrize("n", SAMPLES)
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("source", SOURCE_TYPES, ids=lambda t: np.dtype(t).name)
def test_gather_labels(source, size, n, rng):
    data = rng.integers(0, 10, size=(50, size)).astype(source)
    index = rng.integers(0, 50, size=n)
    y = gathered(data, index, n, np.float32, labels=True)  # untile only moves their bits
    np.testing.assert_array_equal(y.view(np.int32), data[index].astype(np.int32))


def test_what_int32_cannot_hold_is_no_label():
    for data, right in (
        (np.array([2.0**31, -np.inf, np.nan, 3.9, -2147483648.0]), [-1, -1, -1, 3, -(2**31)]),
        (np.array([2**31, -(2**31) - 1, 2**31 - 1, 0, -7]), [-1, -1, 2**31 - 1, 0, -7]),
    ):
        y = gathered(data[:, None], None, 5, np.float32, labels=True)
        np.testing.assert_array_equal(y.view(np.int32)[:, 0], right)


@pytest.mark.parametrize("n", SAMPLES)
@pytest.mark.parametrize("size", SIZES)
def test_untile_is_the_way_back(size, n, dtype, rng):
    x = rng.normal(size=(n, size)).astype(dtype)
    y, untouched = guarded(np.full_like(x, -1))
    tiles, _ = guarded(to_tiles(x))
    _core.run_kernel("untile", _core.Elementwise(size=size), n, np.dtype(dtype).name, [tiles], [y])
    assert_same_bits(y, x)
    assert untouched()


@pytest.mark.parametrize("n", SAMPLES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (3, 1), (7, 6)])
def test_transpose(rows, columns, n, dtype, rng):
    x = rng.normal(size=(n, rows, columns)).astype(dtype)
    spec = _core.Transpose(rows=rows, columns=columns)
    y = run("tile_transpose", spec, n, dtype, [to_tiles(x)], size=rows * columns)
    assert_same_bits(y, to_tiles(x.swapaxes(1, 2).reshape(n, -1)))


@pytest.mark.parametrize("n", SAMPLES)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 10, 16, 17, 31, 32, 49, 100])
def test_dropout_draws_what_it_draws_for_the_batch(size, n, dtype, rng):
    x = rng.normal(size=(n, size)).astype(dtype)
    spec = _core.Dropout(size=size, stream=3, rate=0.4)
    random = np.array([2**33 + 5, 77])
    (right,) = _core.run_kernel("dropout", spec, n, np.dtype(dtype).name, [x, random], [x.shape])
    y = run("tile_dropout", spec, n, dtype, [to_tiles(x), random], size=size)
    assert_same_bits(from_tiles(y, n), right)
    in_place = to_tiles(x)
    _core.run_kernel("tile_dropout", spec, n, np.dtype(dtype).name, [in_place, random], [in_place])
    assert_same_bits(in_place, y)


@pytest.mark.parametrize("size", [7, 12])
@pytest.mark.parametrize("tiles_at_once", [1, 2])
def test_dropout_of_a_part_of_a_batch(tiles_at_once, size, dtype, rng):
    n, name, width = 53, np.dtype(dtype).name, np.dtype(dtype).itemsize
    x, random = rng.normal(size=(n, size)).astype(dtype), np.array([5, 77])
    spec = _core.Dropout(size=size, stream=3, rate=0.4)
    (right,) = _core.run_kernel("dropout", spec, n, name, [x, random], [x.shape])
    program = _core.Program(name)
    fed, state, result = program.fed(width, size), program.state(8, 2), program.fed(width, size)
    before, after = program.tile(width, size), program.tile(width, size)
    kind = SOURCE_TYPES.index(dtype)
    rows = _core.Gather(size=size, type=kind, scale=1, offset=0)
    program.node("tile_gather", rows, [fed, -1, before], True)
    program.node("tile_dropout", spec, [before, state, after], True)
    program.node("untile", _core.Elementwise(size=size), [after, result], True)
    program.set_tiles_at_once(tiles_at_once)
    y = np.zeros_like(x)
    for value, array in ((fed, x), (state, random), (result, y)):
        program.bind(value, array)
    program.run(0, n, n, 1e9)
    assert_same_bits(y, right)


@pytest.mark.parametrize("n", SAMPLES)
def test_mean_has_no_gradient_beyond_the_last_sample(n, dtype):
    dy = np.array([6], dtype)
    dx = run("tile_mean_backward", _core.Mean(rows=3), n, dtype, [dy], size=3)
    right = np.zeros((len(dx) * TILE, 3), dtype)
    right[:n] = dy / dtype(3 * n)
    assert_exact(dx, to_tiles(right), dtype)


def test_no_samples_are_no_tiles(dtype):
    nothing = np.zeros((0, 5, TILE), dtype)
    random = np.zeros(2, np.int64)
    for kernel, spec, inputs in (
        ("tile_dropout", _core.Dropout(size=5, stream=0, rate=0.5), [nothing, random]),
        ("tile_mean_backward", _core.Mean(rows=5), [np.ones(1, dtype)]),
        ("tile_transpose", _core.Transpose(rows=5, columns=1), [nothing]),
    ):
        assert run(kernel, spec, 0, dtype, inputs, size=5).size == 0
