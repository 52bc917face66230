"""The losses on tiles and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, losses
from checkers import assert_exact, assert_same_bits, assert_within, expected, guarded, narrowed
from test_ops_loss import bounds
from tiles import from_tiles, gradient_to_tiles, to_tiles

from convkit import _core

pytestmark = pytest.mark.usefixtures("backend")

SHAPES = [
    ("one_sample", (1, 10)),
    ("part_of_a_tile", (5, 3)),
    ("one_tile", (16, 17)),
    ("tiles", (37, 10)),
    ("long_rows", (5, 67)),
    ("rows", (37, 2, 3, 6)),
    ("one_value_per_row", (37, 5, 1)),
    ("one_value", (17, 1)),
]
CASES = [
    case
    for name, shape in SHAPES
    for case in losses(name, shape)
    if shape[-1] >= 3 or not case.op.startswith("sparse")  # labels are 0, 1 and 2
]


def spec_of(case: Case, y_pred: np.ndarray) -> tuple[_core.Loss, int]:
    n, *rows, size = y_pred.shape
    logits = int(case.options.get("from_logits", False))
    return _core.Loss(rows=int(np.prod(rows)), size=size, from_logits=logits), n


def arguments(case: Case, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Targets as kernels take them (int32 for labels), and predictions."""
    y_true, y_pred = narrowed(expected(case)[0], dtype)
    return y_true.astype(np.int32) if y_true.dtype.kind in "iu" else y_true, y_pred


def samples_first(case: Case, y_true, y_pred, dy=None) -> list[np.ndarray]:
    """The same with all rows of a sample on one axis."""
    spec, n = spec_of(case, y_pred)
    flat = (n, spec.rows)
    tail = () if case.op.startswith("sparse") else (spec.size,)
    given = [y_true.reshape(*flat, *tail), y_pred.reshape(*flat, spec.size)]
    return given if dy is None else [dy.reshape(flat), *given]


def forward(case: Case, y_true, y_pred) -> np.ndarray:
    spec, n = spec_of(case, y_pred)
    inputs = [guarded(to_tiles(array))[0] for array in samples_first(case, y_true, y_pred)]
    loss, untouched = guarded(np.zeros((*inputs[1].shape[:2], inputs[1].shape[-1]), y_pred.dtype))
    _core.run_kernel(f"tile_{case.op}", spec, n, y_pred.dtype.name, inputs, [loss])
    assert untouched()
    return from_tiles(loss, n).reshape(y_pred.shape[:-1])


def backward(case: Case, dy, y_true, y_pred, wanted=(True, True)) -> list[np.ndarray | None]:
    spec, n = spec_of(case, y_pred)
    dy, y_true, flat = samples_first(case, y_true, y_pred, dy)
    inputs = [
        guarded(array)[0] for array in (gradient_to_tiles(dy), *map(to_tiles, (y_true, flat)))
    ]
    outputs = [guarded(np.zeros_like(inputs[2])) if want else None for want in wanted]
    if case.op.startswith("sparse"):
        outputs[0] = None
    given = [output and output[0] for output in outputs]
    kernel = f"tile_{case.op}_backward"
    skipped = case.op.startswith("sparse")
    _core.run_kernel(kernel, spec, n, y_pred.dtype.name, inputs, given[skipped:])
    assert all(output is None or output[1]() for output in outputs)
    return [None if g is None else from_tiles(g, n).reshape(y_pred.shape) for g in given]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, loss, gradients = expected(case)
    limits = bounds(case, given, dy, dtype)
    assert_within(forward(case, *arguments(case, dtype)), loss, limits[0], dtype)
    found = backward(case, dy.astype(dtype), *arguments(case, dtype))
    for got, right, limit in zip(found, gradients, limits[1:], strict=True):
        if right is None:
            assert got is None
        else:
            assert_within(got, right, limit, dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_gradient_that_nobody_needs_changes_nothing(case, dtype):
    dy = expected(case)[1].astype(dtype)
    both = backward(case, dy, *arguments(case, dtype))
    for wanted in ((True, False), (False, True)):
        if case.op.startswith("sparse") and not wanted[1]:
            continue
        found = backward(case, dy, *arguments(case, dtype), wanted)
        for got, right, want in zip(found, both, wanted, strict=True):
            if want and right is not None:
                assert_same_bits(got, right)
            else:
                assert got is None


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("label", [-1, 10, -(2**31), 2**31 - 1])
def test_a_label_that_is_no_class_makes_its_row_nan(label, from_logits, dtype, rng):
    case = Case("sparse_categorical_crossentropy", "no_class", (), {"from_logits": from_logits})
    y_pred = rng.uniform(0.1, 1, size=(37, 10)).astype(dtype)
    y_true = rng.integers(0, 10, size=37).astype(np.int32)
    y_true[20] = label
    wrong = np.arange(37) == 20
    assert_exact(np.isnan(forward(case, y_true, y_pred)), wrong, bool)
    _, dpred = backward(case, np.ones(37, dtype), y_true, y_pred)
    assert_exact(np.isnan(dpred), np.repeat(wrong[:, None], 10, axis=1), bool)


@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith("tiles")], ids=str)
def test_nan_takes_its_row_and_no_other(case, dtype):
    y_true, y_pred = arguments(case, dtype)
    y_pred = y_pred.copy()
    y_pred[20, 9] = np.nan
    assert_exact(np.isnan(forward(case, y_true, y_pred)), np.arange(37) == 20, bool)
