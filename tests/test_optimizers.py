"""Optimizers against the published update rules in NumPy, and against numbers that Keras gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from convkit import _core, graph, optimizers
from convkit.graph import Variable
from convkit.program import Program

START = [1.0, -2.0, 0.5, 3.0]
GRADIENTS = [
    [0.5, -1.0, 2.0, 0.0],
    [0.25, -1.5, -2.0, 1e-4],
    [-1.0, 0.5, 4.0, 3.0],
    [0.125, 0.0, -8.0, -1e-3],
    [2.0, 1.0, 0.5, 0.25],
]


def updated(optimizer, start, gradients: Sequence, dtype: str) -> list[np.ndarray]:
    """The parameter after each of these gradients, by one program that runs once per gradient."""
    parameter = Variable(np.array(start, dtype), "parameter")
    gradient = Variable(np.zeros_like(parameter.value), "gradient", trainable=False)
    program = Program(dtype, effects=optimizer.record([gradient.symbol], [parameter]))
    found = []
    for values in gradients:
        gradient.assign(values)
        program.run(0, 1, 1)
        found.append(parameter.numpy())
    return found


# ---- the rules, as published -------------------------------------------------------------------


def sgd(w, gradients, rate=0.01, momentum=0.0, nesterov=False):
    """Sutskever, Martens, Dahl and Hinton, 2013, with the look-ahead moved into the parameter."""
    velocity = np.zeros_like(w)
    for g in gradients:
        velocity = momentum * velocity - rate * g
        w = w + (momentum * velocity - rate * g if nesterov else velocity)
        yield w


def adam(w, gradients, rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Kingma and Ba, 2015, the more efficient order of computation at the end of section 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        alpha = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - alpha * m / (np.sqrt(v) + epsilon)
        yield w


CASES = [
    (optimizers.SGD, sgd, {}, {}),
    (optimizers.SGD, sgd, {"learning_rate": 0.1}, {"rate": 0.1}),
    (optimizers.SGD, sgd, {"learning_rate": 0.1, "momentum": 0.9}, {"rate": 0.1, "momentum": 0.9}),
    (
        optimizers.SGD,
        sgd,
        {"learning_rate": 0.05, "momentum": 0.5, "nesterov": True},
        {"rate": 0.05, "momentum": 0.5, "nesterov": True},
    ),
    (optimizers.SGD, sgd, {"nesterov": True}, {"nesterov": True}),
    (optimizers.Adam, adam, {}, {}),
    (optimizers.Adam, adam, {"learning_rate": 0.3}, {"rate": 0.3}),
    (
        optimizers.Adam,
        adam,
        {"learning_rate": 0.05, "beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.01},
        {"rate": 0.05, "beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.01},
    ),
    (optimizers.Adam, adam, {"beta_1": 0.0, "beta_2": 0.9}, {"beta_1": 0.0, "beta_2": 0.9}),
]


@pytest.mark.parametrize(("made", "rule", "options", "given"), CASES)
@pytest.mark.parametrize("shape", [(1,), (7,), (33, 5)])
def test_updates_follow_the_published_rule(
    backend, dtype, rng, made, rule: Callable, options, given, shape
):
    start = rng.normal(size=shape)
    gradients = [rng.normal(size=shape) for _ in range(6)]
    found = updated(made(**options), start, gradients, np.dtype(dtype).name)
    tolerance = 20 * np.finfo(dtype).eps
    for actual, expected in zip(found, rule(start, gradients, **given), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# Keras 3.15.1 on JAX 0.10.2, float64: the parameter after the fifth of GRADIENTS.
KERAS = [
    (optimizers.SGD(0.1), [0.8125, -1.9000000000000001, 0.85, 2.67509]),
    (
        optimizers.SGD(0.1, momentum=0.9),
        [0.75652, -1.3101399999999999, 0.75478, 2.1621556099999997],
    ),
    (
        optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        [0.5933679999999999, -1.279126, 1.0793020000000002, 1.921030049],
    ),
    (
        optimizers.Adam(0.1),
        [0.7950620263153824, -1.6888717952413475, 0.40465828451950164, 2.763079023628138],
    ),
    (
        optimizers.Adam(0.05, beta_1=0.8, beta_2=0.9, epsilon=0.1),
        [0.9362144264189454, -1.8830638470685295, 0.4659273520274027, 2.9240761388183416],
    ),
]


@pytest.mark.parametrize(("optimizer", "expected"), KERAS)
def test_five_steps_end_where_keras_ends(optimizer, expected):
    found = updated(optimizer, START, GRADIENTS, "float64")
    # Keras rounds some of Adam's factors to float32.
    np.testing.assert_allclose(found[-1], expected, rtol=1e-6)


def test_adam_with_a_gradient_of_zero_stays():
    found = updated(optimizers.Adam(), [1.0, 2.0], [[0.0, 0.0]] * 3, "float32")
    np.testing.assert_array_equal(found[-1], [1.0, 2.0])


def test_nan_gradients_show():
    for optimizer in (optimizers.SGD(momentum=0.9), optimizers.Adam()):
        found = updated(optimizer, [1.0, 2.0], [[np.nan, 1.0]], "float32")
        assert np.isnan(found[0]).tolist() == [True, False]


def test_defaults_are_those_of_keras():
    made = optimizers.SGD()
    assert (made.learning_rate, made.momentum, made.nesterov) == (0.01, 0.0, False)
    made = optimizers.Adam()
    assert (made.learning_rate, made.beta_1, made.beta_2, made.epsilon) == (0.001, 0.9, 0.999, 1e-7)


def test_the_learning_rate_may_change_at_any_time():
    optimizer = optimizers.SGD(1.0)
    parameter, gradient = (Variable(np.ones(1), name) for name in ("parameter", "gradient"))
    program = Program("float64", effects=optimizer.record([gradient.symbol], [parameter]))
    program.run(0, 1, 1)
    optimizer.learning_rate = 0.25
    assert optimizer.learning_rate == 0.25
    program.run(0, 1, 1)
    np.testing.assert_array_equal(parameter.value, -0.25)
    with pytest.raises(ValueError, match="learning_rate"):
        optimizer.learning_rate = -1.0
    assert optimizer.learning_rate == 0.25


def test_iterations_count_updates():
    optimizer = optimizers.Adam()
    updated(optimizer, [1.0], [[1.0]] * 3, "float32")
    assert optimizer.iterations.numpy() == 3


def test_a_counter_counts_in_its_last_number_and_keeps_its_seed():
    counter = Variable(np.array([40, 2]), "seed and step", trainable=False)
    node = graph.update("next_step", _core.Elementwise(size=2), [counter.symbol])
    Program("float32", effects=[node]).run(0, 1, 1)
    assert counter.numpy().tolist() == [40, 3]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("sgd", optimizers.SGD), ("SGD", optimizers.SGD), ("adam", optimizers.Adam)),
        *(("Adam", optimizers.Adam), (optimizers.Adam, optimizers.Adam)),
    ],
)
def test_get_takes_names_and_classes(name, kind):
    assert type(optimizers.get(name)) is kind


def test_get_takes_an_optimizer_as_it_is():
    made = optimizers.SGD(0.5)
    assert optimizers.get(made) is made


def test_unknown_optimizers_are_errors():
    with pytest.raises(ValueError, match=r"'sgd', 'adam', .*, got 'adamax'"):
        optimizers.get("adamax")
    with pytest.raises(TypeError, match=r"expected a name or an optimizer, got 0\.1"):
        optimizers.get(0.1)


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (optimizers.SGD, {"learning_rate": -0.1}),
        (optimizers.SGD, {"learning_rate": np.nan}),
        (optimizers.SGD, {"learning_rate": np.inf}),
        (optimizers.SGD, {"learning_rate": "fast"}),
        (optimizers.SGD, {"momentum": 1.0}),
        (optimizers.SGD, {"momentum": -0.1}),
        (optimizers.Adam, {"beta_1": 1.0}),
        (optimizers.Adam, {"beta_2": -0.5}),
        (optimizers.Adam, {"epsilon": -1e-9}),
        (optimizers.Adam, {"epsilon": None}),
    ],
)
def test_options_out_of_range_are_errors(made, options):
    with pytest.raises((ValueError, TypeError), match=f"{made.__name__}: expected"):
        made(**options)
