"""conv2d and its gradients in groups: the kernels whose lanes are filters of several groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import Case, arrays, conv, upstream
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
    assert_same_bits,
    backward,
    expected,
    forward,
    narrowed,
)

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

PASSES = ("forward", "backward_input", "backward_kernel")


def grouped(
    name: str,
    x: tuple[int, int, int],
    taps: tuple[int, int],
    groups: tuple[int, int, int],
    **options,
) -> Case:
    """An image (N, H, W), a kernel (height, width), and how many groups of how many channels and
    filters."""
    count, channels, filters = groups
    shapes = (*x, count * channels), (*taps, channels, count * filters)
    return conv(name, *shapes, groups=count, **options)


CASES = [
    *(
        grouped(f"channels_{channels}_{filters}", (2, 5, 17), (3, 3), (3, channels, filters))
        for channels, filters in (
            *((size, size) for size in range(1, 18)),
            *((1, 2), (2, 1), (2, 4), (3, 2), (3, 5), (4, 3), (5, 6), (6, 3), (7, 8), (8, 4)),
            *((9, 5), (9, 11), (12, 10), (16, 9), (17, 15), (5, 33), (33, 5), (24, 24), (20, 48)),
        )
    ),
    grouped("two_groups", (1, 6, 7), (3, 3), (2, 4, 4), padding="same"),
    grouped("whole_registers", (3, 7, 29), (3, 3), (8, 4, 4), padding="same"),
    grouped("a_tail_of_groups", (2, 6, 15), (3, 3), (11, 4, 4), padding="same"),
    grouped("no_bias", (2, 6, 5), (3, 3), (5, 2, 2), bias=False, padding="same"),
    grouped("one_pixel", (3, 1, 1), (3, 3), (5, 4, 4), padding="same"),
    grouped("one_column", (2, 9, 1), (3, 3), (5, 4, 4), padding="same"),
    grouped("two_columns", (2, 9, 2), (3, 3), (5, 4, 4), padding="same"),
    grouped("pointwise", (2, 5, 7), (1, 1), (4, 29, 29)),
    grouped("pointwise_strided", (2, 5, 7), (1, 1), (4, 8, 6), strides=2),
    grouped("strided", (2, 9, 31), (3, 3), (6, 4, 4), strides=2, padding="same"),
    grouped("strided_broadcast", (2, 9, 13), (3, 3), (2, 17, 16), strides=2, padding=1),
    grouped("strides_of_three", (2, 11, 13), (3, 3), (6, 3, 4), strides=3, padding=1),
    grouped("strides_differ", (2, 9, 14), (3, 5), (6, 4, 2), strides=(1, 3), padding="same"),
    grouped("stride_beyond_window", (2, 13, 11), (2, 1), (3, 4, 4), strides=(5, 4)),
    grouped("dilated", (2, 9, 11), (3, 3), (6, 4, 4), dilation_rate=(2, 3), padding="same"),
    grouped(
        "dilated_strided", (1, 15, 13), (3, 2), (6, 4, 4), dilation_rate=(2, 3), strides=(3, 2)
    ),
    grouped("five_taps", (2, 9, 23), (5, 5), (4, 4, 4), padding="same"),
    grouped("two_taps", (2, 5, 9), (2, 2), (4, 4, 4)),
    grouped("seven_taps", (1, 9, 11), (7, 4), (4, 4, 4), padding="same"),
    grouped("padding_uneven", (2, 5, 6), (3, 3), (5, 4, 4), padding=((0, 2), (3, 1))),
    grouped("padding_beyond_window", (1, 3, 4), (2, 2), (5, 4, 4), padding=3),
    grouped("several_bands", (1, 67, 19), (3, 3), (8, 4, 4), padding="same"),
    grouped("several_chunks", (2, 6, 5), (3, 3), (29, 16, 16), padding="same"),
    grouped("empty_batch", (0, 5, 5), (3, 3), (4, 4, 4), padding="same"),
]
by_name = {case.name: case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def asked(case: Case, dtype: np.dtype) -> tuple[Case, dict[str, str]]:
    """The case with this algorithm wherever it has a form for it, and what then is planned."""
    shapes = {"x": case.shapes[0], "kernel": case.shapes[1], "dtype": np.dtype(dtype).name}
    plain = {name: value for name, value in case.options.items() if name != "activation"}
    try:
        found = ops.plan("conv2d", **shapes, **plain, algorithm="grouped")
    except ValueError:  # far more channels than filters in a group
        return case, ops.plan("conv2d", **shapes, **plain)
    return replace(case, options={**case.options, "algorithm": "grouped"}), found


@every_case
def test_integers_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    case, _ = asked(case, dtype)
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for actual, right in zip(found, gradients, strict=True):
        if right is not None:
            assert_exact(actual, right, dtype)


@every_case
def test_gradients_match_differences(case):
    case, _ = asked(case, np.float64)
    if case.shapes[0][0] == 0:
        return
    given = arrays(case)
    dy = upstream(case, forward(case, given).shape)
    assert_gradients_match_differences(
        lambda some: forward(case, some), backward(case, dy, given), given, dy
    )


@pytest.mark.parametrize(
    "name",
    [
        "whole_registers",
        "a_tail_of_groups",
        "several_bands",
        "several_chunks",
        "strided",
        "pointwise",
    ],
)
def test_threads_change_no_bit(name, dtype, threads):
    case, found = asked(by_name[name], dtype)
    assert set(found.values()) == {"grouped"}
    given = arrays(case, dtype)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        y = forward(case, given)
        results.append((y, *backward(case, upstream(case, y.shape, dtype), given)))
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert_same_bits(other, one)


def test_a_sample_has_the_same_bits_alone_and_in_a_batch(dtype):
    case, _ = asked(by_name["whole_registers"], dtype)
    given = arrays(case, dtype)
    y = forward(case, given)
    dy = upstream(case, y.shape, dtype)
    dx = backward(case, dy, given)[0]
    for i in range(len(y)):
        alone = [given[0][i : i + 1], *given[1:]]
        assert_same_bits(forward(case, alone), y[i : i + 1])
        assert_same_bits(backward(case, dy[i : i + 1], alone)[0], dx[i : i + 1])


@pytest.mark.parametrize("name", ["a_tail_of_groups", "channels_17_17"])
def test_relu_is_the_op_after_it(name, dtype):
    case, _ = asked(by_name[name], dtype)
    given = arrays(case, dtype)
    active = replace(case, options={**case.options, "activation": "relu"})
    assert_same_bits(forward(active, given), ops.relu(forward(case, given)))


def test_results_beyond_the_caches(dtype, rng):
    """Their stores go past the caches."""
    size = 128 if dtype == np.float32 else 96
    x = rng.integers(-3, 4, (3, size, size, 128)).astype(dtype)
    kernel = rng.integers(-3, 4, (1, 1, 4, 128)).astype(dtype)
    y = ops.conv2d(x, kernel, groups=32, algorithm="grouped")
    for group in (0, 7, 31):
        some = slice(4 * group, 4 * group + 4)
        assert_exact(y[..., some], x[..., some] @ kernel[0, 0, :, some], dtype)


def test_nan_stays_in_its_group(dtype):
    case, _ = asked(by_name["whole_registers"], dtype)
    given = arrays(case, dtype)
    given[0][1, 3, 5, 6] = np.nan
    nan = np.isnan(forward(case, given))
    right = np.zeros_like(nan)
    right[1, 2:5, 4:7, 4:8] = True
    np.testing.assert_array_equal(nan, right)


def test_infinity_beside_the_border_stays_in_the_gradients_of_its_taps(dtype):
    """The taps that have no output for a pixel at the border do not meet it."""
    case, _ = asked(by_name["whole_registers"], dtype)
    given = arrays(case, dtype)
    dy = upstream(case, forward(case, given).shape, dtype)
    given[0][0, 0, 0, 4] = np.inf
    dkernel = backward(case, dy, given)[1]
    right = np.zeros(dkernel.shape, bool)
    right[:2, :2, 0, 4:8] = True
    np.testing.assert_array_equal(~np.isfinite(dkernel), right)


@pytest.mark.parametrize(
    ("channels", "filters", "side"), [(4, 4, 56), (4, 4, 7), (2, 2, 28), (3, 3, 14)]
)
def test_small_groups_are_planned_so(channels, filters, side):
    x, kernel = (16, side, side, 32 * channels), (3, 3, channels, 32 * filters)
    found = ops.plan("conv2d", x, kernel, padding="same", groups=32)
    assert found == dict.fromkeys(PASSES, "grouped")


def test_one_group_cannot_be_asked_for_so():
    with pytest.raises(ValueError, match="can be computed as 'grouped'"):
        ops.plan("conv2d", (1, 8, 8, 4), (3, 3, 4, 4), algorithm="grouped")
