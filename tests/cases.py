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
]
JOIN_LARGE = [
    concatenate("large", [(64, 16, 17, 13), (64, 16, 17, 24)]),
    Case("add", "large", ((64, 4099), (64, 4099))),
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
    *CONCATENATE,
    *ADD,
    *LOSSES,
]
LARGE = [
    *CONV2D_LARGE,
    *POOL2D_LARGE,
    *UPSAMPLE2D_LARGE,
    *DENSE_LARGE,
    *ACTIVATIONS_LARGE,
    *JOIN_LARGE,
    *LOSSES_LARGE,
]


def typical(table: list[Case]) -> list[Case]:
    """One case per op: the first that is no single value."""
    chosen: dict[str, Case] = {}
    for case in table:
        if not case.name.startswith("one_"):
            chosen.setdefault(case.op, case)
    return list(chosen.values())
