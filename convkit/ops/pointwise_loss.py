"""More losses, as Keras 3 defines them: values over the last axis, unless an axis is named.

The gradient of the predictions is known, that of the targets is not.
"""

from __future__ import annotations

from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.geometry import Shape
from convkit.ops import common

# PointwiseLossKind in csrc/specs.h.
KINDS = {
    "hinge": 0,
    "squared_hinge": 1,
    "categorical_hinge": 2,
    "huber": 3,
    "kl_divergence": 4,
    "poisson": 5,
    "log_cosh": 6,
    "mean_absolute_percentage_error": 7,
    "mean_squared_logarithmic_error": 8,
    "cosine_similarity": 9,
    "binary_focal_crossentropy": 10,
    "categorical_focal_crossentropy": 11,
}
UNWEIGHTED = -1.0  # alpha of a focal loss without weights of the classes


def _samples(y_pred: Any) -> int | None:
    return None if y_pred.shape[0] is None else 1


def _forward(op: str, y_true: Any, y_pred: Any, out: Any, **options: Any) -> Any:
    y_true, y_pred = common.arguments(op, ("y_true", "y_pred"), (y_true, y_pred), out)
    spec, shape = geometry.pointwise_loss(
        op, tuple(y_true.shape), tuple(y_pred.shape), KINDS[op], **options
    )
    n = _samples(y_pred)
    return common.run("pointwise_loss", spec, n, [y_true, y_pred], shape, out, op)


def _backward(
    op: str, dy: Any, y_true: Any, y_pred: Any, needs: Any, out: Any, **options: Any
) -> tuple[Any, Any]:
    name = f"{op}_backward"
    dy, y_true, y_pred = common.arguments(
        name, ("dy", "y_true", "y_pred"), (dy, y_true, y_pred), out
    )
    spec, shape = geometry.pointwise_loss(
        name, tuple(y_true.shape), tuple(y_pred.shape), KINDS[op], **options
    )
    return _gradient(name, "pointwise_loss", spec, shape, dy, y_true, y_pred, needs, out)


def _gradient(
    name: str,
    kernel: str,
    spec: Any,
    shape: Shape,
    dy: Any,
    y_true: Any,
    y_pred: Any,
    needs: Any,
    out: Any,
    n: int | None = None,
) -> tuple[Any, Any]:
    geometry.same_shape(name, "dy", tuple(dy.shape), shape, ", one value for each loss")
    needs, out = common.flags(name, needs, 2), common.outs(name, out, 2)
    found = common.backward(
        name,
        kernel,
        spec,
        _samples(y_pred) if n is None else n,
        [y_true, y_pred],
        [None],
        dy,
        (False, needs[1]),
        None if out is None else (None, out[1]),
    )
    return None, found[1]


def _focal(op: str, alpha: object, gamma: object) -> dict[str, float]:
    infinity = float("inf")
    return {
        "a": geometry.number(op, "alpha", alpha, 0, infinity),
        "b": geometry.number(op, "gamma", gamma, 0, infinity),
    }


@replayed
def hinge(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of max(1 - y_true * y_pred, 0) over the last axis.

    Args:
        y_true: (..., size), -1 or 1; 0 counts as -1.
        y_pred: (..., size), any numbers.
        out: an array for the result.

    Returns:
        (...).
    """
    return _forward("hinge", y_true, y_pred, out)


@replayed
def hinge_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `hinge`; dy is (...)."""
    return _backward("hinge", dy, y_true, y_pred, needs, out)


@replayed
def squared_hinge(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of max(1 - y_true * y_pred, 0)**2 over the last axis; arguments as of `hinge`."""
    return _forward("squared_hinge", y_true, y_pred, out)


@replayed
def squared_hinge_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `squared_hinge`; dy is (...)."""
    return _backward("squared_hinge", dy, y_true, y_pred, needs, out)


@replayed
def categorical_hinge(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """max(max((1 - y_true) * y_pred) - sum(y_true * y_pred) + 1, 0) over the last axis.

    Args:
        y_true: (..., classes), one-hot.
        y_pred: (..., classes), any numbers.
        out: an array for the result.

    Returns:
        (...).
    """
    return _forward("categorical_hinge", y_true, y_pred, out)


@replayed
def categorical_hinge_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `categorical_hinge`; dy is (...)."""
    return _backward("categorical_hinge", dy, y_true, y_pred, needs, out)


@replayed
def huber(y_true: Any, y_pred: Any, *, delta: float = 1.0, out: Any = None) -> Any:
    """The mean over the last axis of d**2 / 2 for d = |y_pred - y_true| up to delta, and of
    delta * d - delta**2 / 2 beyond (Huber, 1964).

    Args:
        y_true, y_pred: (..., size).
        delta: at least 0.
        out: an array for the result.

    Returns:
        (...).
    """
    a = geometry.number("huber", "delta", delta, 0, float("inf"))
    return _forward("huber", y_true, y_pred, out, a=a)


@replayed
def huber_backward(
    dy: Any, y_true: Any, y_pred: Any, *, delta: float = 1.0, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `huber`; dy is (...)."""
    a = geometry.number("huber_backward", "delta", delta, 0, float("inf"))
    return _backward("huber", dy, y_true, y_pred, needs, out, a=a)


@replayed
def kl_divergence(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """sum(y_true * log(y_true / y_pred)) over the last axis, both kept between 1e-7 and 1.

    Args:
        y_true, y_pred: (..., classes), probabilities.
        out: an array for the result.

    Returns:
        (...).
    """
    return _forward("kl_divergence", y_true, y_pred, out)


@replayed
def kl_divergence_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `kl_divergence`; dy is (...)."""
    return _backward("kl_divergence", dy, y_true, y_pred, needs, out)


@replayed
def poisson(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of y_pred - y_true * log(y_pred + 1e-7) over the last axis.

    Args:
        y_true: (..., size), counts.
        y_pred: (..., size), at least 0.
        out: an array for the result.

    Returns:
        (...).
    """
    return _forward("poisson", y_true, y_pred, out)


@replayed
def poisson_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `poisson`; dy is (...)."""
    return _backward("poisson", dy, y_true, y_pred, needs, out)


@replayed
def log_cosh(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of log(cosh(y_pred - y_true)) over the last axis: (..., size) to (...)."""
    return _forward("log_cosh", y_true, y_pred, out)


@replayed
def log_cosh_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `log_cosh`; dy is (...)."""
    return _backward("log_cosh", dy, y_true, y_pred, needs, out)


@replayed
def mean_absolute_percentage_error(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of 100 * |y_true - y_pred| / max(|y_true|, 1e-7): (..., size) to (...)."""
    return _forward("mean_absolute_percentage_error", y_true, y_pred, out)


@replayed
def mean_absolute_percentage_error_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `mean_absolute_percentage_error`; 0 where both are equal."""
    return _backward("mean_absolute_percentage_error", dy, y_true, y_pred, needs, out)


@replayed
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any, *, out: Any = None) -> Any:
    """The mean of (log(y_pred + 1) - log(y_true + 1))**2, both at least 1e-7: (..., size) to (...).

    What is less has no gradient.
    """
    return _forward("mean_squared_logarithmic_error", y_true, y_pred, out)


@replayed
def mean_squared_logarithmic_error_backward(
    dy: Any, y_true: Any, y_pred: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `mean_squared_logarithmic_error`; dy is (...)."""
    return _backward("mean_squared_logarithmic_error", dy, y_true, y_pred, needs, out)


@replayed
def cosine_similarity(y_true: Any, y_pred: Any, *, axis: int = -1, out: Any = None) -> Any:
    """-sum(y_true * y_pred) of vectors divided by their lengths: -1 is the same direction.

    Args:
        y_true, y_pred: of one shape; vectors of a length below 1e-7 are divided by that.
        axis: along which a vector lies.
        out: an array for the result.

    Returns:
        Of that shape without the axis.
    """
    return _forward("cosine_similarity", y_true, y_pred, out, axis=axis)


@replayed
def cosine_similarity_backward(
    dy: Any, y_true: Any, y_pred: Any, *, axis: int = -1, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `cosine_similarity`."""
    return _backward("cosine_similarity", dy, y_true, y_pred, needs, out, axis=axis)


@replayed
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    *,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    axis: int = -1,
    out: Any = None,
) -> Any:
    """The mean of q**gamma times the binary cross-entropy, where q is the share of a prediction
    that is wrong: what is right already counts little (Lin et al., 2018).

    Args:
        y_true: 0 .. 1.
        y_pred: of y_true's shape: probabilities, or any numbers with from_logits=True.
        apply_class_balancing: whether terms have a weight: alpha for targets of 1, 1 - alpha for
            those of 0.
        alpha: at least 0.
        gamma: at least 0.
        from_logits: whether y_pred is what goes into a sigmoid, rather than what comes out.
        axis: the one that the mean is taken over.
        out: an array for the result.

    Returns:
        Of that shape without the axis.
    """
    op = "binary_focal_crossentropy"
    numbers = _focal(op, alpha, gamma)
    if not apply_class_balancing:
        numbers["a"] = UNWEIGHTED
    return _forward(op, y_true, y_pred, out, axis=axis, from_logits=from_logits, **numbers)


@replayed
def binary_focal_crossentropy_backward(
    dy: Any,
    y_true: Any,
    y_pred: Any,
    *,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    axis: int = -1,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `binary_focal_crossentropy`."""
    op = "binary_focal_crossentropy"
    numbers = _focal(f"{op}_backward", alpha, gamma)
    if not apply_class_balancing:
        numbers["a"] = UNWEIGHTED
    options = {"axis": axis, "from_logits": from_logits, **numbers}
    return _backward(op, dy, y_true, y_pred, needs, out, **options)


@replayed
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    axis: int = -1,
    out: Any = None,
) -> Any:
    """-sum(alpha * (1 - p)**gamma * y_true * log(p)): what is right already counts little.

    Args:
        y_true: one-hot or any weights.
        y_pred: of y_true's shape: probabilities, which are divided by their sum and kept between
            1e-7 and 1 - 1e-7, or any numbers with from_logits=True.
        alpha: a factor, at least 0.
        gamma: at least 0.
        from_logits: whether y_pred is what goes into a softmax, rather than what comes out.
        axis: that of the classes.
        out: an array for the result.

    Returns:
        Of that shape without the axis.
    """
    op = "categorical_focal_crossentropy"
    options = {"axis": axis, "from_logits": from_logits, **_focal(op, alpha, gamma)}
    return _forward(op, y_true, y_pred, out, **options)


@replayed
def categorical_focal_crossentropy_backward(
    dy: Any,
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    axis: int = -1,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `categorical_focal_crossentropy`."""
    op = "categorical_focal_crossentropy"
    numbers = _focal(f"{op}_backward", alpha, gamma)
    options = {"axis": axis, "from_logits": from_logits, **numbers}
    return _backward(op, dy, y_true, y_pred, needs, out, **options)


def _dice(op: str, y_true: Any, y_pred: Any, axis: object) -> tuple[str, Any, Shape, int | None]:
    """Kernel, spec, shape of the result, and the number of samples."""
    given = tuple(y_true.shape), tuple(y_pred.shape)
    if axis is None:
        spec, shape = geometry.batch_loss(op, *given)
        return "batch_dice", spec, shape, y_pred.shape[0]
    spec, shape = geometry.loss_over(op, *given, axis)
    return "dice", spec, shape, _samples(y_pred)


@replayed
def dice(y_true: Any, y_pred: Any, *, axis: Any = None, out: Any = None) -> Any:
    """1 - 2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred) + 1e-7): how little two masks
    overlap (Dice, 1945; Milletari et al., 2016).

    Args:
        y_true, y_pred: (N, ...), 0 .. 1.
        axis: the axis, or several that stand together, that sums are taken over. None: all of
            them, the whole batch.
        out: an array for the result.

    Returns:
        Of that shape without these axes; (N,), the same for each sample, with axis=None.
    """
    op = "dice"
    y_true, y_pred = common.arguments(op, ("y_true", "y_pred"), (y_true, y_pred), out)
    kernel, spec, shape, n = _dice(op, y_true, y_pred, axis)
    return common.run(kernel, spec, n, [y_true, y_pred], shape, out, op)


@replayed
def dice_backward(
    dy: Any, y_true: Any, y_pred: Any, *, axis: Any = None, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (None, dy_pred) of `dice`; dy has the shape of its result."""
    name = "dice_backward"
    dy, y_true, y_pred = common.arguments(
        name, ("dy", "y_true", "y_pred"), (dy, y_true, y_pred), out
    )
    kernel, spec, shape, n = _dice(name, y_true, y_pred, axis)
    return _gradient(name, kernel, spec, shape, dy, y_true, y_pred, needs, out, n)
