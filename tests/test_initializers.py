"""Initializers: limits, moments and seeds, from the published definitions."""

from __future__ import annotations

import numpy as np
import pytest

import convkit
from convkit import initializers, layers, registered

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
        ("lecun_uniform", 1 / FAN_IN),  # LeCun, Bottou, Orr and Müller, 1998, section 4.6
        ("lecun_normal", 1 / FAN_IN),
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


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("kind", ["truncated_normal", "untruncated_normal", "normal", "uniform"])
def test_variance_scaling(mode, kind):
    fan = {"fan_in": FAN_IN, "fan_out": FAN_OUT, "fan_avg": (FAN_IN + FAN_OUT) / 2}[mode]
    values = initializers.VarianceScaling(0.5, mode, kind, seed=3)(KERNEL, "float64")
    deviation = np.sqrt(0.5 / fan)
    assert moments_fit(values, deviation)
    cut = {"uniform": np.sqrt(3), "untruncated_normal": np.inf}.get(kind, 2 / CUT)
    assert np.abs(values).max() <= cut * deviation
    assert np.abs(values).max() > min(0.999 * cut, 2.5) * deviation


def test_fans_of_chosen_axes():
    assert initializers.fans((2, 3, 5, 7), input_axes=(0, 3), output_axes=(1,)) == (14, 3)
    made = initializers.VarianceScaling(1.0, "fan_out", "uniform", 1, [0], [1, 2])
    values = made((100, 20, 30), "float64")
    assert moments_fit(values, np.sqrt(1 / 600))
    assert initializers.HeUniform(1, (0,), (1, 2)).variance((100, 20, 30)) == 2 / 100


def test_truncated_normal():
    values = initializers.TruncatedNormal(1.0, 0.5, seed=1)((200, 300), "float64")
    assert 1.99 < values.max() <= 2
    assert 0 <= values.min() < 0.01
    assert abs(values.mean() - 1) < 5 * 0.5 / np.sqrt(values.size)
    assert moments_fit(values - values.mean(), 0.5 * CUT)


def test_identity():
    found = initializers.Identity(2.0)((2, 3))
    np.testing.assert_array_equal(found, [[2, 0, 0], [0, 2, 0]])
    with pytest.raises(ValueError, match=r"Identity: expected a shape of two axes, got \(3,\)"):
        initializers.Identity()((3,))


@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 1), (1, 7), (4, 4), (90, 31), (31, 90), (5, 5, 3, 64), (2, 33, 97)]
)
def test_orthogonal(shape):
    made = initializers.Orthogonal(3.0, seed=2)
    matrix = made(shape, "float64").reshape(-1, shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    identity = np.eye(matrix.shape[1])
    np.testing.assert_allclose(matrix.T @ matrix, 9 * identity, atol=1e-10)
    # The one of the decomposition QR whose R has a positive diagonal: no direction is preferred.
    generator = np.random.Generator(np.random.Philox(2))
    q, r = np.linalg.qr(generator.normal(0, 1, matrix.shape))
    np.testing.assert_allclose(matrix / 3, q * np.sign(np.diag(r)), atol=1e-9)


def test_orthogonal_needs_a_matrix():
    with pytest.raises(ValueError, match=r"Orthogonal: expected a shape of two axes or more"):
        initializers.Orthogonal()((3,))


def test_products_of_orthogonal_have_no_rounding(rng):
    a, b = rng.normal(size=(70, 500)), 1e-3 * rng.normal(size=(500, 60))
    found = initializers._product(a, b)
    np.testing.assert_allclose(found, a @ b, atol=1e-9)
    order = rng.permutation(500)
    np.testing.assert_array_equal(initializers._product(a[:, order], b[order]), found)


# Made on one machine; to be had on every other.
NUMBERS = {
    "GlorotNormal": [-0.10051576048135757, 0.06075926125049591, -0.04510745033621788],
    "GlorotUniform": [-0.006804582197219133, -0.016116300597786903, -0.09327662736177444],
    "HeNormal": [-0.18804776668548584, 0.11367017030715942, -0.08438830822706223],
    "Orthogonal": [-0.12018465250730515, 0.07751711457967758, -0.014063741080462933],
    "RandomNormal": [-0.07017821818590164, 0.04242097586393356, -0.0314931757748127],
    "RandomUniform": [-0.0031182512175291777, -0.00738541642203927, -0.0427447184920311],
    "TruncatedNormal": [-0.07017821818590164, 0.04242097586393356, -0.0314931757748127],
}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_seed_gives_the_same_values_on_every_machine(name):
    values = getattr(initializers, name)(seed=7)((3, 3, 16, 40)).ravel()
    assert [float(value) for value in values[[0, 1, -1]]] == NUMBERS[name]


@pytest.mark.parametrize("name", sorted(initializers.NAMES))
def test_configurations_make_the_same_initializer(name):
    made = initializers.get(name)
    config = made.get_config()
    again = registered.made({"class_name": type(made).__name__, "config": config})
    assert type(again) is type(made)
    assert again.get_config() == config


def test_configurations_are_those_of_keras():
    scaling = {"seed": None, "input_axes": None, "output_axes": None}
    for name, expected in (
        ("random_normal", {"mean": 0.0, "stddev": 0.05, "seed": None}),
        ("truncated_normal", {"mean": 0.0, "stddev": 0.05, "seed": None}),
        ("random_uniform", {"minval": -0.05, "maxval": 0.05, "seed": None}),
        ("constant", {"value": 0.0}),
        ("orthogonal", {"gain": 1.0, "seed": None}),
        ("identity", {"gain": 1.0}),
        ("glorot_uniform", scaling),
        ("lecun_normal", scaling),
        (
            "variance_scaling",
            {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal", **scaling},
        ),
    ):
        assert initializers.get(name).get_config() == expected


@pytest.mark.parametrize(
    "options",
    [
        *({"scale": 0.0}, {"scale": -1.0}, {"scale": "a"}),
        *({"mode": "fan"}, {"distribution": "cauchy"}),
    ],
)
def test_options_out_of_range_are_errors(options):
    with pytest.raises((ValueError, TypeError), match="VarianceScaling: expected"):
        initializers.VarianceScaling(**options)


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
        *(initializers.TruncatedNormal, initializers.LecunNormal, initializers.Orthogonal),
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
