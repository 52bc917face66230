"""The losses and scores of ops/pointwise_loss.py and top-k accuracies on tiles: 16 samples, one in
each lane, are one sample with rows that lie 16 apart."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, pointwise_losses
from checkers import assert_exact, assert_same_bits, expected, guarded, narrowed
from tiles import TILE, from_tiles, gradient_to_tiles, to_tiles

from convkit import _core, geometry
from convkit.ops.pointwise_loss import KINDS, UNWEIGHTED

pytestmark = pytest.mark.usefixtures("backend")

SHAPES = [
    ("one_sample", (1, 10)),
    ("part_of_a_tile", (5, 3)),
    ("one_tile", (16, 17)),
    ("tiles", (37, 10)),
    ("rows", (37, 2, 3, 6)),
    ("one_value_per_row", (37, 5, 1)),
]
CASES = [case for name, shape in SHAPES for case in pointwise_losses(name, shape)]


def specs(case: Case, shape: tuple[int, ...]) -> tuple[str, object, object, int]:
    """The kernel, its specs for rows and for tiles, and how many samples it is told of rows."""
    n, *rows, size = shape
    options = case.options
    if case.op == "dice":
        over = 1 if options else int(np.prod(rows))
        sizes = {"rows": int(np.prod(rows)) // over, "size": size * over, "from_logits": 0}
        return "dice", _core.Loss(**sizes, inner=1), _core.Loss(**sizes, inner=TILE), n
    numbers = {"a": options.get("delta", 1.0), "b": options.get("gamma", 2.0)}
    if "focal" in case.op:
        numbers["a"] = options.get("alpha", 0.25)
        if case.op.startswith("binary") and not options.get("apply_class_balancing"):
            numbers["a"] = UNWEIGHTED
    sizes = {
        "rows": int(np.prod(rows)),
        "size": size,
        "kind": KINDS[case.op],
        "from_logits": int(options.get("from_logits", False)),
    }
    made = [_core.PointwiseLoss(**sizes, **numbers, inner=inner) for inner in (1, TILE)]
    return "pointwise_loss", *made, n


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tiles_have_the_bits_of_rows(case, dtype):
    given, _, _, _ = expected(case)
    y_true, y_pred = narrowed(given, dtype)
    kernel, of_rows, of_tiles, n = specs(case, y_pred.shape)
    flat = [y.reshape(n, of_rows.rows, -1) for y in (y_true, y_pred)]
    shape, name = (n, of_rows.rows), np.dtype(dtype).name
    dy = np.random.default_rng(3).normal(size=shape).astype(dtype)

    (loss,) = _core.run_kernel(kernel, of_rows, n, name, flat, [shape])
    (dpred,) = _core.run_kernel(
        f"{kernel}_backward", of_rows, n, name, [dy, *flat], [flat[1].shape]
    )

    tiles = [guarded(to_tiles(y))[0] for y in flat]
    made, untouched = guarded(np.zeros((len(tiles[0]), of_rows.rows, TILE), dtype))
    _core.run_kernel(kernel, of_tiles, len(made), name, tiles, [made])
    assert untouched()
    back, intact = guarded(np.zeros_like(tiles[1]))
    inputs = [guarded(gradient_to_tiles(dy))[0], *tiles]
    _core.run_kernel(f"{kernel}_backward", of_tiles, len(made), name, inputs, [back])
    assert intact()
    if case.op == "dice":  # whose sums are cut otherwise
        unit = 64 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(from_tiles(made, n), loss, rtol=unit, atol=unit)
        np.testing.assert_allclose(from_tiles(back, n), dpred, rtol=unit, atol=unit)
    else:
        assert_same_bits(from_tiles(made, n), loss)
        assert_same_bits(from_tiles(back, n), dpred)


@pytest.mark.parametrize("k", [1, 2, 5, 100])
@pytest.mark.parametrize("shape", [(1, 1, 10), (37, 1, 10), (5, 3, 7), (16, 2, 67), (19, 1, 1)])
def test_top_k_counts_what_is_larger(shape, k, dtype, rng):
    n, rows, size = shape
    y_pred = rng.integers(0, 5, shape).astype(dtype)  # with ties
    y_pred[rng.random(shape) < 0.02] = np.nan
    y_true = rng.integers(0, 3, shape).astype(dtype)
    labels = rng.integers(-1, size + 1, shape[:2]).astype(np.int32)
    for kernel, target in (("top_k_accuracy", y_true), ("sparse_top_k_accuracy", labels)):
        place = y_true.argmax(-1) if target is y_true else labels
        known = (place >= 0) & (place < size)
        own = np.take_along_axis(y_pred, np.where(known, place, 0)[..., None], -1)
        larger = (~(y_pred <= own)).sum(-1)
        right = (known & ~np.isnan(own[..., 0]) & (larger < k)).astype(float)
        spec = _core.TopK(rows=rows, size=size, inner=1, k=k)
        (score,) = _core.run_kernel(
            kernel, spec, n, np.dtype(dtype).name, [target, y_pred], [(n, rows)]
        )
        assert_exact(score, right, dtype)
        spec = _core.TopK(rows=rows, size=size, inner=TILE, k=k)
        tiles = [guarded(to_tiles(array))[0] for array in (target, y_pred)]
        made, untouched = guarded(np.full((len(tiles[0]), rows, TILE), 7, dtype))
        _core.run_kernel(kernel, spec, len(made), np.dtype(dtype).name, tiles, [made])
        assert untouched()
        assert_exact(from_tiles(made, n), right, dtype)


def test_the_spec_of_an_op_is_what_the_kernel_takes():
    spec, shape = geometry.pointwise_loss("x", (4, 3, 5), (4, 3, 5), KINDS["huber"], 1, a=2.0)
    assert (spec.rows, spec.size, spec.inner, spec.a, shape) == (4, 3, 5, 2.0, (4, 5))
