"""One table of cases per op, shared by correctness, gradient and benchmark code.

A case names an op, the shapes of its array arguments (channels_last; None for an argument left
out) and its options. `arrays(case, dtype)` makes the arguments, `case.batch(n)` the same case with
another number of samples.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Case:
    op: str
    name: str
    shapes: tuple[Shape | None, ...]
    options: dict[str, Any] = field(default_factory=dict)
    fills: tuple[str, ...] = ()  # one per array, "normal" where not given

    def batch(self, n: int) -> Case:
        """The case with n samples; for ops whose first argument alone has a batch axis."""
        return replace(self, shapes=((n, *self.shapes[0][1:]), *self.shapes[1:]))

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


# ---- values ------------------------------------------------------------------------------------


def values(shape: Shape, fill: str, rng: np.random.Generator) -> np.ndarray:
    """An array of `shape`; float64 values that float32 holds exactly, int64 for "labels"."""
    if fill == "normal":
        made = rng.normal(size=shape)
    elif fill == "integers":  # so small that sums of products are exact in float32
        made = rng.integers(-4, 5, size=shape)
    elif fill == "distinct":  # no two alike: maxima are unique and stay so under small changes
        count = int(np.prod(shape))
        made = rng.permutation(count).reshape(shape) / 64 - count / 128
    elif fill == "ties":
        made = rng.integers(0, 2, size=shape)
    elif fill == "wide":  # several orders of magnitude, both signs
        made = rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 1, size=shape)
    elif fill == "shares":  # targets of a cross-entropy; rows do not sum to one
        made = rng.uniform(0, 1, size=shape)
    elif fill == "probabilities":  # away from the clipped ends; rows do not sum to one
        made = rng.uniform(0.2, 0.9, size=shape)
    elif fill == "labels":
        return rng.integers(0, 3, size=shape)
    else:
        raise ValueError(f"no fill is called {fill!r}")
    return np.asarray(made, dtype=np.float32).astype(np.float64)


def arrays(case: Case, dtype: Any = np.float64, fill: str | None = None) -> list:
    """The array arguments of a case, the same at every call; `fill` overrides the case's own."""
    fills = [fill] * len(case.shapes) if fill else [*case.fills, *["normal"] * len(case.shapes)]
    rng = np.random.default_rng(zlib.crc32(f"{case}-{fill}".encode()))
    made = []
    for shape, kind in zip(case.shapes, fills, strict=False):
        if shape is None:
            made.append(None)
        else:
            array = values(shape, kind, rng)
            made.append(array if kind == "labels" else array.astype(dtype))
    return made


def upstream(case: Case, shape: Shape, dtype: Any = np.float64, fill: str = "normal") -> np.ndarray:
    """A gradient dy to start a backward pass of the case from."""
    rng = np.random.default_rng(zlib.crc32(f"{case}-{fill}-dy".encode()))
    return values(shape, fill, rng).astype(dtype)


# ---- convolution -------------------------------------------------------------------------------


def conv(name: str, x: Shape, kernel: Shape, *, bias: bool = True, **options) -> Case:
    return Case("conv2d", name, (x, kernel, (kernel[3],) if bias else None), options)


CONV2D = [
    conv("one_value", (1, 1, 1, 1), (1, 1, 1, 1)),
    conv("prime_sizes", (5, 13, 11, 3), (3, 5, 3, 7)),
    conv("no_bias", (2, 5, 6, 3), (3, 3, 3, 6), bias=False),
    conv("pointwise", (2, 5, 7, 6), (1, 1, 6, 17)),
    conv("pointwise_strided", (1, 7, 5, 3), (1, 1, 3, 6), strides=2),
    conv("kernel_fills_input", (2, 5, 6, 3), (5, 6, 3, 17)),
    conv("odd_channels_same", (2, 7, 11, 17), (3, 3, 17, 3), padding="same"),
    conv("tails_of_lanes", (1, 4, 19, 16), (3, 3, 16, 33)),
    conv("many_filters", (1, 5, 5, 1), (3, 3, 1, 131)),
    conv("column_kernel", (2, 9, 4, 3), (7, 1, 3, 5)),
    conv("tall_kernel", (2, 17, 19, 1), (9, 1, 1, 8)),
    conv("tall_kernel_five_filters", (1, 21, 18, 1), (15, 1, 1, 5), padding="same"),
    conv("row_kernel_same", (2, 4, 9, 3), (1, 6, 3, 5), padding="same"),
    conv("strides_differ", (2, 9, 10, 3), (3, 3, 3, 5), strides=(2, 1)),
    conv("stride_beyond_window", (1, 11, 13, 3), (2, 3, 3, 6), strides=(3, 5)),
    conv("rows_never_read", (2, 8, 9, 3), (3, 3, 3, 4), strides=4),
    conv("same_even_kernel", (1, 6, 7, 3), (4, 2, 3, 6), padding="same"),
    conv("same_strided", (2, 8, 9, 1), (3, 4, 1, 17), padding="same", strides=(2, 3)),
    conv("same_stride_beyond_window", (1, 7, 8, 3), (1, 2, 3, 4), padding="same", strides=3),
    conv("same_larger_than_input", (1, 2, 3, 3), (5, 5, 3, 2), padding="same"),
    conv("padding_number", (2, 5, 6, 3), (3, 3, 3, 6), padding=2),
    conv("padding_pair", (2, 5, 6, 3), (3, 3, 3, 6), padding=(1, 2), strides=2),
    conv("padding_uneven", (1, 5, 6, 3), (3, 3, 3, 6), padding=((0, 2), (3, 1))),
    conv("padding_beyond_window", (1, 3, 3, 3), (2, 2, 3, 4), padding=3),
    conv("dilated", (1, 11, 9, 6), (3, 3, 6, 6), dilation_rate=(2, 3)),
    conv("dilated_same", (2, 7, 6, 3), (3, 2, 3, 5), dilation_rate=2, padding="same"),
    conv(
        "dilated_strided", (1, 9, 12, 3), (3, 3, 3, 4), dilation_rate=2, strides=(3, 2), padding=1
    ),
    conv("groups", (2, 6, 5, 6), (3, 3, 2, 9), groups=3),
    conv("groups_same_strided", (1, 7, 8, 34), (3, 3, 17, 6), groups=2, strides=2, padding="same"),
    conv("depthwise", (2, 7, 7, 17), (3, 3, 1, 17), groups=17, padding="same"),
    conv("depthwise_no_bias", (2, 7, 6, 5), (3, 2, 1, 5), bias=False, groups=5, padding="same"),
    conv("depthwise_multiplied", (1, 6, 6, 3), (3, 3, 1, 6), groups=3, strides=2),
    conv(
        "few_filters_strided_dilated",
        (2, 23, 37, 2),
        (5, 4, 2, 3),
        strides=(2, 3),
        dilation_rate=(3, 2),
        padding=((1, 4), (3, 0)),
    ),
    conv("few_filters_groups", (2, 15, 22, 4), (5, 5, 2, 6), groups=2, padding="same"),
    conv("one_filter_many_columns", (1, 6, 300, 2), (3, 7, 2, 1), strides=(1, 2)),
    conv("lenet_first", (2, 28, 28, 1), (5, 5, 1, 6), padding="same"),
    conv("lenet_second", (2, 14, 14, 6), (5, 5, 6, 16)),
    conv("caffe_second", (1, 12, 12, 20), (5, 5, 20, 50)),
    conv("empty_batch", (0, 6, 7, 3), (3, 3, 3, 6), padding="same"),
]

# Large enough that the work is shared between threads.
CONV2D_LARGE = [
    conv("large", (9, 24, 23, 16), (3, 3, 16, 33), padding="same"),
    conv("large_depthwise", (8, 48, 47, 32), (5, 5, 1, 32), groups=32, strides=2),
    conv("large_few_filters", (3, 61, 64, 3), (5, 5, 3, 6), padding="same"),
    conv("large_one_sample", (1, 61, 64, 17), (5, 5, 17, 24)),
    conv("large_depth", (1, 9, 9, 132), (3, 3, 132, 64)),
    conv("large_depth_many_pixels", (25, 15, 15, 115), (3, 3, 115, 32)),
    conv("large_stride_many_filters", (1, 13, 14, 5), (1, 1, 5, 1040), strides=12),
    conv("large_filters_one_pixel", (1, 3, 3, 7), (3, 3, 7, 8448)),
    conv("few_pixels", (1, 5, 7, 70), (3, 3, 70, 272), strides=2, padding="same"),
    conv("few_pixels_several_tiles", (3, 7, 6, 33), (3, 2, 33, 48), strides=2, bias=False),
    conv("few_pixels_pointwise", (1, 3, 7, 37), (1, 1, 37, 96)),
]

# ---- pooling -----------------------------------------------------------------------------------


def max_pool(name: str, x: Shape, **options) -> Case:
    return Case("max_pool2d", name, (x,), options, ("distinct",))


def avg_pool(name: str, x: Shape, **options) -> Case:
    return Case("avg_pool2d", name, (x,), options)


def pools(make) -> list[Case]:
    """Cases that both kinds of pooling have."""
    return [
        make("one_value", (1, 1, 1, 1), pool_size=1),
        make("defaults", (2, 6, 8, 3)),
        make("tail_dropped", (2, 7, 5, 17)),
        make("wide_channels", (1, 4, 5, 67), pool_size=(2, 3)),
        make("overlapping", (2, 7, 9, 6), pool_size=3, strides=2),
        make("strides_differ", (5, 8, 11, 3), pool_size=(3, 2), strides=(1, 3)),
        make("stride_beyond_window", (1, 11, 13, 3), pool_size=2, strides=(3, 5)),
        make("whole_input", (2, 5, 7, 6), pool_size=(5, 7)),
        make("large_window", (2, 11, 12, 8), pool_size=(8, 9), strides=2, padding="same"),
        make("large_window_single", (1, 19, 18, 3), pool_size=(17, 16), strides=(1, 2)),
        make("same", (1, 7, 6, 3), pool_size=3, padding="same"),
        make("same_even", (1, 7, 5, 17), pool_size=(2, 4), strides=(2, 1), padding="same"),
        make("same_stride_beyond_window", (1, 8, 7, 1), pool_size=2, strides=3, padding="same"),
        make("padding_number", (2, 5, 6, 3), pool_size=3, strides=2, padding=1),
        make("padding_pair", (1, 6, 7, 3), pool_size=(2, 4), strides=2, padding=(1, 2)),
        make("padding_uneven", (2, 5, 7, 6), pool_size=3, strides=2, padding=((0, 2), (2, 1))),
        make("ceil", (2, 6, 8, 3), pool_size=3, strides=2, ceil_mode=True),
        make("ceil_no_more_room", (1, 5, 6, 3), pool_size=1, strides=(3, 4), ceil_mode=True),
        make("ceil_padded", (1, 6, 7, 3), pool_size=3, strides=2, padding=1, ceil_mode=True),
        make(
            "ceil_uneven",
            (1, 6, 7, 6),
            pool_size=(3, 4),
            strides=3,
            padding=((1, 0), (0, 2)),
            ceil_mode=True,
        ),
        make("lenet_first", (2, 28, 28, 6)),
        make("lenet_second", (2, 10, 10, 16)),
        make("empty_batch", (0, 6, 7, 3)),
    ]


MAX_POOL2D = [
    *pools(max_pool),
    max_pool("dilated", (2, 9, 8, 3), pool_size=(3, 2), dilation_rate=(2, 3)),
    max_pool("dilated_same", (1, 7, 6, 17), pool_size=2, dilation_rate=3, padding="same"),
    max_pool(
        "dilated_ceil", (1, 10, 9, 3), pool_size=3, strides=2, dilation_rate=2, ceil_mode=True
    ),
]
AVG_POOL2D = [
    *pools(avg_pool),
    avg_pool("counted", (2, 5, 6, 3), pool_size=3, strides=2, padding=1, count_include_pad=True),
    avg_pool(
        "counted_uneven_ceil",
        (1, 6, 7, 6),
        pool_size=(3, 4),
        strides=3,
        padding=((1, 0), (0, 2)),
        ceil_mode=True,
        count_include_pad=True,
    ),
    avg_pool(
        "counted_ceil",
        (1, 6, 7, 3),
        pool_size=3,
        strides=2,
        padding=1,
        ceil_mode=True,
        count_include_pad=True,
    ),
]
POOL2D_LARGE = [
    max_pool("large", (16, 63, 64, 33), pool_size=3, strides=2, padding="same"),
    avg_pool("large", (16, 63, 64, 33), pool_size=3, strides=2, padding="same"),
]

# ---- up-sampling -------------------------------------------------------------------------------


def upsample(name: str, x: Shape, **options) -> Case:
    return Case("upsample2d", name, (x,), options)


UPSAMPLE2D = [
    upsample(f"{name}_{interpolation}", x, interpolation=interpolation, **options)
    for interpolation in ("nearest", "bilinear")
    for name, x, options in [
        ("one_value", (1, 1, 1, 1), {"size": 3}),
        ("defaults", (2, 5, 7, 3), {}),
        ("unscaled", (1, 4, 3, 6), {"size": 1}),
        ("sizes_differ", (2, 4, 5, 17), {"size": (3, 2)}),
        ("one_way", (1, 3, 6, 1), {"size": (1, 5)}),
        ("one_row", (1, 1, 7, 6), {"size": (4, 3)}),
        ("power_of_two", (1, 5, 3, 33), {"size": 4}),
        ("empty_batch", (0, 5, 3, 3), {"size": 2}),
    ]
]
UPSAMPLE2D_LARGE = [
    upsample("large_nearest", (8, 32, 33, 35), size=2),
    upsample("large_bilinear", (8, 32, 33, 35), size=(2, 3), interpolation="bilinear"),
]

# ---- dense -------------------------------------------------------------------------------------


def dense(name: str, x: Shape, units: int, *, bias: bool = True, **options) -> Case:
    return Case("dense", name, (x, (x[-1], units), (units,) if bias else None), options)


DENSE = [
    dense("one_value", (1, 1), 1),
    dense("primes", (13, 31), 37),
    dense("one_unit", (5, 17), 1),
    dense("one_input", (5, 1), 17),
    dense("no_bias", (2, 7), 5, bias=False),
    dense("one_wide_unit", (19, 37), 1),
    dense("two_units", (33, 64), 2),
    dense("three_units", (1, 133), 3),
    dense("four_units", (70, 41), 4, bias=False),
    dense("seven_units", (11, 39), 7),
    dense("ten_units", (9, 101), 10),
    dense("a_register_of_units", (7, 70), 16, bias=False),
    dense("two_registers_of_units", (13, 67), 27),
    dense("tails_of_lanes", (33, 65), 129),
    dense("one_sample", (1, 100), 67),
    dense("no_leading_axis", (6,), 3),
    dense("three_leading_axes", (2, 3, 5, 6), 7),
    dense("lenet_first", (2, 400), 120),
    dense("lenet_second", (2, 120), 84),
    dense("lenet_third", (5, 84), 10),
    dense("empty_batch", (0, 6), 3),
]
DENSE_LARGE = [
    dense("large", (129, 517), 263),
    dense("large_one_sample", (1, 2048), 1024),
]

# ---- activations -------------------------------------------------------------------------------

ACTIVATIONS = [
    Case(op, name + suffix, (shape,), options, ("wide",))
    for op, suffix, options in [
        ("relu", "", {}),
        ("leaky_relu", "", {}),
        ("leaky_relu", "_small_slope", {"negative_slope": 0.01}),
        ("leaky_relu", "_no_slope", {"negative_slope": 0.0}),
        ("sigmoid", "", {}),
        ("tanh", "", {}),
        ("exp", "", {}),
    ]
    for name, shape in [
        ("one_value", (1,)),
        ("tail", (7, 13)),
        ("images", (2, 5, 3, 17)),
        ("empty_batch", (0, 3)),
    ]
]
SOFTMAXES = [
    Case(op, name, (shape,), options, ("wide",))
    for op in ("softmax", "log_softmax")
    for name, shape, options in [
        ("one_value", (1, 1), {}),
        ("one_row", (17,), {}),
        ("classes", (5, 10), {}),
        ("tail", (3, 67), {}),
        ("long_rows", (3, 300), {}),
        ("first_axis", (10, 7), {"axis": 0}),
        ("middle_axis", (2, 6, 3, 5), {"axis": 1}),
        ("negative_axis", (2, 3, 17, 6), {"axis": -2}),
        ("empty_batch", (0, 10), {}),
    ]
]
RESCALE = [
    Case("rescale", name, (shape,), options)
    for name, shape, options in [
        ("one_value", (1,), {"scale": 2}),
        ("pixels", (2, 5, 3, 17), {"scale": 1 / 127.5, "offset": -1.0}),
        ("tail", (7, 13), {"scale": -0.7, "offset": 3.3}),
        ("no_scale", (3, 5), {"scale": 0.0, "offset": 0.1}),
        ("empty_batch", (0, 3), {"scale": 1 / 255}),
    ]
]
ACTIVATIONS_LARGE = [
    *(
        Case(op, "large", ((64, 4099),), {}, ("wide",))
        for op in ("relu", "leaky_relu", "sigmoid", "tanh", "exp", "softmax", "log_softmax")
    ),
    Case("rescale", "large", ((64, 4099),), {"scale": 0.3, "offset": 1.5}),
    Case("softmax", "large_middle_axis", ((16, 37, 401),), {"axis": 1}, ("wide",)),
]

# ---- element by element ------------------------------------------------------------------------

UNARY = [
    Case(op, name + suffix, (shape,), options, (fill,))
    for op, suffix, options, fill in [
        ("elu", "", {}, "wide"),
        ("elu", "_alpha", {"alpha": 0.3}, "wide"),
        ("selu", "", {}, "wide"),
        ("softplus", "", {}, "wide"),
        ("softsign", "", {}, "wide"),
        ("silu", "", {}, "wide"),
        ("gelu", "", {}, "wide"),
        ("gelu", "_approximate", {"approximate": True}, "wide"),
        ("hard_sigmoid", "", {}, "wide"),
        ("hard_swish", "", {}, "wide"),
        ("relu6", "", {}, "wide"),
        ("mish", "", {}, "wide"),
        ("clip", "", {"x_min": -0.5, "x_max": 2.25}, "wide"),
        ("clip", "_below", {"x_min": None, "x_max": 0.25}, "wide"),
        ("absolute", "", {}, "wide"),
        ("square", "", {}, "wide"),
        ("sqrt", "", {}, "probabilities"),
        ("log", "", {}, "probabilities"),
    ]
    for name, shape in [
        ("one_value", (1,)),
        ("images", (2, 5, 3, 17)),
        ("empty_batch", (0, 3)),
    ]
]
BINARY_SHAPES: list[tuple[str, tuple[Shape, Shape]]] = [
    ("one_value", ((1,), (1,))),
    ("images", ((2, 3, 5, 17), (2, 3, 5, 17))),
    ("channels", ((2, 3, 5, 6), (6,))),
    ("single_value", ((5, 13), (1,))),
    ("pixels", ((2, 3, 5, 7), (3, 5, 1))),
    ("scales", ((2, 1, 1, 17), (2, 3, 4, 17))),
    ("both_ways", ((3, 1, 5, 1), (4, 1, 6))),
    ("rows", ((7, 1), (7, 3))),
    ("axes_of_one", ((1, 1, 3), (3,))),
    ("empty_batch", ((0, 3), (3,))),
]
BINARY = [
    Case(op, name, shapes, {}, ("normal", "probabilities" if op == "divide" else "normal"))
    for op in ("subtract", "multiply", "divide", "maximum", "minimum")
    for name, shapes in BINARY_SHAPES
]
ELEMENTWISE_LARGE = [
    *(Case(op, "large", ((64, 4099),), {}, ("wide",)) for op in ("gelu", "hard_swish")),
    Case("multiply", "large", ((64, 4099), (64, 4099))),
    Case("multiply", "large_channels", ((16, 31, 33, 17), (17,))),
    Case("divide", "large_pixels", ((64, 63, 65), (63, 1)), {}, ("normal", "probabilities")),
]

# ---- over axes ---------------------------------------------------------------------------------

REDUCE = [
    Case(op, name, (shape,), options, ("distinct" if op in ("max", "min") else "normal",))
    for op in ("sum", "mean", "max", "min")
    for name, shape, options in [
        ("one_value", (1,), {}),
        ("last_axis", (5, 67), {"axis": -1}),
        ("everything", (2, 3, 5, 7), {}),
        ("short_rows", (37, 3), {"axis": 1}),
        ("long_row", (1, 1031), {"axis": 1, "keepdims": True}),
        ("first_axis", (13, 6), {"axis": 0}),
        ("images", (2, 5, 7, 3), {"axis": (1, 2)}),
        ("many_channels", (2, 5, 3, 67), {"axis": (1, 2), "keepdims": True}),
        ("few_channels", (3, 29, 17), {"axis": 1}),
        ("apart", (2, 5, 3, 7), {"axis": (1, 3)}),
        ("apart_kept", (3, 5, 1, 17), {"axis": (-1, 0), "keepdims": True}),
        ("no_axis", (2, 3), {"axis": ()}),
        ("empty_batch", (0, 3, 5), {"axis": 1}),
    ]
]
GLOBAL_POOL2D = [
    Case(op, name, (shape,), options, (fill,))
    for op, fill in [("global_avg_pool2d", "normal"), ("global_max_pool2d", "distinct")]
    for name, shape, options in [
        ("one_value", (1, 1, 1, 1), {}),
        ("images", (2, 7, 5, 3), {}),
        ("kept", (3, 5, 7, 17), {"keepdims": True}),
        ("one_channel", (2, 13, 11, 1), {}),
        ("resnet_last", (2, 7, 7, 64), {}),
        ("empty_batch", (0, 5, 3, 6), {}),
    ]
]
REDUCE_LARGE = [
    *(
        Case(op, f"large_{name}", (shape,), options, ("distinct" if op == "max" else "normal",))
        for op in ("sum", "max")
        for name, shape, options in [
            ("everything", (64, 4099), {}),
            ("first_axis", (4099, 67), {"axis": 0}),
            ("few_columns", (30011, 3), {"axis": 0}),
            ("wide", (131, 2053), {"axis": 0}),
        ]
    ),
    Case("global_avg_pool2d", "large", ((16, 32, 33, 67),), {}),
]

# ---- joining -----------------------------------------------------------------------------------


def concatenate(name: str, shapes: list[Shape], **options) -> Case:
    return Case("concatenate", name, tuple(shapes), options)


CONCATENATE = [
    concatenate("one_array", [(2, 3)]),
    concatenate("channels", [(2, 3, 5, 1), (2, 3, 5, 6)]),
    concatenate("three_arrays", [(2, 3, 17), (2, 3, 1), (2, 3, 6)]),
    concatenate("many_arrays", [(3, k) for k in (1, 2, 3, 5, 7)], axis=1),
    concatenate("batch_axis", [(2, 3, 5), (1, 3, 5), (4, 3, 5)], axis=0),
    concatenate("middle_axis", [(2, 1, 5, 3), (2, 4, 5, 3)], axis=1),
    concatenate("negative_axis", [(2, 3, 5, 3), (2, 3, 7, 3)], axis=-2),
    concatenate("one_empty", [(2, 0, 3), (2, 4, 3)], axis=1),
    concatenate("empty_batch", [(0, 3), (0, 4)]),
]
ADD = [
    Case("add", "one_value", ((1,), (1,))),
    Case("add", "tail", ((5, 13), (5, 13))),
    Case("add", "images", ((2, 3, 5, 17), (2, 3, 5, 17))),
    Case("add", "empty_batch", ((0, 3), (0, 3))),
    Case("add", "channels", ((2, 3, 5, 6), (6,))),
    Case("add", "both_ways", ((3, 1, 5, 1), (4, 1, 6))),
    Case("add", "axes_of_one", ((3,), (1, 1, 3))),
]
JOIN_LARGE = [
    concatenate("large", [(64, 16, 17, 13), (64, 16, 17, 24)]),
    Case("add", "large", ((64, 4099), (64, 4099))),
]

# ---- padding, cropping, orders of axes, repetition ----------------------------------------------


def pad(name: str, x: Shape, padding: Any, op: str = "pad2d") -> Case:
    return Case(op, name, (x,), {"padding" if op == "pad2d" else "cropping": padding})


PAD2D = [
    pad("one_value", (1, 1, 1, 1), 1),
    pad("all_sides", (2, 5, 7, 3), ((1, 2), (3, 4))),
    pad("nothing", (2, 3, 5, 6), 0),
    pad("rows_alone", (1, 3, 5, 17), (2, 0)),
    pad("columns_alone", (3, 2, 3, 1), [0, 5]),
    pad("one_number_and_two", (1, 2, 3, 4), (1, (0, 2))),
    pad("eight_channels", (2, 3, 2, 8), 1),
    pad("empty_batch", (0, 3, 5, 2), 1),
]
CROP2D = [
    pad("all_sides", (2, 7, 9, 3), ((1, 2), (3, 4)), "crop2d"),
    pad("one_value", (1, 3, 3, 1), 1, "crop2d"),
    pad("nothing", (2, 3, 5, 6), ((0, 0), (0, 0)), "crop2d"),
    pad("rows_alone", (1, 5, 5, 17), (2, 0), "crop2d"),
    pad("eight_channels", (2, 4, 3, 8), ((1, 0), (0, 1)), "crop2d"),
    pad("empty_batch", (0, 3, 5, 2), 1, "crop2d"),
]
PERMUTE = [
    Case("permute", name, (shape,), {"axes": axes})
    for name, shape, axes in [
        ("swapped", (2, 5, 3), (2, 1)),
        ("one_axis", (3, 7), (1,)),
        ("as_it_is", (2, 3, 5, 2), (1, 2, 3)),
        ("turned", (2, 3, 5, 7), (3, 2, 1)),
        ("turned_even", (2, 6, 4, 8), (3, 2, 1)),
        ("channels_first", (2, 5, 4, 3), (3, 1, 2)),
        ("channels_last", (2, 3, 5, 4), (2, 3, 1)),
        ("rows_and_columns", (2, 3, 5, 17), (2, 1, 3)),
        ("four_channels", (2, 5, 3, 4), [2, 1, 3]),
        ("inner_swapped", (1, 4, 35, 37), (1, 3, 2)),
        ("four_axes", (2, 2, 3, 4, 5), (4, 2, 3, 1)),
        ("four_axes_apart", (1, 2, 3, 4, 5), (2, 4, 1, 3)),
        ("five_axes", (2, 2, 3, 2, 3, 4), (3, 2, 1, 4, 5)),
        ("axes_of_one_value", (2, 1, 5, 1, 3), (4, 3, 2, 1)),
        ("empty_batch", (0, 3, 5), (2, 1)),
    ]
]
REPEAT = [
    Case("repeat", name, (shape,), {"repeats": repeats, "axis": axis})
    for name, shape, repeats, axis in [
        ("vectors", (3, 1, 7), 4, 1),
        ("one_value", (1,), 3, 0),
        ("each_value", (2, 5), 3, -1),
        ("middle", (2, 3, 4, 5), 2, -2),
        ("once", (2, 3), 1, 1),
        ("empty_batch", (0, 3), 2, 1),
    ]
]
MOVE_LARGE = [
    pad("large", (16, 31, 33, 5), ((1, 2), (0, 3))),
    pad("large", (16, 35, 37, 5), ((1, 2), (0, 3)), "crop2d"),
    Case("permute", "large", ((16, 13, 17, 41),), {"axes": (3, 2, 1)}),
    Case("permute", "large_swapped", ((16, 131, 57),), {"axes": (2, 1)}),
]

# ---- transposed, depthwise and separable convolution -------------------------------------------


def transposed(name: str, x: Shape, kernel: Shape, *, bias: bool = True, **options) -> Case:
    return Case("conv2d_transpose", name, (x, kernel, (kernel[2],) if bias else None), options)


CONV2D_TRANSPOSE = [
    transposed("one_value", (1, 1, 1, 1), (1, 1, 1, 1)),
    transposed("prime_sizes", (5, 7, 5, 3), (3, 5, 7, 3)),
    transposed("no_bias", (2, 5, 6, 3), (3, 3, 6, 3), bias=False),
    transposed("pointwise", (2, 5, 7, 6), (1, 1, 17, 6)),
    transposed("strided", (2, 4, 5, 3), (3, 3, 6, 3), strides=2),
    transposed("strided_same", (2, 4, 5, 3), (3, 3, 6, 3), strides=2, padding="same"),
    transposed("doubled", (3, 5, 4, 17), (2, 2, 6, 17), strides=2),
    transposed("even_same", (2, 5, 3, 3), (4, 4, 5, 3), strides=2, padding="same"),
    transposed("same", (2, 5, 6, 3), (5, 3, 4, 3), padding="same"),
    transposed("strides_differ", (3, 3, 5, 2), (3, 2, 4, 2), strides=(3, 1), padding="same"),
    transposed("gaps", (2, 3, 4, 3), (2, 1, 5, 3), strides=(3, 2)),
    transposed("gaps_same", (2, 3, 4, 3), (1, 2, 5, 3), strides=3, padding="same"),
    transposed("output_padding", (2, 3, 4, 3), (3, 3, 4, 3), strides=2, output_padding=1),
    transposed(
        "output_padding_same",
        (2, 3, 4, 3),
        (3, 2, 4, 3),
        strides=(2, 3),
        padding="same",
        output_padding=(1, 2),
    ),
    transposed(
        "least_same", (2, 4, 3, 2), (4, 5, 3, 2), strides=2, padding="same", output_padding=0
    ),
    transposed("dilated", (2, 5, 4, 3), (3, 2, 4, 3), dilation_rate=2),
    transposed("dilated_same", (2, 5, 6, 3), (3, 3, 4, 3), dilation_rate=(2, 3), padding="same"),
    transposed("one_channel", (3, 4, 4, 1), (3, 3, 1, 1), strides=2),
    transposed("empty_batch", (0, 4, 5, 3), (3, 3, 6, 3)),
]


def depthwise(name: str, x: Shape, kernel: Shape, *, bias: bool = True, **options) -> Case:
    filters = kernel[2] * kernel[3]
    return Case("depthwise_conv2d", name, (x, kernel, (filters,) if bias else None), options)


DEPTHWISE_CONV2D = [
    depthwise("one_value", (1, 1, 1, 1), (1, 1, 1, 1)),
    depthwise("prime_sizes", (3, 13, 11, 7), (3, 5, 7, 1)),
    depthwise("multiplied", (2, 5, 6, 3), (3, 3, 3, 4), padding="same"),
    depthwise("no_bias", (2, 5, 6, 17), (3, 3, 17, 1), bias=False),
    depthwise("strided", (2, 7, 9, 6), (3, 3, 6, 2), strides=2, padding="same"),
    depthwise("dilated", (2, 9, 8, 3), (3, 2, 3, 1), dilation_rate=2),
    depthwise(
        "strided_and_dilated",
        (2, 17, 23, 5),
        (3, 4, 5, 1),
        strides=(2, 3),
        dilation_rate=(3, 2),
        padding="same",
    ),
    depthwise(
        "dilated_by_the_stride", (1, 13, 12, 2), (3, 3, 2, 2), strides=(2, 4), dilation_rate=(4, 2)
    ),
    depthwise(
        "stride_above_the_window",
        (2, 11, 10, 4),
        (2, 1, 4, 1),
        strides=(3, 4),
        padding=((2, 1), (3, 0)),
    ),
    depthwise("several_bands", (2, 131, 67, 33), (3, 3, 33, 1), padding="same"),
    depthwise("several_blocks", (1, 9, 6, 151), (5, 3, 151, 1), strides=2, padding="same"),
    depthwise(
        "several_blocks_multiplied", (1, 7, 5, 21), (3, 3, 21, 5), strides=(2, 1), padding="same"
    ),
    depthwise("wider_than_a_tile", (1, 3, 70001, 2), (2, 3, 2, 1), padding="same"),
    depthwise("padded", (2, 4, 5, 3), (3, 3, 3, 1), padding=((1, 2), (0, 1))),
    depthwise("empty_batch", (0, 5, 5, 3), (3, 3, 3, 2)),
]


def separable(
    name: str, x: Shape, kernel: Shape, filters: int, *, bias: bool = True, **options
) -> Case:
    mixed = (1, 1, kernel[2] * kernel[3], filters)
    return Case("separable_conv2d", name, (x, kernel, mixed, (filters,) if bias else None), options)


SEPARABLE_CONV2D = [
    separable("one_value", (1, 1, 1, 1), (1, 1, 1, 1), 1),
    separable("prime_sizes", (3, 7, 11, 5), (3, 5, 5, 1), 7),
    separable("multiplied", (2, 5, 6, 3), (3, 3, 3, 4), 17, padding="same"),
    separable("no_bias", (2, 5, 6, 6), (3, 3, 6, 1), 3, bias=False),
    separable("strided", (2, 7, 9, 6), (3, 3, 6, 2), 5, strides=2, padding="same"),
    separable("dilated", (2, 9, 8, 3), (3, 2, 3, 1), 4, dilation_rate=2),
    separable("empty_batch", (0, 5, 5, 3), (3, 3, 3, 2), 4),
]

# ---- normalisation -----------------------------------------------------------------------------


def norm(op: str, name: str, x: Shape, axis: Any = -1, *, given: str = "gb", **options) -> Case:
    """`given`: g where there is a gamma, b where there is a beta."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    numbers = tuple(x[i] for i in axes)
    shapes = (x, numbers if "g" in given else None, numbers if "b" in given else None)
    return Case(op, name, shapes, options if axis == -1 else {"axis": axis, **options})


BATCH_NORM = [
    norm("batch_norm", "one_channel", (5, 7, 1)),
    norm("batch_norm", "prime_sizes", (5, 7, 11, 3)),
    norm("batch_norm", "few_rows", (3, 6)),
    norm("batch_norm", "tail", (37, 17)),
    norm("batch_norm", "many_channels", (5, 2, 3, 521)),
    norm("batch_norm", "several_chunks", (67, 11, 13, 6)),
    norm("batch_norm", "no_gamma", (4, 5, 6, 3), given="b"),
    norm("batch_norm", "no_beta", (4, 5, 6, 3), given="g"),
    norm("batch_norm", "bare", (4, 5, 6, 3), given="", epsilon=0.5),
    norm("batch_norm", "channels_first", (4, 6, 5, 3), 1),
    norm("batch_norm", "middle_axis", (4, 5, 6, 3), 2),
    norm("batch_norm", "wide_channels", (64, 700)),
    norm("batch_norm", "empty_batch", (0, 5, 3)),
]
LAYER_NORM = [
    norm("layer_norm", "one_row", (1, 7)),
    norm("layer_norm", "prime_sizes", (5, 7, 3)),
    norm("layer_norm", "tail", (13, 17)),
    norm("layer_norm", "short_rows", (33, 6)),
    norm("layer_norm", "one_channel", (3, 1)),
    norm("layer_norm", "long_rows", (5, 2, 131)),
    norm("layer_norm", "several_blocks", (3, 4111)),
    norm("layer_norm", "many_rows", (520, 9, 10)),
    norm("layer_norm", "images", (5, 3, 7, 6), (1, 2, 3)),
    norm("layer_norm", "two_axes", (5, 3, 7, 6), (-2, -1)),
    norm("layer_norm", "no_gamma", (4, 5, 6), given="b"),
    norm("layer_norm", "no_beta", (4, 5, 70), given="g"),
    norm("layer_norm", "bare", (4, 5, 6), given="", epsilon=0.5),
    norm("layer_norm", "empty_batch", (0, 5, 3)),
]
PRELU = [
    Case("prelu", "one_value", ((1, 1), (1,)), {}),
    Case("prelu", "channels", ((3, 5, 7, 6), (1, 1, 6)), {}),
    Case("prelu", "not_shared", ((5, 3, 7, 6), (3, 7, 6)), {}),
    Case("prelu", "fewer_axes", ((3, 5, 7, 17), (17,)), {}),
    Case("prelu", "rows_shared", ((2, 5, 7, 3), (1, 7, 3)), {}),
    Case("prelu", "all_shared", ((2, 5, 7, 3), (1, 1, 1)), {}),
    Case("prelu", "channels_first", ((2, 6, 5, 7), (6, 1, 1)), {}),
    Case("prelu", "columns_shared", ((2, 5, 7, 3), (5, 1, 3)), {}),
    Case("prelu", "features", ((13, 37), (37,)), {}),
    Case("prelu", "several_chunks", ((67, 11, 13, 6), (6,)), {}),
    Case("prelu", "empty_batch", ((0, 5, 3), (3,)), {}),
]

# ---- losses ------------------------------------------------------------------------------------

LOSS_SHAPES: list[tuple[str, Shape]] = [
    ("one_row", (1, 3)),
    ("classes", (5, 10)),
    ("tail", (3, 67)),
    ("per_pixel", (2, 3, 5, 6)),
    ("empty_batch", (0, 10)),
]


def losses(name: str, shape: Shape) -> list[Case]:
    rows = shape[:-1]
    both = (shape, shape)
    logits = {"from_logits": True}
    return [
        Case("categorical_crossentropy", name, both, {}, ("shares", "probabilities")),
        Case("categorical_crossentropy", f"{name}_logits", both, logits, ("shares", "wide")),
        Case(
            "sparse_categorical_crossentropy", name, (rows, shape), {}, ("labels", "probabilities")
        ),
        Case(
            "sparse_categorical_crossentropy",
            f"{name}_logits",
            (rows, shape),
            logits,
            ("labels", "wide"),
        ),
        Case("binary_crossentropy", name, both, {}, ("shares", "probabilities")),
        Case("binary_crossentropy", f"{name}_logits", both, logits, ("shares", "wide")),
        Case("mean_squared_error", name, both),
        Case("mean_absolute_error", name, both),
    ]


LOSSES = [case for name, shape in LOSS_SHAPES for case in losses(name, shape)]
LOSSES_LARGE = losses("large", (1024, 65))

# ---- more losses -------------------------------------------------------------------------------


def pointwise_losses(name: str, shape: Shape) -> list[Case]:
    normal, shares = ("normal", "normal"), ("shares", "probabilities")
    return [
        Case(op, name if not label else f"{name}_{label}", (shape, shape), options, fills)
        for op, label, options, fills in [
            ("hinge", "", {}, ("ties", "normal")),
            ("squared_hinge", "", {}, ("ties", "normal")),
            ("categorical_hinge", "", {}, ("shares", "normal")),
            ("huber", "", {}, normal),
            ("huber", "delta", {"delta": 0.25}, normal),
            ("kl_divergence", "", {}, ("probabilities", "probabilities")),
            ("poisson", "", {}, shares),
            ("log_cosh", "", {}, normal),
            ("log_cosh", "wide", {}, ("wide", "normal")),
            ("mean_absolute_percentage_error", "", {}, ("probabilities", "normal")),
            ("mean_squared_logarithmic_error", "", {}, shares),
            ("cosine_similarity", "", {}, normal),
            ("binary_focal_crossentropy", "", {}, shares),
            ("binary_focal_crossentropy", "fraction", {"gamma": 3.5}, shares),
            ("binary_focal_crossentropy", "balanced", {"apply_class_balancing": True}, shares),
            ("binary_focal_crossentropy", "logits", {"from_logits": True}, ("shares", "normal")),
            ("categorical_focal_crossentropy", "", {}, shares),
            ("categorical_focal_crossentropy", "cubed", {"gamma": 3.0, "alpha": 0.6}, shares),
            (
                "categorical_focal_crossentropy",
                "logits",
                {"from_logits": True, "gamma": 1.5},
                ("shares", "normal"),
            ),
            ("dice", "", {}, shares),
            ("dice", "rows", {"axis": -1}, shares),
        ]
    ]


def losses_over(name: str, shape: Shape, axis: Any) -> list[Case]:
    both, shares = (shape, shape), ("shares", "probabilities")
    cases = [Case("dice", f"{name}_over", both, {"axis": axis}, shares)]
    if isinstance(axis, int):
        cases += [
            Case("cosine_similarity", f"{name}_over", both, {"axis": axis}),
            Case("binary_focal_crossentropy", f"{name}_over", both, {"axis": axis}, shares),
            Case("categorical_focal_crossentropy", f"{name}_over", both, {"axis": axis}, shares),
            Case("categorical_crossentropy", f"{name}_over", both, {"axis": axis}, shares),
            Case("binary_crossentropy", f"{name}_over", both, {"axis": axis}, shares),
        ]
    return cases


POINTWISE_LOSSES = [
    *(case for name, shape in LOSS_SHAPES for case in pointwise_losses(name, shape)),
    # A single class is certain, and a single number has one direction: no slopes but of rounding.
    *(c for c in pointwise_losses("one_value", (2, 1)) if not c.op.startswith(("cat", "cos"))),
    *losses_over("images", (2, 3, 5, 6), (1, 2, 3)),
    *losses_over("planes", (2, 3, 5, 17), (1, 2)),
    *losses_over("columns", (3, 4, 5), 1),
    *losses_over("pixels", (2, 3, 5, 7), -2),
]
POINTWISE_LOSSES_LARGE = [
    *pointwise_losses("large", (1024, 65)),
    *losses_over("large", (16, 67, 61, 3), (1, 2, 3)),
]

# ---- all ---------------------------------------------------------------------------------------

CASES = [
    *CONV2D,
    *MAX_POOL2D,
    *AVG_POOL2D,
    *UPSAMPLE2D,
    *DENSE,
    *ACTIVATIONS,
    *SOFTMAXES,
    *RESCALE,
    *UNARY,
    *BINARY,
    *REDUCE,
    *GLOBAL_POOL2D,
    *CONV2D_TRANSPOSE,
    *DEPTHWISE_CONV2D,
    *SEPARABLE_CONV2D,
    *BATCH_NORM,
    *LAYER_NORM,
    *PRELU,
    *CONCATENATE,
    *ADD,
    *PAD2D,
    *CROP2D,
    *PERMUTE,
    *REPEAT,
    *LOSSES,
    *POINTWISE_LOSSES,
]
LARGE = [
    *CONV2D_LARGE,
    *POOL2D_LARGE,
    *UPSAMPLE2D_LARGE,
    *DENSE_LARGE,
    *ACTIVATIONS_LARGE,
    *ELEMENTWISE_LARGE,
    *REDUCE_LARGE,
    *JOIN_LARGE,
    *MOVE_LARGE,
    *LOSSES_LARGE,
    *POINTWISE_LOSSES_LARGE,
]


def typical(table: list[Case]) -> list[Case]:
    """One case per op: the first that is no single value."""
    chosen: dict[str, Case] = {}
    for case in table:
        if not case.name.startswith("one_"):
            chosen.setdefault(case.op, case)
    return list(chosen.values())
