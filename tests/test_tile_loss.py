"""The losses on tiles, alone and with the softmax before them, their gradients, the accuracies."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, losses
from checkers import assert_exact, assert_same_bits, assert_within, expected, guarded, narrowed
from test_ops_loss import bounds
from tiles import TILE, from_tiles, gradient_to_tiles, to_tiles

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
    """Of tiles, each of which is one sample to the kernels; and the number of samples."""
    n, *rows, size = y_pred.shape
    logits = int(case.options.get("from_logits", False))
    return _core.Loss(rows=int(np.prod(rows)), size=size, inner=TILE, from_logits=logits), n


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
    _core.run_kernel(case.op, spec, len(loss), y_pred.dtype.name, inputs, [loss])
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
    skipped = case.op.startswith("sparse")
    tiles, name = len(inputs[0]), y_pred.dtype.name
    _core.run_kernel(f"{case.op}_backward", spec, tiles, name, inputs, given[skipped:])
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


# ---- softmax and cross-entropy as one kernel -----------------------------------------------------


class Pair:
    """The kernels of a softmax and a cross-entropy, on tiles or on rows (inner 1)."""

    def __init__(self, sparse: bool, from_logits: bool, inner: int, dtype) -> None:
        self.sparse, self.dtype, self.inner = sparse, np.dtype(dtype), inner
        self.from_logits = from_logits
        self.loss = "sparse_categorical_crossentropy" if sparse else "categorical_crossentropy"
        self.fused = "sparse_softmax_crossentropy" if sparse else "softmax_crossentropy"

    def run(self, kernel: str, x: np.ndarray, inputs: list, outputs: list[str]) -> list:
        """Outputs are named for what they look like: "loss", "x", or None."""
        n, rows, size = x.shape[:3]
        spec = _core.Loss(rows=rows, size=size, inner=self.inner, from_logits=self.from_logits)
        if kernel.startswith("softmax") and "cross" not in kernel:
            spec = _core.Softmax(outer=rows, size=size, inner=self.inner)
        shapes = {"x": x.shape, "loss": (n, rows, *x.shape[3:]), None: None}
        made = [None if o is None else guarded(np.zeros(shapes[o], self.dtype)) for o in outputs]
        given = [guarded(array)[0] for array in inputs]
        arrays = [one and one[0] for one in made]
        _core.run_kernel(kernel, spec, n, self.dtype.name, given, arrays)
        assert all(one is None or one[1]() for one in made)
        return arrays

    def apart(self, target, x, dloss) -> list[np.ndarray]:
        """(y, loss, dx) by one kernel after the other."""
        (y,) = self.run("softmax", x, [x], ["x"])
        of = x if self.from_logits else y
        (loss,) = self.run(self.loss, x, [target, of], ["loss"])
        outputs = ["x"] if self.sparse else [None, "x"]
        *_, dx = self.run(f"{self.loss}_backward", x, [dloss, target, of], outputs)
        if not self.from_logits:
            (dx,) = self.run("softmax_backward", x, [dx, y], ["x"])
        return [y, loss, dx]

    def together(self, target, x, dloss) -> list[np.ndarray]:
        y, loss = self.run(self.fused, x, [target, x], ["x", "loss"])
        (dx,) = self.run(f"{self.fused}_backward", x, [dloss, target, y], ["x"])
        return [y, loss, dx]


every_pair = pytest.mark.parametrize(
    ("sparse", "from_logits", "inner"),
    [(sparse, logits, inner) for sparse in (0, 1) for logits in (0, 1) for inner in (1, TILE)],
)


def pair_data(rng, sparse: int, inner: int, shape: tuple[int, int, int], spread: float):
    """(target, x, dloss) in float64, of values that float32 holds too."""
    n, rows, size = shape
    lanes = () if inner == 1 else (inner,)
    x = (spread * rng.normal(size=(*shape, *lanes))).astype(np.float32).astype(np.float64)
    dloss = rng.normal(size=(n, rows, *lanes)).astype(np.float32).astype(np.float64)
    if sparse:
        return rng.integers(0, size, dloss.shape).astype(np.int32), x, dloss
    shares = rng.uniform(0, 1, x.shape) * rng.integers(0, 2, x.shape)  # some are zero
    return shares.astype(np.float32).astype(np.float64), x, dloss


@every_pair
@pytest.mark.parametrize("shape", [(1, 1, 10), (3, 1, 10), (2, 3, 7), (5, 1, 67), (3, 2, 1)])
@pytest.mark.parametrize("spread", [1, 20])  # the second clips probabilities
def test_the_pair_is_what_its_parts_are(sparse, from_logits, inner, shape, spread, dtype, rng):
    given = pair_data(rng, sparse, inner, shape, spread)
    right = Pair(sparse, from_logits, inner, np.float64).apart(*given)
    given = [array if array.dtype == np.int32 else array.astype(dtype) for array in given]
    found = Pair(sparse, from_logits, inner, dtype).together(*given)
    # As wide as the sums and the largest numbers that meet in them.
    unit = np.finfo(dtype).eps * (shape[-1] + 8 + 4 * np.abs(given[1]).max())
    size = 1 + np.abs(right[2]).max()
    assert_within(found[0], right[0], unit * right[0] + unit**2, dtype)
    assert_within(found[1], right[1], unit * (np.abs(right[1]) + shape[-1]), dtype)
    assert_within(found[2], right[2], unit * size, dtype)


@pytest.mark.parametrize("sparse", [0, 1])
def test_what_is_clipped_has_no_gradient_in_the_pair(sparse, dtype):
    x = np.array([[[30, 0, 0]], [[0, 1, 0]]], dtype)
    target = np.array([[[0, 1, 0]], [[0, 1, 0]]], dtype)
    labels = np.array([[1], [1]], np.int32)
    dloss = np.ones((2, 1), dtype)
    given = (labels if sparse else target, x, dloss)
    _, loss, dx = Pair(sparse, False, 1, dtype).together(*given)
    assert loss[0, 0] == pytest.approx(-np.log(1e-7), rel=1e-5)
    assert_exact(dx[0], np.zeros((1, 3)), dtype)
    assert (dx[1] != 0).all()
    _, _, dx = Pair(sparse, True, 1, dtype).together(*given)
    assert dx[0, 0, 1] == pytest.approx(-1)


@pytest.mark.parametrize("from_logits", [0, 1])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_makes_its_row_nan_in_the_pair(label, from_logits, dtype):
    labels = np.array([[0], [label], [2]], np.int32)
    x = np.zeros((3, 1, 3), dtype)
    pair = Pair(True, from_logits, 1, dtype)
    y, loss, dx = pair.together(labels, x, np.ones((3, 1), dtype))
    assert not np.isnan(y).any()
    assert_exact(np.isnan(loss), labels == label, bool)
    assert_exact(np.isnan(dx), np.repeat(labels[..., None] == label, 3, axis=-1), bool)


# ---- accuracies ----------------------------------------------------------------------------------


def accuracy(kernel: str, y_true: np.ndarray, y_pred: np.ndarray) -> list[np.ndarray]:
    """(n, rows) of rows and of tiles."""
    n, rows, size = y_pred.shape
    name, found = y_pred.dtype.name, []
    spec = _core.Loss(rows=rows, size=size, inner=1, from_logits=0)
    score, untouched = guarded(np.full((n, rows), 7, y_pred.dtype))
    _core.run_kernel(kernel, spec, n, name, [guarded(a)[0] for a in (y_true, y_pred)], [score])
    assert untouched()
    found.append(score)
    spec = _core.Loss(rows=rows, size=size, inner=TILE, from_logits=0)
    inputs = [guarded(to_tiles(array))[0] for array in (y_true, y_pred)]
    score, untouched = guarded(np.full((len(inputs[0]), rows, TILE), 7, y_pred.dtype))
    _core.run_kernel(kernel, spec, len(score), name, inputs, [score])
    assert untouched()
    return [*found, from_tiles(score, n)]


SCORED = [(1, 1, 10), (37, 1, 10), (5, 3, 7), (16, 2, 67), (19, 1, 1)]


@pytest.mark.parametrize("shape", SCORED)
def test_the_first_maximum_is_what_was_predicted(shape, dtype, rng):
    y_pred = rng.integers(0, 5, shape).astype(dtype)  # with ties
    y_pred[rng.random(shape) < 0.02] = np.nan
    y_true = rng.integers(0, 3, shape).astype(dtype)
    labels = rng.integers(-1, shape[-1] + 1, shape[:2]).astype(np.int32)
    right = (y_pred.argmax(-1) == y_true.argmax(-1)).astype(float)
    for found in accuracy("categorical_accuracy", y_true, y_pred):
        assert_exact(found, right, dtype)
    for found in accuracy("sparse_categorical_accuracy", labels, y_pred):
        assert_exact(found, (y_pred.argmax(-1) == labels).astype(float), dtype)


@pytest.mark.parametrize("shape", SCORED)
def test_binary_accuracy_is_the_share_of_what_is_right(shape, dtype, rng):
    y_pred = rng.choice([0.0, 0.5, 0.75, 1.0, np.nan], shape).astype(dtype)
    y_true = rng.choice([0.0, 1.0, 0.3], shape).astype(dtype)
    right = (y_true == (y_pred > 0.5)).sum(-1).astype(dtype) / dtype(shape[-1])
    for found in accuracy("binary_accuracy", y_true, y_pred):
        assert_exact(found, right, dtype)
