"""Calls that must fail, each with one clear exception that names the op and what came."""

from __future__ import annotations

import re

import numpy as np
import pytest

import convkit
from convkit import ops

IMAGE = np.ones((2, 6, 7, 4), np.float32)
KERNEL = np.ones((3, 3, 4, 6), np.float32)
BIAS = np.ones(6, np.float32)
MATRIX = np.ones((5, 10), np.float32)
ROWS = np.ones(5, np.float32)
LABELS = np.arange(5)
WORDS = np.array([["a", "b"]])
COMPLEX = np.ones((2, 2), np.complex64)
READ_ONLY = np.ones((5, 10), np.float32)
READ_ONLY.flags.writeable = False


class OnDevice:
    """What an array on a GPU looks like from here."""

    def __init__(self) -> None:
        self.__cuda_array_interface__ = {"shape": (1,), "typestr": "<f4", "data": (0, False)}


def of(shape, dtype=np.float32):
    """An array of any size that takes up no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def conv(x=IMAGE, kernel=KERNEL, bias=BIAS, **options):
    return lambda: ops.conv2d(x, kernel, bias, **options)


def conv_backward(dy=IMAGE, x=IMAGE, kernel=KERNEL, bias=BIAS, **options):
    return lambda: ops.conv2d_backward(dy, x, kernel, bias, **options)


def call(name, *arguments, **options):
    return lambda: getattr(ops, name)(*arguments, **options)


# (call, exception, what the message must match from its start)
CONV = [
    (conv(x=IMAGE[0]), ValueError, r"conv2d: expected x of shape \(N, H, W, C\), got \(6, 7, 4\)"),
    (conv(x=np.float32(1)), ValueError, r"conv2d: expected x of shape \(N, H, W, C\), got \(\)"),
    (conv(x=None), TypeError, "conv2d: expected x .*got None"),
    (conv(x="image"), TypeError, "conv2d: expected x "),
    (conv(x=WORDS), TypeError, "conv2d: expected x "),
    (conv(x=COMPLEX), TypeError, "conv2d: expected x .*complex64"),
    (conv(x=[[1.0], [1.0, 2.0]]), ValueError, "conv2d: expected x "),
    (conv(x=np.ones((2, 6, 7, 4), object)), TypeError, "conv2d: expected x .*object"),
    (conv(x=OnDevice()), TypeError, "conv2d: expected x to be a NumPy array, .*GPU"),
    (conv(kernel=None), TypeError, "conv2d: expected kernel .*got None"),
    (conv(kernel=KERNEL[0]), ValueError, r"conv2d: expected kernel .*got \(3, 4, 6\)"),
    (conv(kernel=KERNEL[:, :, :3]), ValueError, r"conv2d: expected kernel .*got \(3, 3, 3, 6\)"),
    (conv(kernel=KERNEL[:0]), ValueError, r"conv2d: expected kernel .*got \(0, 3, 4, 6\)"),
    (conv(kernel=KERNEL[..., :0], bias=None), ValueError, "conv2d: expected kernel "),
    (conv(kernel=np.ones((7, 3, 4, 6), np.float32)), ValueError, "conv2d: expected x.*7 x 3"),
    (conv(bias=BIAS[:5]), ValueError, r"conv2d: expected bias of shape \(6,\), got \(5,\)"),
    (conv(bias=BIAS[None]), ValueError, r"conv2d: expected bias of shape \(6,\), got \(1, 6\)"),
    (conv(x=IMAGE.astype(np.float64)), TypeError, "conv2d: expected .*float64.*float32"),
    (conv(bias=BIAS.astype(np.float64)), TypeError, "conv2d: expected .*float32.*float64"),
    (conv(strides=0), ValueError, "conv2d: expected strides .*got 0"),
    (conv(strides=(1, -1)), ValueError, "conv2d: expected strides .*got -1"),
    (conv(strides=(1, 1, 1)), ValueError, "conv2d: expected strides "),
    (conv(strides=1.5), TypeError, "conv2d: expected strides .*got 1.5"),
    (conv(strides="2"), TypeError, "conv2d: expected strides .*got '2'"),
    (conv(strides=True), TypeError, "conv2d: expected strides .*got True"),
    (conv(strides=None), TypeError, "conv2d: expected strides .*got None"),
    (conv(dilation_rate=0), ValueError, "conv2d: expected dilation_rate .*got 0"),
    (conv(dilation_rate=(1, 9)), ValueError, "conv2d: expected x.*19"),
    (conv(groups=0), ValueError, "conv2d: expected groups .*got 0"),
    (conv(groups=2), ValueError, "conv2d: expected kernel .*groups"),
    (conv(groups=2.0), TypeError, "conv2d: expected groups .*got 2.0"),
    (conv(groups=[1]), TypeError, r"conv2d: expected groups .*got \[1\]"),
    (
        conv(kernel=np.ones((3, 3, 1, 6), np.float32), groups=4),
        ValueError,
        "conv2d: expected filters .*groups.*got 6",
    ),
    (conv(padding="full"), ValueError, "conv2d: expected padding .*'full'"),
    (conv(padding=-1), ValueError, "conv2d: expected padding .*got -1"),
    (conv(padding=0.5), TypeError, "conv2d: expected padding .*got 0.5"),
    (conv(padding=None), TypeError, "conv2d: expected padding .*got None"),
    (conv(padding=(1, 2, 3)), ValueError, "conv2d: expected padding "),
    (conv(padding=((1, 2), 3)), ValueError, "conv2d: expected padding "),
    (conv(padding=((1, 2), (3, -4))), ValueError, "conv2d: expected padding .*got -4"),
    (conv(padding=()), ValueError, "conv2d: expected padding "),
    (conv(padding={"top": 1}), TypeError, "conv2d: expected padding "),
    (conv(padding=np.array([1, 1])), TypeError, "conv2d: expected padding "),
    (conv(data_format="NCHW"), ValueError, "conv2d: expected data_format .*'NCHW'"),
    (conv(data_format=None), ValueError, "conv2d: expected data_format .*None"),
    (conv(activation="rellu"), ValueError, "conv2d: expected activation .*'rellu'"),
    (conv(activation=3), ValueError, "conv2d: expected activation .*got 3"),
    (
        conv(x=IMAGE[0], data_format="channels_first"),
        ValueError,
        r"conv2d: expected x of shape \(N, C, H, W\), got \(6, 7, 4\)",
    ),
    (conv(data_format="channels_first"), ValueError, "conv2d: expected "),
    (conv(out=np.empty((2, 4, 5, 5), np.float32)), ValueError, "conv2d: expected out .*4, 5, 5"),
    (conv(out=np.empty((2, 4, 5, 6))), TypeError, "conv2d: expected out .*float64"),
    (conv(out=[0]), TypeError, "conv2d: expected out .*list"),
    (conv(out=of((2, 4, 5, 6))), ValueError, "conv2d: expected out .*read-only"),
    (conv_backward(), ValueError, "conv2d_backward: expected dy .*got "),
    (conv_backward(dy=IMAGE[:, :4, :5]), ValueError, "conv2d_backward: expected dy .*4, 5, 6"),
    (conv_backward(dy=None), TypeError, "conv2d_backward: expected dy .*got None"),
    (
        conv_backward(dy=np.ones((2, 4, 5, 6))),
        TypeError,
        "conv2d_backward: expected dy .*float64",
    ),
    (
        conv_backward(dy=of((2, 4, 5, 6)), needs=(True, False)),
        ValueError,
        "conv2d_backward: expected needs ",
    ),
    (
        conv_backward(dy=of((2, 4, 5, 6)), needs=True),
        (TypeError, ValueError),
        "conv2d_backward: expected needs ",
    ),
    (
        conv_backward(dy=of((2, 4, 5, 6)), out=(None, None)),
        ValueError,
        "conv2d_backward: expected out ",
    ),
    (
        conv_backward(dy=of((2, 4, 5, 6)), out=(None, BIAS, None)),
        ValueError,
        r"conv2d_backward: expected out .*got \(6,\)",
    ),
]

POOL = [
    entry
    for name in ("max_pool2d", "avg_pool2d")
    for entry in [
        (
            call(name, np.ones((32, 28, 28), np.float32)),
            ValueError,
            rf"{name}: expected x of shape \(N, H, W, C\), got \(32, 28, 28\)",
        ),
        (call(name, None), TypeError, f"{name}: expected x .*got None"),
        (call(name, WORDS), TypeError, f"{name}: expected x "),
        (call(name, IMAGE, 0), ValueError, f"{name}: expected pool_size .*got 0"),
        (call(name, IMAGE, (2, 2, 2)), ValueError, f"{name}: expected pool_size "),
        (call(name, IMAGE, 2.0), TypeError, f"{name}: expected pool_size .*got 2.0"),
        (call(name, IMAGE, None), TypeError, f"{name}: expected pool_size .*got None"),
        (call(name, IMAGE, (7, 2)), ValueError, f"{name}: expected x.*7 x 2"),
        (call(name, IMAGE, strides=0), ValueError, f"{name}: expected strides .*got 0"),
        (call(name, IMAGE, padding=2), ValueError, f"{name}: expected padding .*got 2"),
        (call(name, IMAGE, padding=((0, 0), (0, 2))), ValueError, f"{name}: expected padding "),
        (call(name, IMAGE, padding="SAME"), ValueError, f"{name}: expected padding .*'SAME'"),
        (call(name, IMAGE, padding=-1), ValueError, f"{name}: expected padding .*got -1"),
        (call(name, IMAGE, data_format="NHWC"), ValueError, f"{name}: expected data_format "),
        (call(name, IMAGE[:, :0]), ValueError, f"{name}: expected x"),
        (call(name, IMAGE[:, :0], padding="same"), ValueError, f"{name}: expected x"),
        (call(name, IMAGE, out=np.empty(3, np.float32)), ValueError, f"{name}: expected out "),
        (
            call(f"{name}_backward", IMAGE, IMAGE),
            ValueError,
            rf"{name}_backward: expected dy .*got \(2, 6, 7, 4\)",
        ),
        (
            call(f"{name}_backward", IMAGE[:, :3, :3].astype(np.float64), IMAGE),
            TypeError,
            f"{name}_backward: expected dy ",
        ),
    ]
] + [
    (
        call("max_pool2d", IMAGE, dilation_rate=0),
        ValueError,
        "max_pool2d: expected dilation_rate .*got 0",
    ),
    (call("max_pool2d", IMAGE, 3, dilation_rate=3), ValueError, "max_pool2d: expected x.*7 x 7"),
]

UPSAMPLE = [
    (call("upsample2d", IMAGE[0]), ValueError, r"upsample2d: expected x of shape \(N, H, W, C\)"),
    (call("upsample2d", IMAGE, 0), ValueError, "upsample2d: expected size .*got 0"),
    (call("upsample2d", IMAGE, 1.5), TypeError, "upsample2d: expected size .*got 1.5"),
    (call("upsample2d", IMAGE, (1, 2, 3)), ValueError, "upsample2d: expected size "),
    (
        call("upsample2d", IMAGE, interpolation="bicubic"),
        ValueError,
        "upsample2d: expected interpolation .*'bicubic'",
    ),
    (
        call("upsample2d", IMAGE, interpolation=["nearest"]),
        ValueError,
        "upsample2d: expected interpolation ",
    ),
    (call("upsample2d", IMAGE, data_format="last"), ValueError, "upsample2d: expected data_format"),
    (
        call("upsample2d_backward", IMAGE, IMAGE),
        ValueError,
        "upsample2d_backward: expected dy .*12, 14, 4",
    ),
]

DENSE = [
    (call("dense", np.float32(1), MATRIX), ValueError, "dense: expected x .*got "),
    (call("dense", None, MATRIX), TypeError, "dense: expected x .*got None"),
    (call("dense", MATRIX, None), TypeError, "dense: expected kernel .*got None"),
    (call("dense", MATRIX, MATRIX), ValueError, r"dense: expected x .*5.*got \(5, 10\)"),
    (call("dense", MATRIX, ROWS), ValueError, r"dense: expected kernel .*got \(5,\)"),
    (call("dense", MATRIX, MATRIX.T, BIAS), ValueError, r"dense: expected bias .*got \(6,\)"),
    (call("dense", MATRIX, MATRIX.T[:, :0]), ValueError, "dense: expected kernel "),
    (call("dense", MATRIX[:, :0], MATRIX[:0]), ValueError, "dense: expected kernel "),
    (call("dense", MATRIX, MATRIX.T.astype(float)), TypeError, "dense: expected .*float64"),
    (call("dense", MATRIX, MATRIX.T, activation="x"), ValueError, "dense: expected activation "),
    (call("dense", COMPLEX, MATRIX), TypeError, "dense: expected x .*complex64"),
    (call("dense", MATRIX, MATRIX.T, out=ROWS), ValueError, "dense: expected out "),
    (call("dense_backward", MATRIX, MATRIX, MATRIX.T), ValueError, "dense_backward: expected dy "),
    (
        call("dense_backward", np.ones((5, 5), np.float32), MATRIX, MATRIX.T, needs=(1, 1)),
        ValueError,
        "dense_backward: expected needs ",
    ),
]

ACTIVATION = [
    entry
    for name in ("relu", "leaky_relu", "sigmoid", "tanh", "exp", "softmax", "log_softmax")
    for entry in [
        (call(name, None), TypeError, f"{name}: expected x .*got None"),
        (call(name, WORDS), TypeError, f"{name}: expected x "),
        (call(name, COMPLEX), TypeError, f"{name}: expected x .*complex64"),
        (call(name, {}), TypeError, f"{name}: expected x "),
        (call(name, MATRIX, out=ROWS), ValueError, f"{name}: expected out "),
        (call(name, MATRIX, out=READ_ONLY), ValueError, f"{name}: expected out .*read-only"),
        (call(name, MATRIX, out=np.empty((5, 10))), TypeError, f"{name}: expected out .*float64"),
        (
            call(f"{name}_backward", ROWS, MATRIX),
            ValueError,
            rf"{name}_backward: expected dy .*got \(5,\)",
        ),
        (
            call(f"{name}_backward", MATRIX.astype(np.float64), MATRIX),
            TypeError,
            f"{name}_backward: expected .*float64",
        ),
    ]
] + [
    entry
    for name in ("softmax", "log_softmax")
    for entry in [
        (call(name, MATRIX, 2), ValueError, f"{name}: expected axis .*got 2"),
        (call(name, MATRIX, -3), ValueError, f"{name}: expected axis .*got -3"),
        (call(name, MATRIX, 1.0), TypeError, f"{name}: expected axis .*got 1.0"),
        (call(name, MATRIX, None), TypeError, f"{name}: expected axis .*got None"),
        (call(name, MATRIX, [1]), TypeError, f"{name}: expected axis "),
        (call(name, np.float32(1)), ValueError, f"{name}: expected x "),
        (call(name, MATRIX[:, :0]), ValueError, f"{name}: expected "),
    ]
]
ACTIVATION += [
    (call("leaky_relu", MATRIX, -0.1), ValueError, "leaky_relu: expected .*negative_slope .*-0.1"),
    (call("leaky_relu", MATRIX, np.nan), ValueError, "leaky_relu: expected .*negative_slope .*nan"),
    (call("leaky_relu", MATRIX, "steep"), TypeError, "leaky_relu: expected negative_slope "),
    (call("leaky_relu", MATRIX, None), TypeError, "leaky_relu: expected negative_slope "),
]

JOIN = [
    (call("concatenate", []), ValueError, "concatenate: expected "),
    (call("concatenate", None), TypeError, "concatenate: expected "),
    (call("concatenate", [MATRIX, None]), TypeError, "concatenate: expected .*None"),
    (call("concatenate", [MATRIX, ROWS]), ValueError, r"concatenate: expected .*\(5,\)"),
    (call("concatenate", [MATRIX, MATRIX.T]), ValueError, r"concatenate: expected .*\(10, 5\)"),
    (call("concatenate", [MATRIX, MATRIX], 2), ValueError, "concatenate: expected axis .*got 2"),
    (call("concatenate", [MATRIX], "1"), TypeError, "concatenate: expected axis "),
    (call("concatenate", [MATRIX, MATRIX.astype(float)]), TypeError, "concatenate: .*float64"),
    (call("concatenate", [np.float32(1)]), ValueError, "concatenate: expected "),
    (
        call("concatenate_backward", MATRIX, [MATRIX, MATRIX]),
        ValueError,
        r"concatenate_backward: expected dy .*\(5, 20\).*got \(5, 10\)",
    ),
    (call("add", MATRIX, ROWS), ValueError, r"add: expected .*\(5, 10\) and \(5,\)"),
    (call("add", MATRIX, None), TypeError, "add: expected .*None"),
    (call("add", MATRIX, MATRIX.astype(float)), TypeError, "add: expected .*float64"),
    (call("add_backward", ROWS, MATRIX, MATRIX), ValueError, r"add_backward: .*got \(5,\)"),
]

LOSS = [
    entry
    for name in (
        "categorical_crossentropy",
        "binary_crossentropy",
        "mean_squared_error",
        "mean_absolute_error",
    )
    for entry in [
        (call(name, MATRIX, ROWS), ValueError, rf"{name}: expected .*\(5, 10\)"),
        (call(name, ROWS, MATRIX), ValueError, rf"{name}: expected y_true .*got \(5,\)"),
        (call(name, None, MATRIX), TypeError, f"{name}: expected y_true .*None"),
        (call(name, MATRIX, None), TypeError, f"{name}: expected y_pred .*None"),
        (call(name, MATRIX, COMPLEX), TypeError, f"{name}: expected y_pred .*complex64"),
        (call(name, MATRIX, MATRIX.astype(float)), TypeError, f"{name}: expected .*float64"),
        (call(name, np.float32(1), np.float32(1)), ValueError, f"{name}: expected y_pred "),
        (call(name, MATRIX[:, :0], MATRIX[:, :0]), ValueError, f"{name}: expected y_pred "),
        (call(name, MATRIX, MATRIX, out=MATRIX), ValueError, f"{name}: expected out "),
        (
            call(f"{name}_backward", MATRIX, MATRIX, MATRIX),
            ValueError,
            rf"{name}_backward: expected dy .*got \(5, 10\)",
        ),
    ]
]
SPARSE = "sparse_categorical_crossentropy"
LOSS += [
    (call(SPARSE, MATRIX, MATRIX), ValueError, f"{SPARSE}: expected y_true .*"),
    (call(SPARSE, LABELS[:4], MATRIX), ValueError, rf"{SPARSE}: expected y_true .*got \(4,\)"),
    (call(SPARSE, LABELS + 6, MATRIX), ValueError, f"{SPARSE}: expected y_true .*10"),
    (call(SPARSE, LABELS - 1, MATRIX), ValueError, f"{SPARSE}: expected y_true .*-1"),
    (call(SPARSE, LABELS + 2**40, MATRIX), ValueError, f"{SPARSE}: expected y_true "),
    (call(SPARSE, LABELS + 0.5, MATRIX), ValueError, f"{SPARSE}: expected y_true "),
    (call(SPARSE, np.full(5, np.nan), MATRIX), ValueError, f"{SPARSE}: expected y_true "),
    (call(SPARSE, None, MATRIX), TypeError, f"{SPARSE}: expected y_true "),
    (call(SPARSE, WORDS, MATRIX), TypeError, f"{SPARSE}: expected y_true "),
    (call(SPARSE, LABELS, None), TypeError, f"{SPARSE}: expected y_pred .*None"),
    (
        call(f"{SPARSE}_backward", MATRIX, LABELS, MATRIX),
        ValueError,
        rf"{SPARSE}_backward: expected dy .*got \(5, 10\)",
    ),
]

# Sizes whose products do not fit 64 bits: refused from their numbers alone.
HUGE = 2**62
OVERFLOWS = [
    *(
        (conv(**{name: size}), ValueError, "conv2d: expected ")
        for name in ("padding", "dilation_rate")
        for size in (2**31, 2**32 + 1, HUGE, 2**63, 2**64 + 1)
    ),
    (conv(padding=2**31 - 1), ValueError, "conv2d: expected x, padding included, "),
    (conv(padding=((HUGE, HUGE), (0, 0))), ValueError, "conv2d: expected "),
    (conv(groups=2**64), ValueError, "conv2d: expected "),
    (call("max_pool2d", IMAGE, 2**31 - 1), ValueError, "max_pool2d: expected pool_size .* at most"),
    (call("max_pool2d", IMAGE, HUGE), ValueError, "max_pool2d: expected "),
    (call("avg_pool2d", IMAGE, (2, 2**64)), ValueError, "avg_pool2d: expected "),
    (call("max_pool2d", IMAGE, dilation_rate=HUGE), ValueError, "max_pool2d: expected "),
    (
        call("max_pool2d", IMAGE, 2**31 - 1, strides=1, padding=2**31 - 2),
        ValueError,
        "max_pool2d: expected pool_size .* at most",
    ),
    (call("upsample2d", IMAGE, 2**31 - 1), ValueError, "upsample2d: expected the output "),
    (call("upsample2d", IMAGE, HUGE), ValueError, "upsample2d: expected "),
    (call("upsample2d", IMAGE, (1, 2**64)), ValueError, "upsample2d: expected "),
]

TABLE = [*CONV, *POOL, *UPSAMPLE, *DENSE, *ACTIVATION, *JOIN, *LOSS, *OVERFLOWS]


@pytest.mark.parametrize(
    ("run", "exception", "message"),
    TABLE,
    ids=[f"{number}-{message.split(':')[0]}" for number, (_, _, message) in enumerate(TABLE)],
)
def test_a_bad_call_fails_in_words(run, exception, message):
    with pytest.raises(exception) as caught:
        run()
    assert re.match(message, str(caught.value)), str(caught.value)


def test_a_stride_beyond_the_image_takes_one_window():
    size = 2**31 - 1
    for name, weights in (("conv2d", (KERNEL,)), ("max_pool2d", ()), ("avg_pool2d", ())):
        op = getattr(ops, name)
        y = op(IMAGE, *weights, strides=size)
        np.testing.assert_array_equal(y, op(IMAGE, *weights, strides=9))


@pytest.mark.parametrize("channels", [1, 3, 16])
@pytest.mark.parametrize("size", [2**30, 2**31 - 1])
def test_products_of_strides_do_not_wrap(channels, size):
    """16 channels times 2**30 times 2**30 is 0 in 64 bits."""
    x = np.ones((1, 5, 5, channels), np.float32)
    kernel = np.ones((5, 5, channels, 1), np.float32)
    y = ops.conv2d(x, kernel, strides=size)
    assert y.ravel() == [25 * channels]
    dx, dkernel, _ = ops.conv2d_backward(y, x, kernel, strides=size)
    np.testing.assert_array_equal(dx, np.full_like(x, 25 * channels))
    np.testing.assert_array_equal(dkernel, np.full_like(kernel, 25 * channels))


@pytest.mark.parametrize("size", [2**31, HUGE, 2**64])
def test_a_stride_beyond_any_image_is_refused(size):
    for name, weights in (("conv2d", (KERNEL,)), ("max_pool2d", ()), ("avg_pool2d", ())):
        with pytest.raises(ValueError, match=f"{name}: expected strides "):
            getattr(ops, name)(IMAGE, *weights, strides=size)


ENORMOUS = of((2**20, 2**20, 2**10, 2**10))  # 2 ** 62 bytes, if it were copied


@pytest.mark.parametrize(
    "run",
    [
        conv(x=ENORMOUS),
        conv(x=ENORMOUS, kernel=np.ones((1, 1, 2**10, 1), np.float32), bias=None),
        conv(kernel=of((3, 3, 4, 2**54)), bias=None),
        call("max_pool2d", ENORMOUS),
        call("avg_pool2d", ENORMOUS, data_format="channels_first"),
        call("upsample2d", ENORMOUS, 2**10),
        call("dense", ENORMOUS, of((2**10, 2**30))),
        call("dense", of((2**20, 1)), of((1, 2**42))),
        call("relu", ENORMOUS),
        call("softmax", ENORMOUS, 1),
        call("concatenate", [ENORMOUS, ENORMOUS]),
        call("add", ENORMOUS, ENORMOUS),
        call("mean_squared_error", ENORMOUS, ENORMOUS),
    ],
)
def test_arrays_beyond_any_memory_fail_cleanly(run):
    with pytest.raises((ValueError, MemoryError)):
        run()


@pytest.mark.parametrize(
    "run",
    [
        conv(x=of((0, 2**30, 2**30, 1)), kernel=of((1, 1, 1, 2**10)), bias=None),
        call("upsample2d", of((0, 2**20, 2**20, 1)), 2**20),
        call("dense", of((0, 2**30, 2**20, 1)), of((1, 2**20))),
        call("max_pool2d", of((0, 1, 1, 2**30)), 2**20, strides=1, padding=2**20 - 1),
    ],
)
def test_no_samples_of_a_size_beyond_64_bits_fail_cleanly(run):
    """The array has no values, but the size of one sample would not fit an integer."""
    with pytest.raises((ValueError, MemoryError)):
        run()


@pytest.mark.parametrize(
    ("count", "exception"),
    [
        (0, ValueError),
        (-1, ValueError),
        (2**40, ValueError),
        (2**70, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        (None, TypeError),
    ],
)
def test_threads_are_a_sensible_number(count, exception):
    before = convkit.get_num_threads()
    with pytest.raises(exception, match="set_num_threads: expected "):
        convkit.set_num_threads(count)
    assert convkit.get_num_threads() == before


def test_the_same_call_in_other_types_is_judged_anew():
    """1, 1.0 and True are one key to a cache, but not one argument."""
    ops.softmax(MATRIX, 1)
    for axis in (1.0, True):
        with pytest.raises(TypeError, match="softmax: expected axis"):
            ops.softmax(MATRIX, axis)
    ops.upsample2d(IMAGE, 2)
    with pytest.raises(TypeError, match="upsample2d: expected size"):
        ops.upsample2d(IMAGE, 2.0)


def test_a_failed_call_leaves_its_arguments_alone():
    out = np.full((2, 4, 5, 6), 7, np.float32)
    with pytest.raises(ValueError, match="strides"):
        ops.conv2d(IMAGE, KERNEL, strides=0, out=out)
    assert (out == 7).all()
    assert (IMAGE == 1).all()
    assert (KERNEL == 1).all()


def test_an_image_without_columns_is_refused_whatever_the_padding():
    x, kernel = np.zeros((1, 0, 5, 1), np.float32), np.zeros((2, 2, 1, 1), np.float32)
    for padding in (1, "same", "valid"):
        with pytest.raises(ValueError, match="conv2d: expected x, padding included, of at least"):
            ops.conv2d(x, kernel, padding=padding)


def test_a_window_far_wider_than_memory_is_refused():
    x = np.zeros((1, 4, 4, 512), np.float32)
    with pytest.raises(ValueError, match="max_pool2d: expected "):
        ops.max_pool2d(x, (1, 2**23 + 1), strides=1, padding="same", dilation_rate=2**30)
