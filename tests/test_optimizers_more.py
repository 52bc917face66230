"""Optimizers and what belongs to them, against the published rules in float64 and against Keras, on
every instruction set and every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checkers import assert_same_bits

import convkit
from convkit import constraints, device, layers, models, optimizers, regularizers, schedules
from convkit.graph import Variable
from convkit.models.steps import TrainingStep
from convkit.program import Program


def updated(
    optimizer: optimizers.Optimizer, starts: list, steps: list, dtype: Any, gpu: int | None = None
) -> list[list[np.ndarray]]:
    """For each step the variables after it; of each variable a start and a gradient per step."""
    variables = [Variable(np.array(start, dtype), f"w{i}") for i, start in enumerate(starts)]
    for variable in variables:
        variable.to(gpu)
    found = []
    for gradients in steps:
        optimizer.apply([np.array(g, dtype) for g in gradients], variables)
        found.append([variable.numpy() for variable in variables])
    assert all(variable.gpu == gpu for variable in optimizer.variables)
    return found


# ---- the rules, as published ---------------------------------------------------------------------


def rmsprop(w, gradients, rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    """Hinton, Srivastava and Swersky, 2012; centred: Graves, 2013, with epsilon under the root."""
    v, mean, k = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        v = rho * v + (1 - rho) * g**2
        mean = rho * mean + (1 - rho) * g
        k = momentum * k + rate * g / np.sqrt(v - centered * mean**2 + epsilon)
        w = w - k
        yield w


def nadam(w, gradients, rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Dozat, 2016, with the decays of its section 3."""
    m, v, product = np.zeros_like(w), np.zeros_like(w), 1.0
    for t, g in enumerate(gradients, start=1):
        now, ahead = (beta_1 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
        product *= now
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        looking = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        w = w - rate * looking / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        yield w


def amsgrad(w, gradients, rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Reddi, Kale and Kumar, 2018, with Adam's bias correction."""
    m, v, largest = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        largest = np.maximum(largest, v)
        alpha = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - alpha * m / (np.sqrt(largest) + epsilon)
        yield w


def adamw(w, gradients, rate=0.001, decay=0.004, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Loshchilov and Hutter, 2019, algorithm 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        alpha = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - rate * decay * w - alpha * m / (np.sqrt(v) + epsilon)
        yield w


def adagrad(w, gradients, rate=0.001, start=0.1, epsilon=1e-7):
    """Duchi, Hazan and Singer, 2011."""
    total = np.full_like(w, start)
    for g in gradients:
        total = total + g**2
        w = w - rate * g / np.sqrt(total + epsilon)
        yield w


def adadelta(w, gradients, rate=0.001, rho=0.95, epsilon=1e-7):
    """Zeiler, 2012, algorithm 1."""
    squares, deltas = np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        squares = rho * squares + (1 - rho) * g**2
        delta = np.sqrt(deltas + epsilon) / np.sqrt(squares + epsilon) * g
        deltas = rho * deltas + (1 - rho) * delta**2
        w = w - rate * delta
        yield w


def lion(w, gradients, rate=0.001, beta_1=0.9, beta_2=0.99):
    """Chen et al., 2023, algorithm 2."""
    m = np.zeros_like(w)
    for g in gradients:
        w = w - rate * np.sign(beta_1 * m + (1 - beta_1) * g)
        m = beta_2 * m + (1 - beta_2) * g
        yield w


def momentum(w, gradients, rate=0.01, decay=0.0):
    """Gradient descent with a momentum of 0.9, and weight decay."""
    v = np.zeros_like(w)
    for g in gradients:
        v = 0.9 * v - rate * g
        w = w - decay * rate * w + v
        yield w


CASES: list[tuple[optimizers.Optimizer, Callable, dict[str, Any]]] = [
    (optimizers.RMSprop(), rmsprop, {}),
    (optimizers.RMSprop(0.1, rho=0.5), rmsprop, {"rate": 0.1, "rho": 0.5}),
    (optimizers.RMSprop(0.1, momentum=0.9), rmsprop, {"rate": 0.1, "momentum": 0.9}),
    (optimizers.RMSprop(epsilon=0.1, centered=True), rmsprop, {"epsilon": 0.1, "centered": True}),
    (
        optimizers.RMSprop(0.1, 0.8, 0.5, 0.01, True),
        rmsprop,
        {"rate": 0.1, "rho": 0.8, "momentum": 0.5, "epsilon": 0.01, "centered": True},
    ),
    (optimizers.Nadam(), nadam, {}),
    (
        optimizers.Nadam(0.1, 0.8, 0.9, 0.01),
        nadam,
        {"rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01},
    ),
    (optimizers.Adam(amsgrad=True), amsgrad, {}),
    (optimizers.Adam(0.1, beta_2=0.5, amsgrad=True), amsgrad, {"rate": 0.1, "beta_2": 0.5}),
    (optimizers.AdamW(), adamw, {}),
    (optimizers.AdamW(0.1, 0.3), adamw, {"rate": 0.1, "decay": 0.3}),
    (optimizers.Adagrad(), adagrad, {}),
    (optimizers.Adagrad(0.1, 0.5, 0.01), adagrad, {"rate": 0.1, "start": 0.5, "epsilon": 0.01}),
    (optimizers.Adadelta(), adadelta, {}),
    (optimizers.Adadelta(1.0, 0.8, 0.01), adadelta, {"rate": 1.0, "rho": 0.8, "epsilon": 0.01}),
    (optimizers.Lion(), lion, {}),
    (optimizers.Lion(0.1, 0.5, 0.7), lion, {"rate": 0.1, "beta_1": 0.5, "beta_2": 0.7}),
    (optimizers.SGD(momentum=0.9, weight_decay=0.5), momentum, {"decay": 0.5}),
]


@pytest.mark.parametrize(("optimizer", "rule", "given"), CASES)
@pytest.mark.parametrize("shape", [(1,), (7,), (33, 5)])
def test_updates_follow_the_published_rule(place, dtype, rng, optimizer, rule, given, shape):
    start = rng.normal(size=shape).astype(dtype).astype(np.float64)
    gradients = [rng.normal(size=shape).astype(dtype).astype(np.float64) for _ in range(6)]
    made = type(optimizer).from_config(optimizer.get_config())
    found = updated(made, [start], [[g] for g in gradients], dtype, place)
    tolerance = 60 * np.finfo(dtype).eps
    for (actual,), expected in zip(found, rule(start, gradients, **given), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["rmsprop", "nadam", "adamw", "adagrad", "adadelta", "lion"])
def test_nan_gradients_show_and_zeros_do_not(place, name):
    for options in ({}, {"momentum": 0.9, "centered": True}) if name == "rmsprop" else ({},):
        optimizer = type(optimizers.get(name))(**options)
        ((actual,),) = updated(optimizer, [[1.0, 2.0, 0.0]], [[[np.nan, 1.0, 0.0]]], "f4", place)
        assert np.isnan(actual).tolist() == [True, False, False]
        assert actual[2] == 0


def test_a_centred_rmsprop_of_a_constant_gradient_is_no_nan(place):
    # Its mean of squares and its squared mean differ by rounding alone.
    ((last,),) = updated(
        optimizers.RMSprop(centered=True), [[1.0] * 40], [[[1e3] * 40]] * 60, "f4", place
    )[-1:]
    assert np.isfinite(last).all()


# ---- Keras's numbers -----------------------------------------------------------------------------

START = [1.0, -2.0, 0.5, 3.0]
GRADIENTS = [
    [0.5, -1.0, 2.0, 0.0],
    [0.25, -1.5, -2.0, 1e-4],
    [-1.0, 0.5, 4.0, 3.0],
    [0.125, 0.0, -8.0, -1e-3],
    [2.0, 1.0, 0.5, 0.25],
]
# Keras 3.15.1 on TensorFlow, after the fifth of GRADIENTS, by
#     keras.config.set_floatx("float64")
#     optimizer = eval(made, vars(keras.optimizers))
#     variable = keras.Variable(START, dtype="float64")
#     for gradient in GRADIENTS:
#         optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable])
#     print(variable.numpy().tolist())
KERAS = [
    (
        "RMSprop(0.1)",
        [0.4994087528543261, -1.675590488146746, 0.4055355724754654, 2.6232618936556595],
    ),
    (
        "RMSprop(0.1, rho=0.7, momentum=0.9)",
        [0.17028870497751442, -0.9915619442255279, 0.10040250350641473, 2.3766242737423444],
    ),
    (
        "RMSprop(0.1, centered=True)",
        [0.459661616326104, -1.6346891526758418, 0.38290092370272777, 2.6046083379124823],
    ),
    (
        "RMSprop(0.1, momentum=0.5, epsilon=0.01, centered=True)",
        [0.343338507714282, -1.1726063558740178, 0.21216524698922626, 2.3897550480291767],
    ),
    (
        "Nadam(0.1)",
        [0.8173684927884465, -1.8622815109142548, 0.46571866745853907, 2.761210349106601],
    ),
    (
        "Nadam(0.05, beta_1=0.8, beta_2=0.9, epsilon=0.1)",
        [0.9163349245307207, -1.933327319695713, 0.48538605928501244, 2.9264152260156036],
    ),
    (
        "Adam(0.1, amsgrad=True)",
        [0.7950633914970682, -1.6888971013273486, 0.40465892209208587, 2.7631067551566844],
    ),
    (
        "Adam(0.1, beta_2=0.5, amsgrad=True)",
        [0.8051650429043213, -1.7149104006644704, 0.39796714175756587, 2.8206362671060434],
    ),
    ("AdamW(0.1)", [0.7933160047077986, -1.685219763031582, 0.4038418557394866, 2.757243938390859]),
    (
        "AdamW(0.1, 0.3, amsgrad=True)",
        [0.671873892632696, -1.431233096922779, 0.3471335399369359, 2.350951875690491],
    ),
    (
        "Adagrad(0.1)",
        [0.8643973527477886, -1.895677545370082, 0.4699322168995613, 2.892293390885361],
    ),
    (
        "Adagrad(0.1, initial_accumulator_value=0.5, epsilon=0.01)",
        [0.8971605495437877, -1.9109100742862977, 0.47331416538041354, 2.894656462681256],
    ),
    (
        "Adadelta(1.0)",
        [0.9967709243373901, -1.998925792787836, 0.5004754102355161, 2.998310231349027],
    ),
    (
        "Adadelta(0.5, rho=0.8, epsilon=0.01)",
        [0.7705399764713833, -1.9268525526470461, 0.5374688237822997, 2.8730589055416114],
    ),
    ("Lion(0.1)", [0.7000000000000001, -1.9, 0.4, 2.5999999999999996]),
    ("Lion(0.1, beta_1=0.5, beta_2=0.7)", [0.9, -1.6999999999999997, 0.6, 2.5999999999999996]),
    (
        "SGD(0.1, weight_decay=0.3)",
        [0.6736175550085999, -1.6390828106707889, 0.7844830483804203, 2.2690199352334437],
    ),
    (
        "SGD(0.1, momentum=0.9, clipnorm=1.5)",
        [0.7593572203267438, -1.5286883130252262, 0.3095204544377208, 2.7457232827894997],
    ),
    (
        "SGD(0.1, momentum=0.9, clipvalue=1.5)",
        [0.8065200064504143, -1.3101400347876537, 0.23008501686572969, 2.5686556200124424],
    ),
    (
        "SGD(0.1, momentum=0.9, global_clipnorm=1.5)",
        [0.7593572203267438, -1.5286883130252262, 0.3095204544377208, 2.7457232827894997],
    ),
    (
        "SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)",
        [0.8062500000000001, -1.9625000000000001, 0.45, 2.7500450000000005],
    ),
    (
        "Adam(0.1, use_ema=True, ema_overwrite_frequency=3, weight_decay=0.1, clipnorm=1.0)",
        [0.79966141051, -1.7711092976715785, 0.3986683701257955, 2.802846450568159],
    ),
    (
        "SGD(schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9, weight_decay=0.1)",
        [0.7853974646557353, -1.2680676504698114, 0.14158207763397412, 2.505104484775883],
    ),
    (
        "AdamW(schedules.ExponentialDecay(0.1, 2, 0.5))",
        [0.8363773897246275, -1.7808033143564013, 0.3935561680860206, 2.8830712296246994],
    ),
]


@pytest.mark.parametrize(("made", "expected"), KERAS)
def test_five_steps_end_where_keras_ends(place, made, expected):
    optimizer = eval(made, vars(optimizers))
    ((last,),) = updated(optimizer, [START], [[g] for g in GRADIENTS], "float64", place)[-1:]
    # Keras rounds some factors to float32.
    np.testing.assert_allclose(last, expected, rtol=2e-6)


def test_arguments_and_defaults_are_those_of_keras():
    # {name: inspect.signature(getattr(keras.optimizers, name)).parameters}, defaults alone
    shared = {
        "weight_decay": None,
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": None,
        "use_ema": False,
        "ema_momentum": 0.99,
        "ema_overwrite_frequency": None,
    }
    moments = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    expected = {
        "SGD": {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False},
        "Adam": {**moments, "amsgrad": False},
        "AdamW": {**moments, "amsgrad": False, "weight_decay": 0.004},
        "Nadam": moments,
        "RMSprop": {
            "learning_rate": 0.001,
            "rho": 0.9,
            "momentum": 0.0,
            "epsilon": 1e-7,
            "centered": False,
        },
        "Adagrad": {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "epsilon": 1e-7},
        "Adadelta": {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-7},
        "Lion": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.99},
    }
    for name, own in expected.items():
        assert optimizers.get(name).get_config() == {**shared, **own, "name": name.lower()}
        assert optimizers.get({"class_name": name, "config": {"learning_rate": 0.5}})


# ---- clipping, decay, averages -------------------------------------------------------------------

SHAPES = [(3, 4), (1,), (17,), (200, 97)]  # the last is more than one thread adds up


def gradients_of(rng, dtype: Any, scale: float = 1.0) -> list[np.ndarray]:
    return [(scale * rng.normal(size=shape)).astype(dtype) for shape in SHAPES]


@pytest.mark.parametrize("scale", [0.001, 1.0, 50.0])
@pytest.mark.parametrize("option", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_clipping(place, dtype, rng, option, scale):
    gradients = gradients_of(rng, dtype, scale)
    exact = [g.astype(np.float64) for g in gradients]
    whole = np.sqrt(sum((g**2).sum() for g in exact))
    for limit in (0.5, 3.0):
        optimizer = optimizers.SGD(1.0, **{option: limit})
        (found,) = updated(optimizer, [np.zeros(s) for s in SHAPES], [gradients], dtype, place)
        for actual, g in zip(found, exact, strict=True):
            norm = np.sqrt((g**2).sum()) if option == "clipnorm" else whole
            expected = (
                np.clip(g, -limit, limit) if option == "clipvalue" else g * min(1, limit / norm)
            )
            tolerance = 8 * np.finfo(dtype).eps
            np.testing.assert_allclose(-actual, expected, tolerance, tolerance)


@pytest.mark.parametrize("option", ["clipvalue", "clipnorm", "global_clipnorm"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_shows_through_clipping(place, option, bad):
    optimizer = optimizers.SGD(1.0, **{option: 1.0})
    gradients = [[bad, 1.0, 0.0], [2.0]]
    ((first, second),) = updated(optimizer, [[0.0] * 3, [0.0]], [gradients], "float32", place)
    if option == "clipvalue":
        np.testing.assert_array_equal(first, [-1.0 if bad == np.inf else np.nan, -1.0, 0.0])
        np.testing.assert_array_equal(second, [-1.0])
    else:
        assert np.isnan(first).all()
        assert np.isnan(second).all() == (option == "global_clipnorm")


def test_a_limit_of_0_is_none():
    plain, limited = (
        updated(optimizers.SGD(1.0, **options), [[0.0]], [[[5.0]]], "float64")
        for options in ({}, {"clipnorm": 0.0})
    )
    assert plain == limited


def test_sums_of_squares_do_not_depend_on_threads(place, dtype, rng, threads):
    gradients = gradients_of(rng, dtype)
    found = []
    for count in (1, 2, 3):
        threads(count)
        optimizer = optimizers.SGD(1.0, global_clipnorm=0.1)
        found.append(updated(optimizer, [np.zeros(s) for s in SHAPES], [gradients], dtype, place))
    for other in found[1:]:
        for a, b in zip(found[0][0], other[0], strict=True):
            assert_same_bits(a, b)


def test_weight_decay_leaves_out_what_is_excluded(place):
    variables = [Variable(np.ones(2), name) for name in ("a/kernel", "a/bias", "b/kernel", "c")]
    for variable in variables:
        variable.to(place)
    optimizer = optimizers.SGD(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[variables[2]], var_names=["bias"])
    optimizer.apply([np.zeros(2)] * 4, variables)
    assert [v.numpy()[0] for v in variables] == [0.95, 1.0, 1.0, 0.95]
    with pytest.raises(ValueError, match="was not used yet"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])


@pytest.mark.parametrize("frequency", [None, 1, 3])
def test_averages(place, dtype, rng, frequency):
    """Kept from the weights after the first step on; in their place after so many steps."""
    start, gradients = rng.normal(size=(6, 5)), [rng.normal(size=(6, 5)) for _ in range(8)]
    optimizer = optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=frequency
    )
    variable = Variable(start.astype(dtype), "w")
    variable.to(place)
    w = start.astype(dtype).astype(np.float64)
    average = w
    tolerance = 20 * np.finfo(dtype).eps
    for step, gradient in enumerate(gradients, start=1):
        optimizer.apply([gradient.astype(dtype)], [variable])
        w = w - 0.1 * gradient
        average = w if step == 1 else 0.8 * average + 0.2 * w
        if frequency and step % frequency == 0:
            w = average
        np.testing.assert_allclose(variable.numpy(), w, tolerance, tolerance)
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(variable.numpy(), average, tolerance, tolerance)


def test_without_averages_or_steps_the_end_changes_nothing():
    variable = Variable(np.ones(3), "w")
    optimizers.SGD().finalize_variable_values([variable])
    averaging = optimizers.SGD(use_ema=True)
    averaging.record([Variable(np.ones(3), "g").symbol], [variable])
    averaging.finalize_variable_values([variable])
    np.testing.assert_array_equal(variable.value, 1)


@pytest.mark.parametrize("count", [1, 1024, 1030, 2500])
def test_overwriting_goes_on_beyond_a_table(count):
    optimizer = optimizers.SGD(1.0, use_ema=True, ema_momentum=1.0, ema_overwrite_frequency=count)
    variable, gradient = Variable(np.zeros(1), "w"), Variable(-np.ones(1), "g")
    program = Program("float64", effects=optimizer.record([gradient.symbol], [variable]))
    done = 0
    while done < count:
        ready = optimizer.prepare(None, count - done)
        assert 1 <= ready <= min(1024, count - done)
        program.run(0, ready, 1)
        done += ready
        assert variable.numpy()[0] == (1 if done == count else done)  # the average stays the first


# ---- programs ------------------------------------------------------------------------------------


def network(optimizer: Any, dtype: str = "float64", seed: int = 2) -> models.Sequential:
    convkit.utils.set_random_seed(seed)
    model = models.Sequential(
        [
            layers.Input((6, 6, 1), dtype=dtype),
            layers.Conv2D(3, 3, activation="relu", dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(7, activation="tanh", dtype=dtype),
            layers.Dense(2, activation="softmax", dtype=dtype),
        ]
    )
    model.weights[0].regularizer = regularizers.L1L2(0.01, 0.02)
    model.weights[2].constraint = constraints.MaxNorm(0.7)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def images(rng, count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(count, 6, 6, 1)), rng.integers(0, 2, count)


EVERYTHING = [
    ("RMSprop", {"momentum": 0.5, "centered": True, "clipnorm": 0.5}),
    ("Nadam", {"use_ema": True, "clipvalue": 0.01}),
    ("Adam", {"amsgrad": True, "global_clipnorm": 0.3}),
    ("AdamW", {}),
    ("Adagrad", {"weight_decay": 0.1}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Lion", {"weight_decay": 0.1}),
    ("SGD", {"use_ema": True, "ema_overwrite_frequency": 2, "momentum": 0.9}),
    ("SGD", {"learning_rate": schedules.CosineDecay(0.1, 9)}),
]


@pytest.mark.parametrize(("name", "options"), EVERYTHING)
def test_both_schedules_train_alike(monkeypatch, backend, rng, name, options):
    x, y = images(rng)
    found = []
    for depth_first in (False, True):
        monkeypatch.setattr(models.Model, "_depth_first", lambda *_, tiled=depth_first, **__: tiled)
        optimizer = getattr(optimizers, name)(**{"learning_rate": 0.01, **options})
        model = network(optimizer)
        logs = model.fit(x, y, batch_size=20, epochs=3, verbose=0, shuffle=False).history
        found.append([*model.get_weights(), np.array(logs["loss"])])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), EVERYTHING)
def test_bits_do_not_depend_on_threads(rng, threads, name, options):
    x, y = images(rng, 130)
    found = []
    for count in (1, 2, 3):
        threads(count)
        model = network(getattr(optimizers, name)(**options), "float32")
        model.fit(x, y, batch_size=64, epochs=2, verbose=0)
        found.append(model.get_weights())
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert_same_bits(a, b)


def kernels(optimizer: Any, plain: bool) -> list[str]:
    """Of a depth-first training step, behind the stretch."""
    model = network(optimizer)
    if plain:
        for variable in model.weights:
            variable.regularizer = variable.constraint = None
    arrays = model._arrays("fit", *images(np.random.default_rng(0)))
    steps = TrainingStep(model, arrays, model.optimizer, True).program.steps
    return [step.kernel for step in steps if not step.tiled]


@pytest.mark.parametrize("kernel", ["sgd", "adam"])
def test_plain_updates_are_recorded_as_ever(kernel):
    assert kernels(kernel, True) == ["accumulate", "next_step", *[kernel] * 6]


def test_what_can_be_added_up_and_applied_at_once_comes_last():
    found = kernels(optimizers.AdamW(), False)
    assert found[-7:] == ["adam", "adam", "constrain", *["adam"] * 4]
    assert found.index("regularize") < found.index("weight_decay") < found.index("adam")


def test_apply_takes_what_it_is_given(place):
    """Gradients of a loop of one's own hold those of penalties already; constraints are kept."""
    variables = [Variable(np.array([1.0, -1.0]), "w"), Variable(np.array([[3.0], [4.0]]), "v")]
    variables[0].regularizer = regularizers.L2(0.5)
    variables[1].constraint = constraints.UnitNorm()
    for variable in variables:
        variable.to(place)
    optimizer = optimizers.SGD(1.0)
    optimizer.apply_gradients(zip([np.zeros(2), np.zeros((2, 1))], variables, strict=True))
    np.testing.assert_array_equal(variables[0].numpy(), [1, -1])
    np.testing.assert_allclose(variables[1].numpy(), [[0.6], [0.8]], rtol=1e-6)
    if place is not None:
        with device.on(place):
            gradients = [device.from_numpy(v.numpy()) for v in variables]
        optimizer.apply(gradients, variables)
        np.testing.assert_array_equal(variables[0].numpy(), 0)
    optimizer.apply([], [])
    assert optimizer.iterations.numpy() == (1 if place is None else 2)
    with pytest.raises(ValueError, match="apply: expected 2 gradients, got 1"):
        optimizer.apply([np.zeros(2)], variables)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        optimizer.apply([np.zeros(3), np.zeros((2, 1))], variables)


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (optimizers.RMSprop, {"rho": 1.0}),
        (optimizers.RMSprop, {"momentum": -0.1}),
        (optimizers.Nadam, {"beta_1": 1.0}),
        (optimizers.AdamW, {"weight_decay": None}),
        (optimizers.AdamW, {"weight_decay": -0.1}),
        (optimizers.Adagrad, {"initial_accumulator_value": -1.0}),
        (optimizers.Adadelta, {"epsilon": "small"}),
        (optimizers.Lion, {"beta_1": 0.0}),
        (optimizers.SGD, {"clipnorm": -1.0}),
        (optimizers.SGD, {"clipnorm": 1.0, "clipvalue": 1.0}),
        (optimizers.SGD, {"use_ema": True, "ema_momentum": 1.1}),
        (optimizers.SGD, {"ema_overwrite_frequency": -1}),
        (optimizers.SGD, {"ema_overwrite_frequency": 1.5}),
        (optimizers.SGD, {"decay": 0.1}),
    ],
)
def test_options_out_of_range_are_errors(made, options):
    with pytest.raises((ValueError, TypeError), match=f"{made.__name__}: expected"):
        made(**options)


def test_configurations_make_the_same_optimizer():
    rate = schedules.PiecewiseConstantDecay([2, 5], [0.1, 0.2, 0.3])
    made = optimizers.RMSprop(rate, centered=True, clipnorm=2.0, use_ema=True, name="mine")
    config = made.get_config()
    assert config["learning_rate"]["class_name"] == "PiecewiseConstantDecay"
    again = optimizers.get({"class_name": "RMSprop", "config": config})
    assert again.get_config() == config
    assert again.learning_rate == 0.1
    with pytest.raises(TypeError, match="expected a name or an optimizer"):
        optimizers.get({"class_name": "RMSprop"})
