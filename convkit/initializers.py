"""Initial values of parameters, with Keras's names and definitions.

Each initializer is called with a shape and a dtype and gives an array. Fans of a convolution's
kernel (height, width, in, out) count its window: fan_in = height * width * in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, frexp, inf, log2, prod, sqrt
from typing import Any

import numpy as np

from convkit import configuration, geometry, random, registered


def fans(
    shape: tuple[int, ...],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> tuple[int, int]:
    """(fan_in, fan_out) of a kernel's shape; of these axes, if both are given."""
    if input_axes is not None and output_axes is not None:
        return prod(shape[axis] for axis in input_axes), prod(shape[axis] for axis in output_axes)
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


class Initializer(configuration.Configured):
    """Base class.

    Args:
        seed: with a seed, every call gives the same values; None draws from the process's
            generator (`convkit.utils.set_random_seed`).
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        generator = (
            random.generator()
            if self.seed is None
            else np.random.Generator(np.random.Philox(self.seed))
        )
        return np.asarray(self.draw(generator, tuple(shape)), dtype)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """Values of `shape`; float64 will do."""
        raise TypeError(f"{type(self).__name__}: a subclass must define draw(generator, shape)")


class Zeros(Initializer):
    """All 0."""

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return np.zeros(shape)


class Ones(Initializer):
    """All 1."""

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return np.ones(shape)


class Constant(Initializer):
    """All `value`."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return np.full(shape, self.value)


class RandomUniform(Initializer):
    """Uniform between minval and maxval."""

    def __init__(
        self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return generator.uniform(self.minval, self.maxval, shape)


class RandomNormal(Initializer):
    """Normal with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return generator.normal(self.mean, self.stddev, shape)


class TruncatedNormal(Initializer):
    """Normal with the given mean and standard deviation; what is farther than two deviations from
    the mean is drawn again.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return self.mean + _truncated(generator, shape) * self.stddev


class VarianceScaling(Initializer):
    """Variance scale / fan.

    Args:
        scale: above 0.
        mode: the fan, "fan_in", "fan_out" or "fan_avg", the mean of both.
        distribution: "truncated_normal" (or "normal"), "untruncated_normal" or "uniform".
        seed: as of `Initializer`.
        input_axes, output_axes: of a kernel's shape, whose sizes make fan_in and fan_out; None: as
            of a dense layer or a convolution.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed)
        op = type(self).__name__
        self.scale = geometry.number(op, "scale", scale, 0, inf)
        if not self.scale:
            raise geometry.fail(op, "scale above 0", scale)
        self.mode = geometry.choice(op, "mode", mode, ("fan_in", "fan_out", "fan_avg"))
        self.distribution = geometry.choice(
            op,
            "distribution",
            "truncated_normal" if distribution == "normal" else distribution,
            ("truncated_normal", "untruncated_normal", "uniform"),
        )
        self.input_axes = None if input_axes is None else tuple(input_axes)
        self.output_axes = None if output_axes is None else tuple(output_axes)

    def variance(self, shape: tuple[int, ...]) -> float:
        """Of the values of an array of this shape."""
        fan_in, fan_out = fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return self.scale / max(1.0, fan)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        deviation = sqrt(self.variance(shape))
        if self.distribution == "uniform":
            limit = sqrt(3 * self.variance(shape))
            return generator.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return generator.normal(0, deviation, shape)
        # Truncation takes the deviation down to 0.8796 of what it was.
        return _truncated(generator, shape) * (deviation / 0.87962566103423978)


class _OfKind(VarianceScaling):
    """One of the kinds below: what distinguishes it, and an axis or a seed given."""

    kind: tuple[float, str, str]

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self.kind, seed, input_axes, output_axes)


class GlorotUniform(_OfKind):
    """Uniform of variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    kind = (1.0, "fan_avg", "uniform")


class GlorotNormal(_OfKind):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    kind = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_OfKind):
    """Uniform of variance 2 / fan_in (He et al., 2015)."""

    kind = (2.0, "fan_in", "uniform")


class HeNormal(_OfKind):
    """Truncated normal of variance 2 / fan_in (He et al., 2015)."""

    kind = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_OfKind):
    """Uniform of variance 1 / fan_in (LeCun, Bottou, Orr and Müller, 1998)."""

    kind = (1.0, "fan_in", "uniform")


class LecunNormal(_OfKind):
    """Truncated normal of variance 1 / fan_in (LeCun, Bottou, Orr and Müller, 1998)."""

    kind = (1.0, "fan_in", "truncated_normal")


class Identity(Initializer):
    """`gain` on the diagonal of a matrix, 0 elsewhere."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        if len(shape) != 2:
            raise geometry.fail("Identity", "a shape of two axes", shape)
        return self.gain * np.eye(*shape)


class Orthogonal(Initializer):
    """Columns that are orthogonal to each other, of norm `gain`; rows, where these are fewer
    (Saxe, McClelland and Ganguli, 2014).

    A kernel of a convolution (height, width, in, out) counts as the matrix (height * width * in,
    out).
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        if len(shape) < 2:
            raise geometry.fail("Orthogonal", "a shape of two axes or more", shape)
        rows, columns = prod(shape[:-1]), shape[-1]
        numbers = generator.normal(0, 1, (max(rows, columns), min(rows, columns)))
        found = _orthogonal_columns(numbers)
        return self.gain * (found if rows >= columns else found.T).reshape(shape)


def _truncated(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal, cut off at two deviations by drawing again."""
    values = generator.normal(0, 1, shape)
    while (far := np.abs(values) > 2).any():
        values[far] = generator.normal(0, 1, int(far.sum()))
    return values


# ---- orthogonal columns with the same bits on every machine --------------------------------------
# Libraries of linear algebra round as the processor and the number of threads have it. So columns
# are made orthogonal by Gram and Schmidt's method, twice, which is enough (Giraud, Langou and
# Rozloznik, 2005), in NumPy's own sums, whose order is fixed, and in products without rounding.


def _orthogonal_columns(a: np.ndarray) -> np.ndarray:
    """Q of A = QR, R with a positive diagonal; A (rows, columns), rows >= columns."""
    at_once = 32
    q = np.zeros_like(a)
    for first in range(0, a.shape[1], at_once):
        block = a[:, first : first + at_once].copy()
        before = q[:, :first]
        for _ in range(2):
            if first:
                block -= _product(before, _product(before.T, block))
            for i in range(block.shape[1]):
                column = block[:, i : i + 1]
                column -= (block[:, :i] * (block[:, :i] * column).sum(0)).sum(1, keepdims=True)
                column /= np.sqrt((column * column).sum(0))
        q[:, first : first + at_once] = block
    return q


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b to about 36 bits: parts of so few bits that no sum of their products is rounded."""
    bits = (53 - ceil(log2(a.shape[1] + 1))) // 2
    (high_a, low_a), (high_b, low_b) = _parts(a, bits), _parts(b, bits)
    return np.asarray(high_a @ high_b + (high_a @ low_b + low_a @ high_b))


def _parts(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """x as a sum of two, each a multiple of a power of two with so many bits."""
    unit = 2.0 ** (frexp(np.abs(x).max())[1] - bits)
    high = np.rint(x / unit) * unit
    unit *= 2.0**-bits
    return high, np.rint((x - high) / unit) * unit


NAMES: dict[str, Callable[[], Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "identity": Identity,
    "orthogonal": Orthogonal,
    # Keras's other names.
    "zero": Zeros,
    "one": Ones,
    "normal": RandomNormal,
    "uniform": RandomUniform,
}


def get(identifier: Any) -> Callable[..., np.ndarray]:
    """An initializer from its name, a class, an instance or any function of shape and dtype."""
    if isinstance(identifier, str):
        key = identifier if identifier in NAMES else _snake(identifier)
        if key not in NAMES:
            return get(registered.named("initializers.get", "initializer", identifier, NAMES))
        return NAMES[key]()
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if callable(identifier):
        return identifier  # type: ignore[no-any-return]
    raise TypeError(f"initializers.get: expected a name or an initializer, got {identifier!r}")


def _snake(name: str) -> str:
    """GlorotUniform -> glorot_uniform"""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
