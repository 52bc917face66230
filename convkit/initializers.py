"""Initial values of parameters, with Keras's names and definitions.

Each initializer is called with a shape and a dtype and gives an array. Fans of a convolution's
kernel (height, width, in, out) count its window: fan_in = height * width * in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import numpy as np

from convkit import geometry, random


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a kernel's shape."""
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


class Initializer:
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


class _Scaled(Initializer):
    """Variance scale / fan; fan is fan_in or the mean of both."""

    scale = 1.0
    average = False

    def variance(self, shape: tuple[int, ...]) -> float:
        fan_in, fan_out = fans(shape)
        fan = (fan_in + fan_out) / 2 if self.average else fan_in
        return self.scale / max(1.0, fan)


class _ScaledUniform(_Scaled):
    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        limit = sqrt(3 * self.variance(shape))
        return generator.uniform(-limit, limit, shape)


class _ScaledNormal(_Scaled):
    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        # Truncated at two standard deviations, which takes the deviation down to 0.8796 of it.
        stddev = sqrt(self.variance(shape)) / 0.87962566103423978
        values = generator.normal(0, 1, shape)
        while (far := np.abs(values) > 2).any():
            values[far] = generator.normal(0, 1, int(far.sum()))
        return values * stddev


class GlorotUniform(_ScaledUniform):
    """Uniform of variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    average = True


class GlorotNormal(_ScaledNormal):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    average = True


class HeUniform(_ScaledUniform):
    """Uniform of variance 2 / fan_in (He et al., 2015)."""

    scale = 2.0


class HeNormal(_ScaledNormal):
    """Truncated normal of variance 2 / fan_in (He et al., 2015)."""

    scale = 2.0


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
}


def get(identifier: Any) -> Callable[..., np.ndarray]:
    """An initializer from its name, a class, an instance or any function of shape and dtype."""
    if isinstance(identifier, str):
        key = identifier if identifier in NAMES else _snake(identifier)
        return NAMES[geometry.choice("initializers.get", "initializer", key, tuple(NAMES))]()
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if callable(identifier):
        return identifier  # type: ignore[no-any-return]
    raise TypeError(f"initializers.get: expected a name or an initializer, got {identifier!r}")


def _snake(name: str) -> str:
    """GlorotUniform -> glorot_uniform"""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
