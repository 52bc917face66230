"""Which algorithm computes a convolution, and that each gives what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import CONV2D, CONV2D_TRANSPOSE, Case, conv, transposed
from checkers import assert_exact, assert_same_bits, backward, expected, forward, narrowed

import convkit
from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

DIRECT = ("product", "windows", "planes", "depthwise", "grouped")
LARGE = conv("large", (2, 28, 28, 64), (3, 3, 64, 64), padding="same")
OPTIONS = ("strides", "padding", "output_padding", "dilation_rate", "groups")


def planned(case: Case, dtype: str = "float32", **options: str) -> dict[str, str]:
    x, kernel = case.shapes[:2]
    given = {name: value for name, value in case.options.items() if name in OPTIONS}
    return ops.plan(case.op, x, kernel, dtype=dtype, **given, **options)


@pytest.mark.parametrize("case", [*CONV2D, *CONV2D_TRANSPOSE], ids=str)
@pytest.mark.parametrize("algorithm", DIRECT)
def test_integers_are_exact(case, algorithm, dtype):
    given, dy, y, gradients = expected(case, "integers")
    case = replace(case, options={**case.options, "algorithm": algorithm})
    try:
        found = planned(case, np.dtype(dtype).name, algorithm=algorithm)
    except ValueError:
        assert algorithm != "product"  # which can always be used
        with pytest.raises(ValueError, match=f"^{case.op}: expected .* as '{algorithm}'"):
            forward(case, narrowed(given, dtype))
        return
    assert found["forward"] == algorithm
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    for actual, right in zip(
        backward(case, dy.astype(dtype), narrowed(given, dtype)), gradients, strict=True
    ):
        if right is not None:
            assert_exact(actual, right, dtype)


def test_large_kernels_are_transformed():
    assert planned(LARGE)["forward"].startswith("winograd")


@pytest.mark.usefixtures("direct_sums")
def test_direct_means_no_transforms():
    given, *_ = expected(LARGE)
    given = narrowed(given, np.float32)
    assert "winograd" not in "".join(planned(LARGE).values())
    kept = forward(LARGE, given)
    convkit.set_precision("float32")
    asked = replace(LARGE, options={**LARGE.options, "algorithm": "direct"})
    assert planned(LARGE, algorithm="direct")["forward"] in DIRECT
    assert_same_bits(forward(asked, given), kept)
    assert not np.array_equal(forward(LARGE, given), kept)


def test_the_batch_does_not_matter():
    plans = [
        planned(replace(LARGE, shapes=((n, 28, 28, 64), *LARGE.shapes[1:]))) for n in (0, 1, 99)
    ]
    for name in ("forward", "backward_input"):
        assert plans[0][name] == plans[1][name] == plans[2][name]


def test_a_transposed_convolution_is_planned_as_its_mirror():
    case = transposed("mirror", (2, 14, 14, 64), (3, 3, 32, 64), padding="same")
    mirror = planned(conv("mirror", (2, 14, 14, 32), (3, 3, 32, 64), padding="same"))
    assert planned(case) == {
        "forward": mirror["backward_input"],
        "backward_input": mirror["forward"],
        "backward_kernel": mirror["backward_kernel"],
    }
    given, *_ = expected(case)
    given = narrowed(given, np.float32)
    for algorithm in ("product", "winograd2", "winograd4"):
        asked = replace(case, options={**case.options, "algorithm": algorithm})
        assert set(planned(asked, algorithm=algorithm).values()) == {algorithm}
        assert np.array_equal(forward(asked, given), forward(case, given)) == (
            algorithm == planned(case)["forward"]
        )


def test_channels_first_is_planned_as_channels_last():
    x, kernel = (2, 28, 20, 64), (3, 5, 64, 16)
    for op, weights in (("conv2d", kernel), ("conv2d_transpose", (3, 5, 16, 64))):
        found = ops.plan(op, (2, 64, 28, 20), weights, data_format="channels_first")
        assert found == ops.plan(op, x, weights)


def test_arrays_have_shapes_and_a_dtype():
    x, kernel = np.zeros((1, 28, 28, 3)), np.zeros((3, 3, 3, 5))
    for dtype in ("float32", "float64"):
        given = ops.plan("conv2d", x.astype(dtype), kernel)
        assert given == ops.plan("conv2d", x.shape, kernel.shape, dtype=dtype)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("dense", (1, 2), (2, 3)),
            "plan: expected op to be one of 'conv2d', 'conv2d_transpose', got",
        ),
        (("conv2d", (), (1, 1, 1, 1)), r"plan: expected x of shape \(N, H, W, C\), got \(\)"),
        (("conv2d", (1, 2), (2, 3)), r"plan: expected x of shape \(N, H, W, C\), got \(1, 2\)"),
        (
            ("conv2d", (0, 2**32, 2**32, 1), (1, 1, 1, 1)),
            "plan: expected a size of x to be at most ",
        ),
        (("conv2d", (-1, 8, 8, 1), (1, 1, 1, 1)), "plan: expected a size of x "),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.plan(*arguments)
    with pytest.raises(
        ValueError, match=r"^plan: expected algorithm to be one of 'automatic', .*fft"
    ):
        ops.plan("conv2d", (1, 8, 8, 1), (3, 3, 1, 1), algorithm="fft")
    for op, options in (("conv2d", {"output_padding": 0}), ("conv2d_transpose", {"groups": 2})):
        with pytest.raises(ValueError, match=f"^plan: expected .* for '{op}'"):
            ops.plan(op, (1, 8, 8, 2), (3, 3, 2, 2), **options)
    with pytest.raises(ValueError, match=r"^plan: expected data_format to be one of "):
        ops.plan("conv2d", (1, 8, 8, 1), (3, 3, 1, 1), data_format="last")
    with pytest.raises(ValueError, match=r"^plan: expected x of shape \(N, C, H, W\), got"):
        ops.plan("conv2d", (8, 8, 1), (3, 3, 1, 1), data_format="channels_first")
