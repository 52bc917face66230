"""The sums of `csrc/cpu/conv_cost.h`, term by term, and factors that fit them to times.

The header is what counts: FORMS says how each sum is written there, with # for a factor, which is
read from it, and what that factor multiplies. Where the header is written otherwise, `standing`
says so: whoever changes a sum changes its form here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from choice_cases import Shape

SOURCES = Path(__file__).resolve().parent.parent / "csrc" / "cpu"
LANES = {"generic": 4, "neon": 4, "avx2": 8, "avx512": 16}  # float32
FUSED = ("neon", "avx2", "avx512")
MASKED = ("avx2", "avx512")
TILE_ROWS = {"generic": 4, "neon": 8, "avx2": 6, "avx512": 12}  # of gemm.h
FORWARD, BACKWARD_INPUT, BACKWARD_KERNEL = "forward", "backward_input", "backward_kernel"
PASSES = (FORWARD, BACKWARD_INPUT, BACKWARD_KERNEL)


@cache
def source(header: str) -> str:
    """A header without comments, in one line."""
    text = re.sub("//.*", "", (SOURCES / header).read_text(encoding="utf-8"))
    return " ".join(text.split())


@cache
def numbers(code: str, header: str = "conv_cost.h") -> tuple[float, ...]:
    """The numbers that stand in the header for each # of `code`, all of its places in turn."""
    pattern = re.escape(code).replace(r"\#", r"(\d+(?:\.\d+)?)")
    found = re.findall(pattern, source(header))
    if not found:
        raise ValueError(f"{header}: expected {code!r}, as bench/conv_costs.py has it")
    return tuple(
        float(n) for place in found for n in ([place] if isinstance(place, str) else place)
    )


def made(shape: Shape, of_pass: str) -> int:
    """The side of the pictures that a pass makes, or for the kernel's gradient reads dy of."""
    return shape.side if of_pass == BACKWARD_INPUT else shape.out_side


class Known:
    """What the sums of one pass know of a convolution (`ConvCost`, by the same names)."""

    def __init__(self, shape: Shape, of_pass: str, isa: str, outputs: int) -> None:
        back = of_pass == BACKWARD_INPUT
        self.shape, self.of_pass, self.isa = shape, of_pass, isa
        self.channels, self.filters, self.kernel = shape.channels, shape.filters, shape.kernel
        self.window = shape.kernel**2
        self.inputs, self.units = (
            (self.filters, self.channels) if back else (self.channels, self.filters)
        )
        self.made = made(shape, of_pass)
        self.outputs = outputs  # of Winograd's windows
        *fused, plain, plain_places, plain_waits = numbers(
            "static constexpr double kMultiplyAdd = #, kPlaceMultiplyAdd = #, kWaits = #;"
        )
        is_fused = isa in FUSED
        self.multiply_add, self.place_multiply_add, self.least_waits = (
            fused if is_fused else (plain, plain_places, plain_waits)
        )

    def registers(self, values: int) -> int:
        return -(-values // LANES[self.isa])

    def transformed(self, values: int) -> float:
        if self.isa in MASKED:
            return self.registers(values)
        (part,) = numbers("return whole + # * (registers(values) - whole);")
        whole = values // LANES[self.isa]
        return whole + part * (self.registers(values) - whole)

    @property
    def products(self) -> float:
        return self.multiply_add * self.window * self.channels * self.registers(self.filters)

    @property
    def rows_met(self) -> float:
        """Of the rows of all windows, the share that lies in the picture."""
        return met(self.shape) / (self.kernel * self.shape.out_side)

    @property
    def waits(self) -> float:
        """Of windows where they lie: multiply-adds of registers, or the wait for a sum."""
        tiles = -(-self.shape.out_side // TILE_ROWS[self.isa])
        least = self.least_waits * tiles / self.shape.out_side
        both, one = divmod(self.registers(self.filters), 2)
        each = both * max(2 * self.multiply_add, least) + one * max(self.multiply_add, least)
        return self.window * self.channels * each

    @property
    def fewest_products(self) -> float:
        (turned,) = numbers("const double turned = # * kMultiplyAdd * filters_")
        other = self.multiply_add * self.filters * self.registers(self.window * self.channels)
        return min(self.products, turned * other)

    @property
    def across(self) -> float:
        return self.shape.out_side / self.shape.side

    @property
    def gradient_products(self) -> float:
        columns = self.registers(self.kernel * self.channels)
        return self.multiply_add * self.kernel * self.filters / self.shape.stride * columns

    @property
    def taps_met(self) -> float:
        return share(self.shape, self.of_pass) * self.window

    @property
    def plane_width(self) -> int:
        return self.made + (self.kernel - 1) // self.shape.stride

    @property
    def plane_products(self) -> float:
        taps = self.window * self.inputs
        return taps * self.units * self.plane_width / (self.made * LANES[self.isa])

    @property
    def plane_rows(self) -> float:
        """Those of one band: rows that two bands share are few."""
        return self.inputs * self.shape.stride**2 * self.plane_width / self.made**2

    @cached_property
    def winograd_products(self) -> float:
        """For a channel and a filter."""
        side = self.outputs + self.kernel - 1
        return float((math.ceil(self.made / self.outputs) * side / self.made) ** 2)

    @property
    def weights(self) -> int:
        return self.inputs * self.registers(self.units)


Term = tuple[str, Callable[[Known], float]]
PIXEL: Term = ("#", lambda k: 1)


@dataclass(frozen=True)
class Form:
    """One sum: which algorithms and passes it is for, and its terms, as they are written behind
    `before` with + between them. A term without # has the factor 1."""

    algorithms: tuple[str, ...]
    passes: tuple[str, ...]
    before: str
    terms: tuple[Term, ...]
    kind: str = ""  # of shapes, those for which `applies` holds
    applies: Callable[[Shape, str], bool] = lambda shape, of_pass: True

    @property
    def name(self) -> str:
        """What a table calls it: algorithms, kind and passes."""
        passes = "all passes" if self.passes == PASSES else ", ".join(self.passes)
        return f"{', '.join(self.algorithms)}{self.kind}: {passes}"

    def standing(self) -> list[float]:
        """The factors that stand in conv_cost.h."""
        sum_of_terms = " + ".join(code for code, _ in self.terms)
        found = numbers(f"{self.before}{sum_of_terms};")
        given = sum("#" in code for code, _ in self.terms)
        if len(found) != given:
            raise ValueError(f"conv_cost.h: expected one sum like that of {self.name}")
        read = iter(found)
        return [next(read) if "#" in code else 1.0 for code, _ in self.terms]

    def values(self, algorithm: str, of_pass: str, shape: Shape, isa: str) -> list[float]:
        """What the factors multiply, of a pixel."""
        outputs = int(algorithm[-1]) if algorithm.startswith("winograd") else 0
        known = Known(shape, of_pass, isa, outputs)
        return [float(term(known)) for _, term in self.terms]


def is_pixelwise(shape: Shape, of_pass: str) -> bool:
    """Of a forward pass, as in conv_choice.h."""
    (least,) = numbers("constexpr int64_t kLeastChannels = #;", "conv_choice.h")
    return of_pass == FORWARD and shape.kernel == 1 and shape.channels >= least


def met(shape: Shape) -> int:
    """How many rows of windows lie in the picture, of all in a column of outputs."""
    before = 0
    if shape.padding == "same":
        reach = (shape.out_side - 1) * shape.stride + shape.kernel - shape.side
        before = max(0, reach) // 2
    rows = range(shape.out_side)
    taps = range(-before, shape.kernel - before)
    return sum(0 <= row * shape.stride + tap < shape.side for row in rows for tap in taps)


def share(shape: Shape, of_pass: str) -> float:
    """Of the taps of all windows, those that meet the picture (small_picture.h); of dx, for strides
    of 1, those of its convolution, which are as many."""
    return (met(shape) / (shape.kernel * made(shape, of_pass))) ** 2


def is_small_picture(shape: Shape, of_pass: str) -> bool:
    """As in small_picture.h."""
    back = of_pass == BACKWARD_INPUT
    if of_pass == BACKWARD_KERNEL or (back and shape.stride > 1):
        return False
    inputs = shape.filters if back else shape.channels
    least, pixels = numbers(
        "constexpr int64_t kLeastChannels = #, kMostPixels = #;", "small_picture.h"
    )
    (most,) = numbers("constexpr double kMostShare = #;", "small_picture.h")
    small = made(shape, of_pass) ** 2 <= pixels
    return inputs >= least and small and share(shape, of_pass) <= most


FORMS = (
    Form(
        ("product",),
        (FORWARD,),
        "if (plain) return ",
        (("# * products", lambda k: k.products), PIXEL),
        " of pixels",
        is_pixelwise,
    ),
    Form(
        ("product",),
        (FORWARD,),
        "return rows_met() * (",
        (
            ("# * products", lambda k: k.rows_met * k.products),
            ("# * window_ * channels_)", lambda k: k.rows_met * k.window * k.channels),
            ("# * kernel_rows(s_.out_width)", lambda k: k.kernel / k.made),
            PIXEL,
        ),
        applies=lambda shape, of_pass: (
            not (is_pixelwise(shape, of_pass) or is_small_picture(shape, of_pass))
        ),
    ),
    Form(
        ("product",),
        (BACKWARD_INPUT,),
        "return ",
        (
            (
                "across * kMultiplyAdd * rows * registers(kernel_width * channels_)",
                lambda k: k.across * k.gradient_products,
            ),
            ("# * kernel_rows(s_.width)", lambda k: k.kernel / k.made),
            PIXEL,
        ),
        applies=lambda shape, of_pass: not is_small_picture(shape, of_pass),
    ),
    Form(
        ("product",),
        (FORWARD, BACKWARD_INPUT),
        "return small.share() * window * (",
        (
            (
                "# * kPlaceMultiplyAdd * weights",
                lambda k: k.taps_met * k.place_multiply_add * k.weights,
            ),
            ("channels)", lambda k: k.taps_met * k.inputs),
            PIXEL,
        ),
        " of small pictures",
        is_small_picture,
    ),
    Form(
        ("product",),
        (BACKWARD_KERNEL,),
        "return ",
        (
            ("# * std::min(products, turned)", lambda k: k.fewest_products),
            (
                "# * static_cast<double>(s_.kernel_height) * registers(kernel_width * channels_)",
                lambda k: k.kernel * k.registers(k.kernel * k.channels),
            ),
            ("# * kernel_rows(s_.out_width)", lambda k: k.kernel / k.made),
        ),
    ),
    Form(
        ("windows",),
        (FORWARD,),
        "return rows_met() * window_ * channels_ * ",
        (
            (
                "(both * std::max(2 * kMultiplyAdd, waits) + one * std::max(kMultiplyAdd, waits))",
                lambda k: k.rows_met * k.waits,
            ),
            PIXEL,
        ),
    ),
    Form(
        ("planes",),
        (FORWARD, BACKWARD_INPUT),
        "} return ",
        (
            ("# * kMultiplyAdd * products", lambda k: k.multiply_add * k.plane_products),
            ("# * rows", lambda k: k.plane_rows),
            (
                "# * static_cast<double>(planes.planes())",
                lambda k: k.inputs * k.shape.stride**2,
            ),
            PIXEL,
        ),
    ),
    Form(
        ("planes",),
        (BACKWARD_KERNEL,),
        "if (pass == WinogradPass::kBackwardKernel) { return ",
        (
            ("# * products", lambda k: k.plane_products),
            ("# * rows", lambda k: k.plane_rows),
            PIXEL,
            ("# / made", lambda k: 1 / k.made**2),
        ),
    ),
    Form(
        ("winograd2", "winograd4"),
        PASSES,
        "return ",
        (
            (
                "each * (kPlaceMultiplyAdd * weights",
                lambda k: k.winograd_products * k.place_multiply_add * k.weights,
            ),
            (
                "# * (transformed(inputs) + transformed(units)))",
                lambda k: k.winograd_products * (k.transformed(k.inputs) + k.transformed(k.units)),
            ),
            (
                # The batch that was measured stands in the place of `samples`.
                "# * weights * side * side / (samples * pixels(pass))",
                lambda k: k.weights * (k.outputs + k.kernel - 1) ** 2 / (k.shape.batch * k.made**2),
            ),
            PIXEL,
        ),
    ),
)


def form(algorithm: str, of_pass: str, shape: Shape) -> Form | None:
    """The sum that tells what `algorithm` costs; None for those that are not in conv_cost.h, and
    for strides, of which too few are measured."""
    if shape.stride != 1:
        return None
    found = (f for f in FORMS if algorithm in f.algorithms and of_pass in f.passes)
    return next((f for f in found if f.applies(shape, of_pass)), None)


def fit(terms: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The factors (k,), none negative, of terms (m, k) with the least squares of relative errors of
    their sums beside times (m,).

    The best ones without that bound are so for those that are not zero; so with few terms, it is
    enough to try which these are.
    """
    relative = terms / times[:, None]
    best, least = np.zeros(terms.shape[1]), math.inf
    for count in range(1, terms.shape[1] + 1):
        for chosen in map(list, itertools.combinations(range(terms.shape[1]), count)):
            factors = np.zeros(terms.shape[1])
            factors[chosen] = np.linalg.lstsq(relative[:, chosen], np.ones(len(times)))[0]
            error = float(np.sum((relative @ factors - 1) ** 2))
            if factors.min() >= 0 and error < least:
                best, least = factors, error
    return best


def errors(factors: Sequence[float], terms: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Relative errors of the sums."""
    return np.abs(terms @ np.asarray(factors) / times - 1)
