"""Losses, one value per row: an axis, mostly the last, is reduced, as in Keras 3."""

from __future__ import annotations

from typing import Any

from convkit import geometry, graph
from convkit._core import replayed
from convkit.array import device_arrays, device_labels, label_array
from convkit.geometry import Shape
from convkit.ops import common


def _samples(y_pred: Any) -> int | None:
    return None if y_pred.shape[0] is None else 1


def _geometry(
    op: str, y_true: Any, y_pred: Any, from_logits: bool, axis: object
) -> tuple[Any, Shape]:
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    if axis == -1:
        return geometry.loss(op, *shapes, False, from_logits)
    return geometry.loss_over(op, *shapes, axis, from_logits)


def _forward(
    op: str, y_true: Any, y_pred: Any, from_logits: bool, out: Any, axis: object = -1
) -> Any:
    y_true, y_pred = common.arguments(op, ("y_true", "y_pred"), (y_true, y_pred), out)
    spec, shape = _geometry(op, y_true, y_pred, from_logits, axis)
    return common.run(op, spec, _samples(y_pred), [y_true, y_pred], shape, out, op)


def _backward(
    op: str,
    dy: Any,
    y_true: Any,
    y_pred: Any,
    from_logits: bool,
    needs: Any,
    out: Any,
    axis: object = -1,
) -> tuple[Any, Any]:
    name = f"{op}_backward"
    dy, y_true, y_pred = common.arguments(
        name, ("dy", "y_true", "y_pred"), (dy, y_true, y_pred), out
    )
    spec, shape = _geometry(name, y_true, y_pred, from_logits, axis)
    if dy.shape != shape:
        geometry.same_shape(name, "dy", dy.shape, shape, ", one value per row")
    needs, out = common.flags(name, needs, 2), common.outs(name, out, 2)
    n = None if shape and shape[0] is None else 1
    dy_true, dy_pred = common.backward(name, op, spec, n, [y_true, y_pred], [None], dy, needs, out)
    return dy_true, dy_pred


@replayed
def categorical_crossentropy(
    y_true: Any, y_pred: Any, *, from_logits: bool = False, axis: int = -1, out: Any = None
) -> Any:
    """-sum(y_true * log(y_pred)) over the last axis, or another.

    Probabilities are divided by their sum and kept between 1e-7 and 1 - 1e-7 first, as Keras does.
    Targets that do not sum to one are taken as they are, gradient included.

    Args:
        y_true: (..., classes), one-hot or any weights.
        y_pred: (..., classes): probabilities, or any numbers with from_logits=True.
        from_logits: whether y_pred is what goes into a softmax, rather than what comes out.
        axis: that of the classes.
        out: an array for the result.

    Returns:
        (...).
    """
    return _forward("categorical_crossentropy", y_true, y_pred, from_logits, out, axis)


@replayed
def categorical_crossentropy_backward(
    dy: Any,
    y_true: Any,
    y_pred: Any,
    *,
    from_logits: bool = False,
    axis: int = -1,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    """The gradients (dy_true, dy_pred) of `categorical_crossentropy`; dy is (...)."""
    return _backward("categorical_crossentropy", dy, y_true, y_pred, from_logits, needs, out, axis)


def _labels(
    op: str, y_true: Any, y_pred: Any, from_logits: bool, out: Any, dy: Any = None
) -> tuple[Any, Any, Any, Shape]:
    if graph.is_symbolic([y_true, y_pred]):
        y_true, y_pred = graph.symbol_of(y_true), graph.symbol_of(y_pred)
    else:
        if y_true is None:
            raise TypeError(f"{op}: expected y_true to be an array, got None")
        given = [graph.array_of(value) for value in (dy, y_true, y_pred)]
        there = device_arrays(op, ("dy", "y_true", "y_pred"), given, out)
        (y_pred,) = common.arguments(op, ("y_pred",), (y_pred,))
        if not y_pred.ndim:
            raise geometry.fail(op, "y_pred of shape (..., classes)", y_pred.shape)
        if there is None:
            y_true = label_array(op, "y_true", given[1], y_pred.shape[-1])
        else:
            y_true = device_labels(op, "y_true", there[1])
    spec, shape = geometry.loss(op, tuple(y_true.shape), tuple(y_pred.shape), True, from_logits)
    return y_true, y_pred, spec, shape


@replayed
def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, *, from_logits: bool = False, out: Any = None
) -> Any:
    """-log(y_pred[label]): `categorical_crossentropy` for labels in place of one-hot targets.

    Args:
        y_true: (...), whole numbers 0 .. classes - 1. On a GPU they are integers, and not looked at
            beforehand: a label that is none gives NaN.
        y_pred: (..., classes): probabilities, or any numbers with from_logits=True.
        from_logits: whether y_pred is what goes into a softmax, rather than what comes out.
        out: an array for the result.

    Returns:
        (...).
    """
    op = "sparse_categorical_crossentropy"
    y_true, y_pred, spec, shape = _labels(op, y_true, y_pred, from_logits, out)
    inputs, dtype = [y_true, y_pred], common.dtype_of(y_pred)
    return common.run(op, spec, _samples(y_pred), inputs, shape, out, op, dtype)


@replayed
def sparse_categorical_crossentropy_backward(
    dy: Any,
    y_true: Any,
    y_pred: Any,
    *,
    from_logits: bool = False,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `sparse_categorical_crossentropy`; dy is (...)."""
    op = "sparse_categorical_crossentropy"
    name = f"{op}_backward"
    y_true, y_pred, spec, shape = _labels(name, y_true, y_pred, from_logits, out, dy)
    dy, _ = common.arguments(name, ("dy", "y_pred"), (dy, y_pred))
    geometry.same_shape(name, "dy", tuple(dy.shape), shape, ", one value per row")
    needs, out = common.flags(name, needs, 2), common.outs(name, out, 2)
    found = common.backward(
        name,
        op,
        spec,
        _samples(y_pred),
        [y_true, y_pred],
        [None],
        dy,
        (False, needs[1]),
        None if out is None else (None, out[1]),
    )
    return None, found[1]


@replayed
def binary_crossentropy(
    y_true: Any, y_pred: Any, *, from_logits: bool = False, axis: int = -1, out: Any = None
) -> Any:
    """The mean of -(t log p + (1 - t) log(1 - p)) over the last axis, or another.

    Args:
        y_true: (..., size), 0 .. 1.
        y_pred: (..., size): probabilities, kept between 1e-7 and 1 - 1e-7, or any numbers with
            from_logits=True.
        from_logits: whether y_pred is what goes into a sigmoid, rather than what comes out.
        axis: the one that the mean is taken over.
        out: an array for the result.

    Returns:
        (...).
    """
    return _forward("binary_crossentropy", y_true, y_pred, from_logits, out, axis)


@replayed
def binary_crossentropy_backward(
    dy: Any,
    y_true: Any,
    y_pred: Any,
    *,
    from_logits: bool = False,
    axis: int = -1,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    """The gradients (dy_true, dy_pred) of `binary_crossentropy`; dy is (...)."""
    return _backward("binary_crossentropy", dy, y_true, y_pred, from_logits, needs, out, axis)


@replayed
def mean_squared_error(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of (y_pred - y_true)**2 over the last axis: (..., size) to (...)."""
    return _forward("mean_squared_error", y_true, y_pred, False, out)


@replayed
def mean_squared_error_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (dy_true, dy_pred) of `mean_squared_error`; dy is (...)."""
    return _backward("mean_squared_error", dy, y_true, y_pred, False, needs, out)


@replayed
def mean_absolute_error(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of |y_pred - y_true| over the last axis: (..., size) to (...)."""
    return _forward("mean_absolute_error", y_true, y_pred, False, out)


@replayed
def mean_absolute_error_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (dy_true, dy_pred) of `mean_absolute_error`; 0 where they are equal."""
    return _backward("mean_absolute_error", dy, y_true, y_pred, False, needs, out)
