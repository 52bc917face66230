"""batch_norm, layer_norm, prelu and the kernels behind them."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import BATCH_NORM, LAYER_NORM, PRELU, arrays, upstream
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
    assert_same_bits,
    assert_within,
    backward,
    check_differences,
    expected,
    forward,
    gamma,
    guarded,
    narrowed,
)
from norms import Bounds

from convkit import _core, ops

pytestmark = pytest.mark.usefixtures("backend")

NORMS = [*BATCH_NORM, *LAYER_NORM]
every_norm = pytest.mark.parametrize("case", NORMS, ids=str)
every_prelu = pytest.mark.parametrize("case", PRELU, ids=lambda case: case.name)


@every_norm
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, rights = expected(case)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    if not y.size:
        assert forward(case, narrowed(given, dtype)).shape == y.shape
        for actual, right in zip(found, rights, strict=True):
            assert_exact(actual, right, dtype)
        return
    bounds = Bounds(case, given, dtype)
    assert_within(forward(case, narrowed(given, dtype)), y, bounds.y(), dtype)
    for actual, right, bound in zip(found, rights, bounds.gradients(dy), strict=True):
        if right is None:
            assert actual is None
        else:
            assert_within(actual, right, bound, dtype)


@every_norm
def test_gradients_match_differences(case):
    if case.name != "one_channel" or case.op == "batch_norm":  # else y is beta, whatever x
        check_differences(case)


@pytest.mark.parametrize("shape", [(64, 13, 11, 3), (500, 17), (9, 5, 700)])
@pytest.mark.parametrize("mean", [1e3, 1e5])
def test_a_large_mean_costs_no_digits(shape, mean):
    rng = np.random.default_rng(3)
    x = (rng.normal(size=shape) + mean * rng.normal(size=shape[-1])).astype(np.float32)
    wide = x.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    y, means, variances = ops.batch_norm(x, return_moments=True)
    unit = np.spacing(np.abs(x).max(axis=axes)).astype(np.float64)
    # The mean to the last place or the next, and what that does to the variance.
    assert_within(means, wide.mean(axis=axes), unit, np.float32)
    allowed = 1e-5 * wide.var(axis=axes) + unit**2
    assert_within(variances, wide.var(axis=axes), allowed, np.float32)
    right = reference.batch_norm(wide)
    scale = 1 / np.sqrt(wide.var(axis=axes) + 1e-3)
    assert_within(y, right, unit * scale + 1e-5 * np.abs(right), np.float32)

    rows = np.moveaxis(x, -1, 0).reshape(shape[-1], -1)
    y = ops.layer_norm(rows)
    right = reference.layer_norm(rows.astype(np.float64))
    assert_within(y, right, (unit * scale)[:, None] + 2e-5 * np.abs(right), np.float32)


def test_a_first_value_far_from_the_others_costs_no_digits():
    rng = np.random.default_rng(3)
    x = (1000 + rng.normal(size=(4096, 3))).astype(np.float32)
    x[0] = 0
    wide = x.astype(np.float64)
    _, means, variances = ops.batch_norm(x, return_moments=True)
    assert_within(means, wide.mean(axis=0), 2e-7 * wide.mean(axis=0), np.float32)
    assert_within(variances, wide.var(axis=0), 1e-5 * wide.var(axis=0), np.float32)


def test_a_channel_of_one_value_becomes_beta(dtype):
    x = np.full((5, 7, 3), 1234.5678, dtype)
    beta = np.array([1, -2, 0.5], dtype)
    y, mean, variance = ops.batch_norm(x, None, beta, return_moments=True)
    np.testing.assert_array_equal(y, np.broadcast_to(beta, y.shape))
    np.testing.assert_array_equal(mean, x[0, 0])
    np.testing.assert_array_equal(variance, np.zeros(3))


def test_no_rows_have_moments_of_zero(dtype):
    y, mean, variance = ops.batch_norm(np.zeros((0, 5, 3), dtype), return_moments=True)
    assert y.shape == (0, 5, 3)
    assert_exact(mean, np.zeros(3), dtype)
    assert_exact(variance, np.zeros(3), dtype)


def test_nan_stays_in_its_channel_or_its_row(dtype, rng):
    x = rng.normal(size=(40, 7, 6)).astype(dtype)
    x[3, 2, 4] = np.nan
    y, mean, variance = ops.batch_norm(x, return_moments=True)
    for found in (y, mean, variance):
        bad = np.isnan(found)
        assert bad[..., 4].all() and not np.delete(bad, 4, axis=-1).any()
    dx, dgamma, _ = ops.batch_norm_backward(x, x, np.ones(6, dtype))
    assert np.isnan(dx[..., 4]).all() and np.isnan(dgamma[4])
    assert np.isfinite(np.delete(dx, 4, axis=-1)).all()
    for width in (6, 4 * 7 * 6):  # short rows and long ones
        rows = x.reshape(-1, width)
        bad = np.isnan(rows).any(axis=1)
        np.testing.assert_array_equal(np.isnan(ops.layer_norm(rows)).all(axis=1), bad)
        np.testing.assert_array_equal(np.isnan(ops.layer_norm(rows)).any(axis=1), bad)


def test_no_epsilon_is_allowed(dtype, rng):
    x = rng.normal(size=(37, 3)).astype(dtype)
    right = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    np.testing.assert_allclose(ops.layer_norm(x, epsilon=0), right, rtol=0, atol=1e-5)
    _, dgamma, _ = ops.layer_norm_backward(x, x, np.ones(3, dtype), epsilon=0)
    assert np.isfinite(dgamma).all()


# ---- a mean and a variance that are given --------------------------------------------------------

GIVEN = [
    ("channels", (4, 5, 6, 3), {}, "gb"),
    ("tail", (37, 17), {"epsilon": 0.1}, "gb"),
    ("many", (5, 3, 521), {}, "gb"),
    ("no_gamma", (4, 5, 3), {}, "b"),
    ("no_beta", (4, 5, 3), {}, "g"),
    ("bare", (4, 5, 1), {}, ""),
    ("channels_first", (4, 6, 5, 3), {"axis": 1}, "gb"),
    ("empty_batch", (0, 5, 3), {}, "gb"),
]
every_given = pytest.mark.parametrize(
    ("shape", "options", "there"), [case[1:] for case in GIVEN], ids=[case[0] for case in GIVEN]
)


def given_moments(shape: tuple, options: dict, there: str) -> list:
    rng = np.random.default_rng(11)
    channels = shape[options.get("axis", -1)]
    x = rng.normal(size=shape).astype(np.float32)
    numbers = rng.normal(size=(3, channels)).astype(np.float32)
    variance = rng.uniform(0.5, 2, size=channels).astype(np.float32)
    found = [
        x,
        numbers[0] if "g" in there else None,
        numbers[1] if "b" in there else None,
        numbers[2],
        variance,
    ]
    return [None if value is None else value.astype(np.float64) for value in found]


@every_given
def test_given_moments_are_taken(shape, options, there, dtype):
    given = given_moments(shape, options, there)
    y = reference.batch_norm(*given, **options)
    narrow = narrowed(given, dtype)
    # A factor and an offset are made first, so terms count that cancel.
    axis = options.get("axis", -1)
    inverse = 1 / np.sqrt(given[4] + options.get("epsilon", 1e-3))
    factor = inverse * (1 if given[1] is None else np.abs(given[1]))
    offset = np.abs(given[3]) * factor + (0 if given[2] is None else np.abs(given[2]))
    along = [reference.along(value, given[0], axis, 0) for value in (factor, offset)]
    bound = gamma(8, dtype) * (np.abs(given[0]) * along[0] + along[1])
    assert_within(ops.batch_norm(*narrow, **options), y, bound, dtype)

    dy = np.random.default_rng(12).normal(size=shape).astype(np.float32).astype(np.float64)
    rights = reference.batch_norm_backward(dy, *given, **options)
    found = ops.batch_norm_backward(dy.astype(dtype), *narrow, **options)
    others = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    count = gamma(int(np.prod([shape[i] for i in others])) + 8, dtype)
    total = np.abs(dy).sum(axis=others)
    size = (np.abs(dy) * np.abs(given[0])).sum(axis=others) + np.abs(given[3]) * total
    bounds = [gamma(8, dtype) * np.abs(rights[0]), count * size * inverse, count * total]
    for actual, right, limit in zip(found, rights, bounds, strict=True):
        if right is None:
            assert actual is None
        else:
            assert_within(actual, right, limit, dtype)


@every_given
def test_gradients_with_given_moments_match_differences(shape, options, there):
    given = given_moments(shape, options, there)
    dy = np.random.default_rng(12).normal(size=shape)
    gradients = ops.batch_norm_backward(dy, *given, **options)

    def run(numbers: list) -> np.ndarray:
        return ops.batch_norm(*numbers, *given[3:], **options)

    assert_gradients_match_differences(run, gradients, given[:3], dy)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("needs", [(True, False, False), (False, True, True), (False, False, True)])
def test_gradients_nobody_needs_are_left_out(needs, given, dtype):
    values = narrowed(given_moments((6, 5, 3), {}, "gb"), dtype)[: 5 if given else 3]
    dy = np.random.default_rng(12).normal(size=(6, 5, 3)).astype(dtype)
    full = ops.batch_norm_backward(dy, *values)
    found = ops.batch_norm_backward(dy, *values, needs=needs)
    for need, one, other in zip(needs, found, full, strict=True):
        if need:
            assert_same_bits(one, other)
        else:
            assert one is None


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("axis", [-1, 1])
def test_results_go_where_they_are_wanted(axis, given, dtype):
    values = narrowed(given_moments((6, 3, 3), {"axis": axis}, "gb"), dtype)[: 5 if given else 3]
    right = ops.batch_norm(*values, axis=axis)
    out = np.full_like(right, np.nan)
    assert ops.batch_norm(*values, axis=axis, out=out) is out
    assert_same_bits(out, right)
    dy = values[0]
    rights = ops.batch_norm_backward(dy, *values, axis=axis)
    outs = tuple(np.full_like(value, np.nan) for value in rights)
    found = ops.batch_norm_backward(dy, *values, axis=axis, out=outs)
    for one, other, expected_ in zip(found, outs, rights, strict=True):
        assert one is other
        assert_same_bits(one, expected_)


@pytest.mark.parametrize("axis", [1, 2])
def test_another_axis_gives_the_same_bits(axis, dtype, rng):
    x = rng.normal(size=(4, 5, 6, 3)).astype(dtype)
    numbers = rng.normal(size=(2, x.shape[axis])).astype(dtype)
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    y = ops.batch_norm(x, *numbers, axis=axis)
    assert_same_bits(np.moveaxis(y, axis, -1).copy(), ops.batch_norm(moved, *numbers))
    dx, dgamma, dbeta = ops.batch_norm_backward(x, x, *numbers, axis=axis)
    rights = ops.batch_norm_backward(moved, moved, *numbers)
    for one, right in zip((np.moveaxis(dx, axis, -1).copy(), dgamma, dbeta), rights, strict=True):
        assert_same_bits(one, right)


# ---- PReLU ---------------------------------------------------------------------------------------


@every_prelu
def test_prelu_rounds_once(case, dtype):
    given, dy, y, rights = expected(case)
    narrow = narrowed(given, dtype)
    assert_within(forward(case, narrow), y, gamma(1, dtype) * np.abs(y), dtype)
    dx, dalpha = backward(case, dy.astype(dtype), narrow)
    assert_within(dx, rights[0], gamma(1, dtype) * np.abs(rights[0]), dtype)
    sizes = reference.prelu_backward(np.abs(dy), -np.abs(given[0]), given[1])[1]
    assert_within(dalpha, rights[1], gamma(y.size + 1, dtype) * np.abs(sizes), dtype)


@every_prelu
def test_prelu_of_integers_is_exact(case, dtype):
    given, dy, y, rights = expected(case, "integers")
    narrow = narrowed(given, dtype)
    assert_exact(forward(case, narrow), y, dtype)
    for actual, right in zip(backward(case, dy.astype(dtype), narrow), rights, strict=True):
        assert_exact(actual, right, dtype)


@every_prelu
def test_prelu_gradients_match_differences(case):
    if case.name != "several_chunks":  # too many values for none to be next to 0
        check_differences(case, "normal")


def test_prelu_keeps_nan_and_signs(dtype):
    x = np.array([[np.nan, -np.inf, np.inf, -0.0, 2.0]], dtype)
    y = ops.prelu(x, np.full(5, 0.5, dtype))
    np.testing.assert_array_equal(y, [[np.nan, -np.inf, np.inf, 0, 2]])
    dx, dalpha = ops.prelu_backward(np.ones_like(x), x, np.full(5, 0.5, dtype))
    np.testing.assert_array_equal(dx, [[0.5, 0.5, 1, 0.5, 1]])
    np.testing.assert_array_equal(dalpha, [np.nan, -np.inf, 0, 0, 0])


@pytest.mark.parametrize("name", ["channels", "columns_shared", "channels_first"])
def test_prelu_writes_where_it_is_wanted(name, dtype):
    case = next(case for case in PRELU if case.name == name)
    given = narrowed(expected(case)[0], dtype)
    right = forward(case, given)
    out = np.full_like(right, np.nan)
    assert forward(case, given, out=out) is out
    assert_same_bits(out, right)
    dy = upstream(case, right.shape, dtype)
    rights = backward(case, dy, given)
    outs = tuple(np.full_like(value, np.nan) for value in rights)
    for one, other, value in zip(backward(case, dy, given, out=outs), outs, rights, strict=True):
        assert one is other
        assert_same_bits(one, value)
    assert backward(case, dy, given, needs=(False, True))[0] is None


# ---- threads and runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in [*NORMS, *PRELU] if c.shapes[0][0] > 8], ids=str)
def test_threads_change_no_bits(case, threads):
    given = arrays(case, np.float32)
    results = []
    for count in (1, 2, 5):
        threads(count)
        y = forward(case, given)
        dy = upstream(case, y.shape, np.float32)
        results.append([y, *(g for g in backward(case, dy, given) if g is not None)])
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            assert_same_bits(one, other)


# ---- kernels that are no op ----------------------------------------------------------------------


def kernel(name: str, spec, inputs: list, shapes: list, dtype, n: int = 1) -> list:
    """A kernel's outputs, with NaN around all arrays and in all outputs."""
    arrays_in = [None if a is None else guarded(a) for a in inputs]
    made = [None if s is None else guarded(np.full(s, np.nan, dtype)) for s in shapes]
    _core.run_kernel(
        name,
        spec,
        n,
        np.dtype(dtype).name,
        [None if a is None else a[0] for a in arrays_in],
        [None if a is None else a[0] for a in made],
    )
    assert all(a[1]() for a in [*arrays_in, *made] if a is not None)
    return [None if a is None else a[0] for a in made]


AFFINE_SHAPES = [
    (3, 5, 1),
    (5, 7, 3),
    (1, 1, 6),
    (13, 11, 17),
    (2, 3, 521),
    (67, 131, 6),
    (0, 4, 3),
]


@pytest.mark.parametrize("shape", AFFINE_SHAPES, ids=str)
@pytest.mark.parametrize("there", ["sf", "s", "f", ""])
def test_channel_affine(shape, there, dtype):
    rng = np.random.default_rng(4)
    n, rows, channels = shape
    spec = _core.ChannelAffine(rows=rows, channels=channels)
    x, dy = rng.integers(-4, 5, size=(2, *shape)).astype(dtype)
    scale, shift = rng.integers(-4, 5, size=(2, channels)).astype(dtype)
    scale, shift = (v if flag in there else None for v, flag in ((scale, "s"), (shift, "f")))
    (y,) = kernel("channel_affine", spec, [x, scale, shift], [shape], dtype, n)
    factor = 1 if scale is None else scale
    assert_exact(y, (x * factor + (0 if shift is None else shift)).astype(np.float64), dtype)

    rights = [dy * factor, (dy * x).sum(axis=(0, 1)), dy.sum(axis=(0, 1))]
    rights = [np.asarray(right, np.float64) for right in rights]
    for wanted in ("xsf", "x", "sf", "f", "xf", "xs"):
        sizes = {"x": shape, "s": channels, "f": channels}
        targets = [size if which in wanted else None for which, size in sizes.items()]
        inputs = [dy, x if "s" in wanted else None, scale]
        for one, right in zip(
            kernel("channel_affine_backward", spec, inputs, targets, dtype, n), rights, strict=True
        ):
            if one is not None:
                assert_exact(one, right, dtype)


def test_channel_affine_and_norms_work_in_place(dtype, rng):
    x = rng.normal(size=(37, 6)).astype(dtype)
    scale, shift = rng.normal(size=(2, 6)).astype(dtype)
    name = np.dtype(dtype).name
    for kernel_name, spec, inputs, more in (
        ("channel_affine", _core.ChannelAffine(rows=1, channels=6), [scale, shift], []),
        ("batch_norm", _core.BatchNorm(rows=1, channels=6, epsilon=0.1), [scale, shift], [6, 6]),
        ("layer_norm", _core.LayerNorm(rows=1, size=6, epsilon=0.1), [scale, shift], []),
        ("prelu", _core.PRelu(rows=1, size=6), [scale], []),
    ):
        outputs = [(size,) for size in more]
        right = _core.run_kernel(kernel_name, spec, 37, name, [x, *inputs], [x.shape, *outputs])[0]
        y = x.copy()
        _core.run_kernel(kernel_name, spec, 37, name, [y, *inputs], [y, *outputs])
        assert_same_bits(y, right)


@pytest.mark.parametrize("there", ["gb", "g", "b", ""])
@pytest.mark.parametrize("channels", [1, 6, 131])
def test_batch_norm_affine(channels, there, dtype):
    rng = np.random.default_rng(5)
    gamma_, beta, mean, dscale, dshift = rng.normal(size=(5, channels)).astype(dtype)
    variance = rng.uniform(0.1, 3, size=channels).astype(dtype)
    gamma_, beta = (v if w in there else None for v, w in ((gamma_, "g"), (beta, "b")))
    spec = _core.BatchNorm(rows=3, channels=channels, epsilon=1e-3)
    scale, shift = kernel(
        "batch_norm_affine", spec, [gamma_, beta, mean, variance], [channels, channels], dtype
    )
    wide = [None if v is None else v.astype(np.float64) for v in (gamma_, beta, mean, variance)]
    inverse = 1 / np.sqrt(wide[3] + 1e-3)
    right = inverse * (1 if wide[0] is None else wide[0])
    offset = 0 if wide[1] is None else wide[1]
    assert_within(scale, right, gamma(8, dtype) * np.abs(right), dtype)
    size = np.abs(offset) + np.abs(wide[2] * right)
    assert_within(shift, offset - wide[2] * right, gamma(8, dtype) * size, dtype)

    dgamma, dbeta = kernel(
        "batch_norm_affine_backward",
        spec,
        [dscale, dshift, mean, variance],
        [channels, channels],
        dtype,
    )
    change = dscale.astype(np.float64) - wide[2] * dshift
    size = np.abs(dscale) + np.abs(wide[2] * dshift)
    assert_within(dgamma, change * inverse, gamma(8, dtype) * size * inverse, dtype)
    assert_same_bits(dbeta, dshift)


@pytest.mark.parametrize("shape", [(1, 1), (9, 6), (25, 17), (3, 521)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_fold_affine(shape, bias, dtype):
    rng = np.random.default_rng(6)
    rows, filters = shape
    weights = rng.integers(-4, 5, size=shape).astype(dtype)
    offset, scale, shift = rng.integers(-4, 5, size=(3, filters)).astype(dtype)
    given = [weights, offset if bias else None, scale, shift]
    spec = _core.Fold(rows=rows, filters=filters)
    folded, offsets = kernel("fold_affine", spec, given, [shape, filters], dtype)
    assert_exact(folded, (weights * scale).astype(np.float64), dtype)
    right = (offset * scale if bias else 0) + shift
    assert_exact(offsets, right.astype(np.float64), dtype)


def test_a_folded_convolution_is_the_convolution_and_its_normalisation(rng):
    x = rng.normal(size=(2, 7, 6, 3))
    weights, bias = rng.normal(size=(3, 3, 3, 5)), rng.normal(size=5)
    numbers = [*rng.normal(size=(3, 5)), rng.uniform(0.5, 2, size=5)]
    right = ops.batch_norm(ops.conv2d(x, weights, bias), *numbers)
    spec = _core.BatchNorm(rows=1, channels=5, epsilon=1e-3)
    scale, shift = kernel("batch_norm_affine", spec, numbers, [5, 5], np.float64)
    fold = _core.Fold(rows=27, filters=5)
    folded, offset = kernel(
        "fold_affine", fold, [weights, bias, scale, shift], [weights.shape, 5], np.float64
    )
    np.testing.assert_allclose(ops.conv2d(x, folded, offset), right, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1, 17, 700])
@pytest.mark.parametrize("momentum", [0.0, 0.75, 1.0])
def test_moving_average(size, momentum, dtype, rng):
    value, before = rng.integers(-64, 64, size=(2, size)).astype(dtype)
    moving, untouched = guarded(before)
    spec = _core.MovingAverage(size=size, momentum=momentum)
    _core.run_kernel("moving_average", spec, 1, np.dtype(dtype).name, [value], [moving])
    assert untouched()
    assert_exact(moving, (momentum * before + (1 - momentum) * value).astype(np.float64), dtype)


# ---- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ops.batch_norm(None), TypeError, "batch_norm: expected x"),
        (lambda x: ops.batch_norm(x[0, 0]), ValueError, "batch_norm: expected x of shape"),
        (lambda x: ops.batch_norm(x, x[0]), ValueError, "gamma of shape"),
        (lambda x: ops.batch_norm(x, beta=x[0]), ValueError, "beta of shape"),
        (lambda x: ops.batch_norm(x, mean=x[0, 0]), TypeError, "got no variance"),
        (lambda x: ops.batch_norm(x, variance=x[0, 0]), TypeError, "got no mean"),
        (lambda x: ops.batch_norm(x, axis=0), ValueError, "other than that of the samples"),
        (lambda x: ops.batch_norm(x, axis=3), ValueError, "axis between -3 and 2"),
        (lambda x: ops.batch_norm(x, axis="last"), TypeError, "axis to be an integer"),
        (lambda x: ops.batch_norm(x, epsilon=-1), ValueError, "epsilon"),
        (lambda x: ops.batch_norm(x, out=x[0].copy()), ValueError, "out of shape"),
        (lambda x: ops.batch_norm(x, out="y"), TypeError, "out to be"),
        (lambda x: ops.batch_norm(x, axis=1, out=x[0].copy()), ValueError, "out of shape"),
        (lambda x: ops.batch_norm(x[:, :, :0]), ValueError, "at least one channel"),
        (lambda x: ops.batch_norm_backward(x[0], x), ValueError, "dy of shape"),
        (lambda x: ops.batch_norm_backward(x, x, needs=(True,)), ValueError, "needs"),
        (lambda x: ops.layer_norm(x, axis=1), ValueError, "the last axis"),
        (lambda x: ops.layer_norm(x, axis=()), ValueError, "the last axis"),
        (lambda x: ops.layer_norm(x, axis=(0, 2)), ValueError, "the last axis"),
        (lambda x: ops.layer_norm(x, axis=5), ValueError, "axis between"),
        (lambda x: ops.layer_norm(x, x[0]), ValueError, "gamma of shape"),
        (lambda x: ops.layer_norm(x[:, :, :0]), ValueError, "at least one value"),
        (lambda x: ops.layer_norm(x, epsilon="small"), TypeError, "epsilon"),
        (lambda x: ops.layer_norm_backward(x[0], x), ValueError, "dy of shape"),
        (lambda x: ops.prelu(x, x[0, :, :3]), ValueError, "alpha of shape"),
        (lambda x: ops.prelu(x, x), ValueError, "alpha with 1 to 2 axes"),
        (lambda x: ops.prelu(x, None), TypeError, "alpha to be an array"),
        (lambda x: ops.prelu_backward(x[0], x, x[0]), ValueError, "dy of shape"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((2, 4, 5)))
