"""How tests call an op and judge what comes back.

Two judges, and no guessed tolerance: `assert_exact` for values that floating point holds exactly
(integers, copies, maxima), `assert_within` with a bound that the test derives. A sum of products
in any order, fused or not, differs from the true one by at most gamma(K) times the sum of the
products' sizes (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import reference
from cases import Case, arrays, upstream

from convkit import ops

EXACT_FILLS = ("integers", "ties")
IMAGE_OPS = ("conv2d", "max_pool2d", "avg_pool2d", "upsample2d")
IMAGES_FIRST = (0, 3, 1, 2)  # channels_last to channels_first
IMAGES_LAST = (0, 2, 3, 1)


# ---- calls -------------------------------------------------------------------------------------


def forward(case: Case, given: Sequence, *, module: Any = ops, **more) -> Any:
    """The op (or its reference, with module=reference) on its array arguments."""
    op = getattr(module, case.op)
    arguments = (list(given),) if case.op == "concatenate" else given
    return op(*arguments, **case.options, **more)


def backward(case: Case, dy: np.ndarray, given: Sequence, *, module: Any = ops, **more) -> tuple:
    """The gradients of the op's array arguments, always as a tuple."""
    op = getattr(module, f"{case.op}_backward")
    arguments = (list(given),) if case.op == "concatenate" else given
    gradients = op(dy, *arguments, **case.options, **more)
    return tuple(gradients) if isinstance(gradients, list | tuple) else (gradients,)


@functools.cache
def expected(case: Case, fill: str | None = None) -> tuple:
    """Arguments, dy, reference y and reference gradients of a case, all in float64.

    The arguments and dy have values that float32 holds too, so they serve for both types.
    """
    given = arrays(case, np.float64, fill)
    y = forward(case, given, module=reference)
    dy = upstream(case, y.shape, np.float64, "integers" if fill in EXACT_FILLS else "normal")
    gradients = backward(case, dy, given, module=reference)
    for array in [*given, y, dy, *gradients]:
        if array is not None:
            array.flags.writeable = False
    return given, dy, y, gradients


def narrowed(given: Sequence, dtype: Any) -> list:
    """Float arguments in `dtype`; labels and absent arguments as they are."""
    return [
        array.astype(dtype) if array is not None and array.dtype.kind == "f" else array
        for array in given
    ]


def sizes(given: Sequence) -> list:
    """|a| of every argument: what a bound on a sum of products is made from."""
    return [None if array is None else np.abs(array) for array in given]


def channels_first(case: Case, given: Sequence) -> list:
    """The arguments of an image op with its images (not its kernel) as channels_first."""
    return [to_first(given[0]), *given[1:]]


def to_first(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(IMAGES_FIRST))


def to_last(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(IMAGES_LAST))


# ---- judges ------------------------------------------------------------------------------------


def assert_like(actual: Any, expected: np.ndarray, dtype: Any) -> None:
    assert isinstance(actual, np.ndarray), f"expected an array, got {type(actual).__name__}"
    assert actual.dtype == np.dtype(dtype), f"expected {np.dtype(dtype)}, got {actual.dtype}"
    assert actual.shape == expected.shape, f"expected {expected.shape}, got {actual.shape}"


def assert_exact(actual: Any, expected: np.ndarray, dtype: Any) -> None:
    """Every value as expected, NaN where NaN is expected, 0 and -0 alike."""
    assert_like(actual, expected, dtype)
    wrong = ~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    assert not wrong.any(), differences(actual, expected, wrong)


def assert_within(actual: Any, expected: np.ndarray, bound: Any, dtype: Any) -> None:
    """|actual - expected| <= bound, value by value; a NaN on either side fails."""
    assert_like(actual, expected, dtype)
    with np.errstate(over="ignore"):
        limit = np.broadcast_to(bound, expected.shape) + np.finfo(dtype).tiny
    wrong = ~(np.abs(actual.astype(np.float64) - expected) <= limit)
    assert not wrong.any(), differences(actual, expected, wrong, limit)


def assert_same_bits(actual: Any, expected: np.ndarray) -> None:
    assert_like(actual, expected, expected.dtype)
    assert actual.tobytes() == expected.tobytes(), differences(
        actual, expected, actual.view(f"u{actual.itemsize}") != expected.view(f"u{actual.itemsize}")
    )


def differences(actual, expected, wrong, limit=None) -> str:
    """The first few differences in words."""
    places = np.argwhere(wrong)
    lines = [f"{len(places)} of {wrong.size} values differ"]
    for place in map(tuple, places[:5]):
        index = tuple(int(i) for i in place)
        line = f"at {index}: expected {expected[place]!r}, got {actual[place]!r}"
        lines.append(line if limit is None else f"{line}, allowed {limit[place]:.3g}")
    return "\n".join(lines)


def gamma(count: int | np.ndarray, dtype: Any) -> Any:
    """k u / (1 - k u) for `count` roundings in dtype, plus as much for the float64 reference."""

    def one(unit: float) -> Any:
        return count * unit / (1.0 - count * unit)

    return one(np.finfo(dtype).eps / 2) + one(np.finfo(np.float64).eps / 2)


# ---- gradients by finite differences -----------------------------------------------------------


def assert_gradients_match_differences(
    run: Callable[[list], np.ndarray],
    gradients: Sequence,
    given: Sequence,
    dy: np.ndarray,
    *,
    step: float = 2.0**-17,
) -> None:
    """Central differences of sum(dy * run(...)) along a random direction per array argument.

    All in float64. Two steps are combined (Richardson) so that what remains of the curvature is of
    the order of step ** 4 and below rounding, which is eps * size / step for a sum of that size.
    One random direction sees every wrong value.
    """
    rng = np.random.default_rng(7)
    for which, (array, gradient) in enumerate(zip(given, gradients, strict=True)):
        if array is None or array.dtype.kind != "f":
            assert gradient is None
            continue
        direction = rng.choice([-1.0, -0.5, 0.5, 1.0], size=array.shape)

        def along(distance: float, which=which, array=array, direction=direction) -> np.ndarray:
            return run([*given[:which], array + distance * direction, *given[which + 1 :]])

        near, far = (along(h) - along(-h) for h in (step / 2, step))
        quotient = float(np.sum(dy * (8.0 * near - far))) / (6.0 * step)
        slope = float(np.sum(gradient * direction))
        size = float(np.sum(np.abs(dy) * np.abs(along(0.0))))
        allowed = 1e-9 * (1.0 + size)
        assert abs(slope - quotient) <= allowed, (
            f"argument {which}: the gradient says {slope}, differences say {quotient}, "
            f"allowed {allowed:.3g}"
        )


def check_differences(case: Case, fill: str | None = None) -> None:
    """The gradients of a case against differences of the op itself."""
    given = arrays(case, np.float64, fill)
    y = forward(case, given)
    dy = upstream(case, y.shape)
    gradients = backward(case, dy, given)
    assert_gradients_match_differences(lambda a: forward(case, a), gradients, given, dy)


# ---- arrays in disguise ------------------------------------------------------------------------


def disguises(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays with the same values and other strides, alignment, byte order or flags."""
    read_only = array.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only

    yield "byte-swapped", array.astype(array.dtype.newbyteorder())

    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)
    unaligned = raw[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield "unaligned", unaligned

    yield "Fortran order", np.asfortranarray(array)

    spread = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    spread[..., ::2] = array
    yield "every other value", spread[..., ::2]

    yield "negative strides", np.ascontiguousarray(array[..., ::-1])[..., ::-1]


def guarded(array: np.ndarray) -> tuple[np.ndarray, Callable[[], bool]]:
    """A copy between two stretches of NaN (or huge integers), and whether those still stand.

    The copy starts at an odd place, so that no kernel can lean on the alignment of a register.
    """
    margin = 67
    poison = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    buffer = np.full(array.size + 2 * margin, poison, dtype=array.dtype)
    before, inside, after = np.split(buffer, [margin, margin + array.size])
    inside[...] = array.ravel()
    untouched = before.tobytes(), after.tobytes()
    return inside.reshape(array.shape), lambda: (before.tobytes(), after.tobytes()) == untouched
