"""Initializers: limits, moments and seeds, from the published definitions."""

from __future__ import annotations

import numpy as np
import pytest

import convkit
from convkit import initializers, layers

KERNEL = (5, 5, 16, 120)  # fan_in 400, fan_out 3000
FAN_IN, FAN_OUT = 400, 3000
# Standard deviation of a standard normal cut off at two: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
CUT = 0.8796256610342398


def moments_fit(values: np.ndarray, deviation: float) -> bool:
    """Mean and variance within five standard errors (an excess kurtosis of at most 0 assumed)."""
    count = values.size
    mean_fits = abs(values.mean()) < 5 * deviation / np.sqrt(count)
    return mean_fits and abs(values.var() / deviation**2 - 1) < 5 * np.sqrt(2 / count)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("glorot_uniform", 2 / (FAN_IN + FAN_OUT)),  # Glorot and Bengio, 2010, formula 16
        ("glorot_normal", 2 / (FAN_IN + FAN_OUT)),
        ("he_uniform", 2 / FAN_IN),  # He, Zhang, Ren and Sun, 2015, formula 10
        ("he_normal", 2 / FAN_IN),
    ],
)
def test_scaled_initializers_have_the_published_variance(name, variance):
    convkit.utils.set_random_seed(0)
    values = initializers.get(name)(KERNEL, "float64")
    assert values.shape == KERNEL
    assert moments_fit(values, np.sqrt(variance))
    # A normal is cut at two of the standard deviations that it had before the cut.
    cut = np.sqrt(3) if name.endswith("uniform") else 2 / CUT
    limit = cut * np.sqrt(variance)
    assert 0.999 * limit < np.abs(values).max() <= limit


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (1, 1)),
        ((7,), (7, 7)),
        ((3, 4), (3, 4)),
        ((5, 3, 2, 4), (30, 60)),
        ((2, 5, 3, 2, 4), (60, 120)),
    ],
)
def test_fans_count_the_window(shape, expected):
    assert initializers.fans(shape) == expected


def test_layers_draw_glorot_uniform_and_zeros():
    layer = layers.Conv2D(120, 5)
    layer.build((None, 14, 14, 16))
    kernel, bias = layer.get_weights()
    limit = np.sqrt(6 / (FAN_IN + FAN_OUT))
    assert 0.999 * limit < np.abs(kernel).max() <= limit
    assert not bias.any()
    grouped = layers.Conv2D(120, 5, groups=4)
    grouped.build((None, 14, 14, 64))
    assert np.abs(grouped.get_weights()[0]).max() <= limit  # fans from the kernel's own shape


def test_plain_initializers():
    rng = np.random.default_rng(0)
    shape = (200, 300)
    np.testing.assert_array_equal(initializers.Zeros()(shape), 0)
    np.testing.assert_array_equal(initializers.Ones()(shape), 1)
    np.testing.assert_array_equal(initializers.Constant(2.5)(shape), 2.5)
    values = initializers.RandomUniform(seed=int(rng.integers(100)))(shape, "float64")
    assert -0.05 <= values.min() < -0.0499
    assert 0.0499 < values.max() <= 0.05
    assert moments_fit(values, 0.1 / np.sqrt(12))
    values = initializers.RandomNormal(mean=1.0, stddev=0.5, seed=1)(shape, "float64")
    assert abs(values.mean() - 1) < 5 * 0.5 / np.sqrt(values.size)
    assert moments_fit(values - values.mean(), 0.5)
    assert np.abs(values - 1).max() > 2 * 0.5  # not cut


@pytest.mark.parametrize("name", sorted(initializers.NAMES))
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_values_have_the_dtype_asked_for(name, kind):
    values = initializers.get(name)((3, 2), kind)
    assert isinstance(values, np.ndarray)
    assert values.dtype == kind
    assert values.shape == (3, 2)


@pytest.mark.parametrize(
    "kind",
    [
        *(initializers.GlorotUniform, initializers.GlorotNormal, initializers.HeUniform),
        *(initializers.HeNormal, initializers.RandomUniform, initializers.RandomNormal),
    ],
)
def test_a_seed_gives_the_same_values_and_none_gives_others(kind):
    seeded = kind(seed=4)
    np.testing.assert_array_equal(seeded((9, 9)), kind(seed=4)((9, 9)))
    np.testing.assert_array_equal(seeded((9, 9)), seeded((9, 9)))
    assert not np.array_equal(kind(seed=5)((9, 9)), seeded((9, 9)))
    free = kind()
    convkit.utils.set_random_seed(1)
    first, second = free((9, 9)), free((9, 9))
    assert not np.array_equal(first, second)
    convkit.utils.set_random_seed(1)
    np.testing.assert_array_equal(free((9, 9)), first)


def test_layers_take_names_classes_instances_and_functions():
    def threes(shape, dtype="float32"):
        return np.full(shape, 3, dtype)

    for given, expected in (
        ("ones", 1),
        ("Ones", 1),
        (initializers.Ones, 1),
        (initializers.Constant(2), 2),
        (threes, 3),
    ):
        layer = layers.Dense(2, kernel_initializer=given, bias_initializer=given)
        layer.build((None, 3))
        for weight in layer.get_weights():
            np.testing.assert_array_equal(weight, expected)


def test_unknown_initializers_are_errors():
    with pytest.raises(ValueError, match=r"'glorot_uniform'.*got 'xavier'"):
        layers.Dense(2, kernel_initializer="xavier")
    with pytest.raises(TypeError, match="expected a name or an initializer, got 3"):
        layers.Dense(2, kernel_initializer=3)


def test_an_initializer_of_the_wrong_shape_is_an_error():
    layer = layers.Dense(2, kernel_initializer=lambda shape, dtype: np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"kernel of shape \(3, 2\), got \(2, 2\)"):
        layer.build((None, 3))
