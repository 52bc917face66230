"""Regularizers and constraints: against NumPy in float64 and Keras, alone, in updates and in the
loss that is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkers import assert_same_bits

import convkit
from convkit import constraints, layers, models, optimizers, registered, regularizers
from convkit.graph import Variable
from convkit.program import Program

WEIGHTS = np.arange(-6, 6).reshape(2, 3, 2) / 4.0
# Keras 3.15.1 on TensorFlow, by
#     keras.config.set_floatx("float64")
#     print(float(eval(made, vars(keras.regularizers))(keras.ops.convert_to_tensor(WEIGHTS))))
PENALTIES = [
    ("L1()", 0.08999999798834324),
    ("L1(0.3)", 2.7000001072883606),
    ("L2()", 0.09124999796040356),
    ("L2(0.3)", 2.7375001087784767),
    ("L1L2()", 0.0),
    ("L1L2(0.1, 0.2)", 2.7250000406056643),
]
#     found = eval(made, vars(keras.constraints))(keras.ops.convert_to_tensor(WEIGHTS))
#     print(np.asarray(found).ravel().tolist())
HELD = [
    ("NonNeg()", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25]),
    (
        "UnitNorm()",
        [
            -0.9999999333333377,
            -0.9805805987678493,
            -0.8944271109999229,
            -0.7071067145198872,
            -0.44721355549996145,
            -0.19611611975356985,
            0.0,
            0.19611611975356985,
            0.44721355549996145,
            0.7071067145198872,
            0.8944271109999229,
            0.9805805987678493,
        ],
    ),
    (
        "UnitNorm(axis=[0, 1])",
        [
            -0.6882471700327394,
            -0.5976142760957697,
            -0.4588314466884929,
            -0.3585685656574618,
            -0.22941572334424645,
            -0.11952285521915393,
            0.0,
            0.11952285521915393,
            0.22941572334424645,
            0.3585685656574618,
            0.4588314466884929,
            0.5976142760957697,
        ],
    ),
    (
        "UnitNorm(axis=-1)",
        [
            -0.7682212402531156,
            -0.6401843668775963,
            -0.7999999360000051,
            -0.5999999520000038,
            -0.8944270309999446,
            -0.4472135154999723,
            0.0,
            0.99999960000016,
            0.5547001346867745,
            0.8320502020301617,
            0.6246950085300365,
            0.7808687606625455,
        ],
    ),
    (
        "MaxNorm()",
        [
            -1.4999999000000066,
            -1.24999990194194,
            -0.9999999105572889,
            -0.7499999292893285,
            -0.49999995527864444,
            -0.24999998038838803,
            0.0,
            0.24999998038838803,
            0.49999995527864444,
            0.7499999292893285,
            0.9999999105572889,
            1.24999990194194,
        ],
    ),
    (
        "MaxNorm(0.5, axis=1)",
        [
            -0.4008918414400663,
            -0.4225770987928317,
            -0.26726122762671084,
            -0.25354625927569896,
            -0.13363061381335542,
            -0.08451541975856633,
            0.0,
            0.08451541975856633,
            0.22360677774998072,
            0.25354625927569896,
            0.44721355549996145,
            0.4225770987928317,
        ],
    ),
    (
        "MaxNorm(1.5, axis=[1, 2])",
        [
            -0.9434563134892887,
            -0.7862135945744073,
            -0.6289708756595258,
            -0.47172815674464436,
            -0.3144854378297629,
            -0.15724271891488145,
            0.0,
            0.2022599478298823,
            0.4045198956597646,
            0.6067798434896469,
            0.8090397913195292,
            1.0112997391494114,
        ],
    ),
    (
        "MinMaxNorm(1.0, 1.5)",
        [
            -1.4999999000000066,
            -1.24999990194194,
            -0.9999999105572889,
            -0.7499999292893285,
            -0.49999995527864444,
            -0.24999998038838803,
            0.0,
            0.24999998038838803,
            0.49999995527864444,
            0.7499999292893285,
            0.9999999105572889,
            1.24999990194194,
        ],
    ),
    (
        "MinMaxNorm(1.0, 1.2, rate=0.25, axis=2)",
        [
            -1.3554663144593417,
            -1.1295552620494513,
            -0.9899999208000063,
            -0.7424999406000048,
            -0.5986066906679588,
            -0.2993033453339794,
            0.0,
            0.43749982500007,
            0.5136749920691835,
            0.7705124881037753,
            0.9374084557068852,
            1.1717605696336066,
        ],
    ),
    (
        "MinMaxNorm(0.0, 0.0, axis=[0, 1, 2])",
        [-0.0, -0.0, -0.0, -0.0, -0.0, -0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ),
]


# ---- penalties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "expected"), PENALTIES)
def test_penalties_are_those_of_keras(made, expected):
    regularizer = eval(made, vars(regularizers))
    # Keras rounds the factors to float32.
    assert regularizer(WEIGHTS) == pytest.approx(expected, rel=1e-6)
    assert regularizer(Variable(WEIGHTS, "w")) == regularizer(WEIGHTS)


SIZES = [1, 5, 17, 1000, 16384, 16385, 50001]  # below and above what one thread adds up
FACTORS = [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.01, 0.02)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("l1", "l2"), FACTORS)
def test_penalties_in_a_program(place, dtype, rng, size, l1, l2):
    """Sums in double: what is shown has no rounding of float32."""
    variables = [Variable(rng.normal(size=n).astype(dtype), "w") for n in (size, 3)]
    variables.append(Variable(np.full(4, np.nan, dtype), "not regularized"))
    for variable, regularizer in zip(variables, (regularizers.L1L2(l1, l2), "l2"), strict=False):
        variable.regularizer = regularizers.get(regularizer)
    total = Variable(np.zeros(2), "total")
    nodes = regularizers.penalty_nodes(variables, total)
    program = Program(np.dtype(dtype).name, effects=nodes, gpu=place)
    for samples, batch in ((12, 5), (3, 3)):
        program.run(0, samples, batch)
    found, count = total.numpy()
    expected = sum(v.regularizer(v) for v in variables[:2])
    assert found / count == pytest.approx(expected, rel=1e-12)
    assert count == 2 * 15


def test_bits_do_not_depend_on_threads(place, dtype, rng, threads):
    variable = Variable(rng.normal(size=100_003).astype(dtype), "w")
    variable.regularizer = regularizers.L1L2(0.1, 0.2)
    found = []
    for count in (1, 2, 3):
        threads(count)
        total = Variable(np.zeros(2), "total")
        nodes = regularizers.penalty_nodes([variable], total)
        Program(np.dtype(dtype).name, effects=nodes, gpu=place).run(0, 1, 1)
        found.append(total.numpy())
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])


@pytest.mark.parametrize(("l1", "l2"), FACTORS)
def test_gradients_of_penalties_are_added(place, dtype, rng, l1, l2):
    values = rng.normal(size=(7, 5)).astype(dtype)
    values[0, :2] = 0.0, -0.0
    variable, gradient = Variable(values, "w"), Variable(rng.normal(size=(7, 5)).astype(dtype), "g")
    variable.regularizer = regularizers.L1L2(l1, l2)
    optimizer = optimizers.SGD(1.0)
    nodes = optimizer.record([gradient.symbol], [variable])
    Program(np.dtype(dtype).name, effects=nodes, gpu=place).run(0, 1, 1)
    w = values.astype(np.float64)
    expected = w - (gradient.numpy() + l1 * np.sign(w) + 2 * l2 * w)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(variable.numpy(), expected, tolerance, tolerance)


def test_nan_weights_show(place):
    variable, total = Variable(np.array([1.0, np.nan]), "w"), Variable(np.zeros(2), "total")
    variable.regularizer = regularizers.L1(0.1)
    gradient = Variable(np.zeros(2), "g")
    nodes = regularizers.penalty_nodes([variable], total)
    nodes += optimizers.SGD(1.0).record([gradient.symbol], [variable])
    Program("float64", effects=nodes, gpu=place).run(0, 1, 1)
    assert np.isnan(total.numpy()[0])
    np.testing.assert_array_equal(variable.numpy(), [0.9, np.nan])


# ---- constraints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "expected"), HELD)
def test_constraints_are_those_of_keras(backend, made, expected):
    found = eval(made, vars(constraints))(WEIGHTS)
    assert found.shape == WEIGHTS.shape
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)


def held(constraint: Any, w: np.ndarray) -> np.ndarray:
    if isinstance(constraint, constraints.NonNeg):
        return np.maximum(w, 0)
    norms = np.sqrt(np.square(w).sum(axis=constraint.axis, keepdims=True))
    low, high, rate = 1.0, 1.0, 1.0
    if isinstance(constraint, constraints.MaxNorm):
        low, high = 0.0, constraint.max_value
    if isinstance(constraint, constraints.MinMaxNorm):
        low, high, rate = constraint.min_value, constraint.max_value, constraint.rate
    wanted = rate * np.clip(norms, low, high) + (1 - rate) * norms
    return w * wanted / (norms + 1e-7)


@pytest.mark.parametrize(
    "constraint",
    [
        *(constraints.NonNeg(), constraints.UnitNorm(), constraints.UnitNorm(-1)),
        *(constraints.UnitNorm((0, 1)), constraints.MaxNorm(1.5), constraints.MaxNorm(0.5, [2, 1])),
        *(constraints.MinMaxNorm(0.5, 2.0, 0.3, 1), constraints.MinMaxNorm(3, 4, axis=(0, 1, 2))),
    ],
    ids=lambda one: f"{type(one).__name__}{one.axis}",
)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (7, 2, 17), (130, 1, 3), (2, 90, 40)])
def test_updates_keep_constraints(place, dtype, rng, constraint, shape):
    values = rng.normal(size=shape).astype(dtype)
    gradient = Variable(rng.normal(size=shape).astype(dtype), "g")
    variable = Variable(values, "w")
    variable.constraint = constraint
    nodes = optimizers.SGD(0.5).record([gradient.symbol], [variable])
    Program(np.dtype(dtype).name, effects=nodes, gpu=place).run(0, 1, 1)
    expected = held(constraint, (values - 0.5 * gradient.numpy()).astype(np.float64))
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(variable.numpy(), expected, tolerance, tolerance)
    np.testing.assert_allclose(
        constraint(values), held(constraint, values.astype(np.float64)), tolerance, tolerance
    )


@pytest.mark.parametrize("kind", [constraints.NonNeg, constraints.UnitNorm, constraints.MaxNorm])
def test_nan_shows_where_it_is_and_in_its_norm(backend, kind):
    found = kind()(np.array([[np.nan, 1.0], [2.0, -1.0]], np.float32))
    shown = np.isnan(found)
    assert shown.tolist() == [[True, False], [kind is not constraints.NonNeg, False]]


def test_constraints_leave_what_they_are_given(backend):
    given = np.array([[-1, 2], [3, -4]])
    found = constraints.NonNeg()(given)
    assert found.dtype == np.float64
    assert found.tolist() == [[0, 2], [3, 0]]
    assert given.tolist() == [[-1, 2], [3, -4]]
    transposed = np.array([[-3.0, 4.0]]).T
    np.testing.assert_allclose(constraints.UnitNorm()(transposed), [[-0.6], [0.8]], rtol=1e-6)


def test_axes_must_be_there_and_side_by_side():
    w = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=r"UnitNorm: expected axis between -3 and 2, got 3"):
        constraints.UnitNorm(3)(w)
    with pytest.raises(ValueError, match=r"MaxNorm: expected axes that lie side by side, got"):
        constraints.MaxNorm(axis=(0, 2))(w)


# ---- in a model ----------------------------------------------------------------------------------

# Keras 3.15.1 on TensorFlow, the loss of each epoch, that of `evaluate`, and the weights, by
#     keras.config.set_floatx("float64")
#     model = keras.Sequential([
#         keras.layers.Input((2,)),
#         keras.layers.Dense(
#             3,
#             kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2), kernel_constraint="max_norm",
#             bias_regularizer=keras.regularizers.L2(0.3), bias_constraint="non_neg",
#         ),
#     ])
#     model.compile(keras.optimizers.SGD(0.1), "mse")
#     model.set_weights([KERNEL, BIAS])
#     print(model.fit(X, Y, batch_size=3, epochs=2, shuffle=False, verbose=0).history["loss"])
#     print(model.evaluate(X, Y, batch_size=3, verbose=0))
#     print([w.tolist() for w in model.get_weights()])
X = np.arange(-8, 8).reshape(8, 2) / 8.0
Y = np.arange(24).reshape(8, 3) % 5 / 4.0
KERNEL, BIAS = np.arange(6).reshape(2, 3) / 4.0 - 0.5, np.array([0.5, -0.25, 1.0])
LOSSES, EVALUATED = [1.1325220269871177, 0.7176711701956361], 0.5596383534481781
AFTER = [
    [
        [-0.30401250585413037, -0.1666951318871421, -0.026612423846262428],
        [0.1742132815766639, 0.33526414896880624, 0.4593765853942542],
    ],
    [0.3449543758773698, 0.13078192382014692, 0.5553830910003088],
]


@pytest.mark.parametrize("depth_first", [False, True])
def test_a_model_ends_where_that_of_keras_does(monkeypatch, place, depth_first):
    monkeypatch.setattr(models.Model, "_depth_first", lambda *_, **__: depth_first)
    model = convkit.Sequential(
        [layers.Input((2,), dtype="float64"), layers.Dense(3, dtype="float64")]
    )
    kernel, bias = model.weights
    kernel.regularizer, kernel.constraint = regularizers.L1L2(0.1, 0.2), constraints.MaxNorm()
    bias.regularizer, bias.constraint = regularizers.L2(0.3), constraints.NonNeg()
    model.set_weights([KERNEL, BIAS])
    model.compile(optimizers.SGD(0.1), "mse")
    if place is not None:
        model.to(f"cuda:{place}")
    losses = model.fit(X, Y, batch_size=3, epochs=2, shuffle=False, verbose=0).history["loss"]
    # The last batch of an epoch has two samples: its penalty counts for less.
    np.testing.assert_allclose(losses, LOSSES, rtol=1e-6)
    np.testing.assert_allclose(model.evaluate(X, Y, batch_size=3, verbose=0), EVALUATED, rtol=1e-6)
    for actual, expected in zip(model.get_weights(), AFTER, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


# ---- names and configurations --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("l1", regularizers.L1), ("L2", regularizers.L2), ("l1l2", regularizers.L1L2)),
        *(("l1_l2", regularizers.L1L2), (regularizers.L1, regularizers.L1)),
    ],
)
def test_regularizers_by_name(name, kind):
    assert type(regularizers.get(name)) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("max_norm", constraints.MaxNorm), ("MaxNorm", constraints.MaxNorm)),
        *(("non_neg", constraints.NonNeg), ("unit_norm", constraints.UnitNorm)),
        *(("min_max_norm", constraints.MinMaxNorm), (constraints.NonNeg, constraints.NonNeg)),
    ],
)
def test_constraints_by_name(name, kind):
    assert type(constraints.get(name)) is kind


def test_none_and_objects_stay():
    assert regularizers.get(None) is None
    assert constraints.get(None) is None
    for module, made in ((regularizers, regularizers.L1()), (constraints, constraints.NonNeg())):
        assert module.get(made) is made
        with pytest.raises(ValueError, match="expected name to be one of"):
            module.get("l3")
        with pytest.raises(TypeError, match=r"expected a name or a (regularizer|constraint), got"):
            module.get(abs)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (regularizers.L1(0.5), {"l1": 0.5}),
        (regularizers.L2(), {"l2": 0.01}),
        (regularizers.L1L2(l2=1), {"l1": 0.0, "l2": 1.0}),
        (constraints.NonNeg(), {}),
        (constraints.UnitNorm([0, 1]), {"axis": (0, 1)}),
        (constraints.MaxNorm(), {"max_value": 2.0, "axis": 0}),
        (
            constraints.MinMaxNorm(),
            {"min_value": 0.0, "max_value": 1.0, "rate": 1.0, "axis": 0},
        ),
    ],
)
def test_configurations_make_the_same(made, expected):
    assert made.get_config() == expected
    described = {"class_name": type(made).__name__, "config": made.get_config()}
    again = registered.made(described)
    assert type(again) is type(made)
    assert again.get_config() == expected


@pytest.mark.parametrize(
    ("made", "options"),
    [
        *((regularizers.L1, (-1,)), (regularizers.L2, (np.inf,)), (regularizers.L1L2, (0, "a"))),
        *((constraints.MaxNorm, (-1,)), (constraints.MinMaxNorm, (0, 1, 1.5))),
        *((constraints.UnitNorm, (1.5,)), (constraints.UnitNorm, ("first",))),
        (constraints.UnitNorm, ([],)),
    ],
)
def test_options_out_of_range_are_errors(made, options):
    with pytest.raises((ValueError, TypeError), match=f"{made.__name__}: expected"):
        made(*options)
