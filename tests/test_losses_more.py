"""Losses as objects: Keras's numbers, what is kept of them, names, and training with each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import convkit
from convkit import (
    Input,
    Sequential,
    _core,
    gradients,
    graph,
    layers,
    losses,
    ops,
    optimizers,
    planner,
)
from convkit.configuration import config_of
from convkit.utils import to_categorical

# Made by tests/keras_losses_metrics.py.
TABLE = json.loads(Path(__file__).with_name("keras_losses_metrics.json").read_text())["losses"]
WITHOUT_ARGUMENTS = sorted(set(losses.NAMES) - {"sparse_categorical_crossentropy"})


@pytest.mark.parametrize("entry", TABLE, ids=[f"{e['class']}-{i}" for i, e in enumerate(TABLE)])
def test_losses_give_the_numbers_that_keras_gives(entry, dtype):
    loss = getattr(losses, entry["class"])(**entry["options"])
    y_true, y_pred = (np.array(entry[side], dtype) for side in ("y_true", "y_pred"))
    found = loss.call(y_true, y_pred)
    # Keras takes log 2 from float32.
    tolerance = {"rtol": 1e-6, "atol": 1e-8}
    if dtype == np.float32:
        # Of float32 1 - 1e-7 is 1 - 1.2e-7, whose distance from 1 is what logarithms see.
        tolerance = {"rtol": 1e-2 if (y_pred == 1).any() else 2e-4, "atol": 2e-5}
    np.testing.assert_allclose(found, np.broadcast_to(entry["values"], found.shape), **tolerance)


# ---- reductions ----------------------------------------------------------------------------------

T, P = (
    np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]),
    np.array([[1.0, 4.0], [3.0, 7.0], [1.0, 1.0]]),
)
VALUES = np.array([2.0, 4.5, 1.0])


@pytest.mark.parametrize(
    ("reduction", "right"),
    [
        ("sum_over_batch_size", VALUES.mean()),
        ("mean", VALUES.mean()),
        ("mean_with_sample_weight", VALUES.mean()),
        ("sum", VALUES.sum()),
        ("none", VALUES),
        (None, VALUES),
    ],
)
def test_reductions(reduction, right):
    found = losses.MeanSquaredError(reduction=reduction)(T, P)
    np.testing.assert_allclose(found, right)


@pytest.mark.parametrize(
    ("reduction", "right"),
    [
        ("sum_over_batch_size", 3.0 / 3),
        ("mean_with_sample_weight", 3.0 / 2.5),
        ("sum", 3.0),
        ("none", [1.0, 0.0, 2.0]),
    ],
)
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_weights_of_samples(reduction, right, shape):
    weights = np.array([0.5, 0.0, 2.0]).reshape(shape)
    found = losses.MeanSquaredError(reduction)(T, P, sample_weight=weights)
    np.testing.assert_allclose(found, right)


def test_weights_of_samples_serve_all_their_rows():
    t, p = np.zeros((2, 3, 4)), np.ones((2, 3, 4))
    found = losses.MeanSquaredError("none")(t, p, sample_weight=[1.0, 3.0])
    np.testing.assert_array_equal(found, [[1, 1, 1], [3, 3, 3]])


def test_weights_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r"mean_squared_error: expected sample_weight of shape"):
        losses.MeanSquaredError()(T, P, sample_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="reduction to be one of"):
        losses.Hinge(reduction="average")


def test_a_dtype_is_what_arrays_become():
    assert losses.MeanSquaredError("none", dtype="float32")(T, P).dtype == np.float32
    mixed = losses.Huber(dtype="float64")(T.astype(np.float32), P)
    assert mixed == pytest.approx(losses.Huber()(T, P))


# ---- label smoothing -----------------------------------------------------------------------------


def test_smoothed_targets_are_those_of_keras(rng):
    hot, p = np.eye(4)[[0, 3, 1]], rng.uniform(0.1, 0.9, (3, 4))
    smooth = hot * 0.9 + 0.1 / 4
    found = losses.CategoricalCrossentropy(label_smoothing=0.1).call(hot, p)
    np.testing.assert_allclose(found, ops.categorical_crossentropy(smooth, p))
    found = losses.CategoricalFocalCrossentropy(label_smoothing=0.1).call(hot, p)
    np.testing.assert_allclose(found, ops.categorical_focal_crossentropy(smooth, p))
    smooth = hot * 0.8 + 0.1
    found = losses.BinaryCrossentropy(label_smoothing=0.2).call(hot, p)
    np.testing.assert_allclose(found, ops.binary_crossentropy(smooth, p))
    found = losses.binary_focal_crossentropy(hot, p, label_smoothing=0.2)
    np.testing.assert_allclose(found, ops.binary_focal_crossentropy(smooth, p))
    integers = losses.CategoricalCrossentropy(label_smoothing=0.1)(hot.astype(int), p)
    assert integers == pytest.approx(losses.CategoricalCrossentropy(label_smoothing=0.1)(hot, p))


def test_a_share_is_no_more_than_all():
    for wrong in (-0.1, 1.0, "some"):
        with pytest.raises((ValueError, TypeError), match="label_smoothing"):
            losses.CategoricalCrossentropy(label_smoothing=wrong)


# ---- configurations and names --------------------------------------------------------------------

MADE = [
    *(losses.get(name) for name in WITHOUT_ARGUMENTS),
    losses.SparseCategoricalCrossentropy(from_logits=True),
    losses.Huber(2.5, name="mine"),
    losses.Dice(axis=[1, 2]),
    losses.BinaryFocalCrossentropy(True, 0.3, 1.5, from_logits=True, label_smoothing=0.1),
    losses.CategoricalFocalCrossentropy(0.6, 1.5, axis=1),
    losses.CosineSimilarity(axis=1, reduction="sum"),
]


@pytest.mark.parametrize("loss", MADE, ids=lambda loss: loss.name)
def test_a_loss_is_made_again_from_its_configuration(loss):
    config = loss.get_config()
    assert config == config_of(loss)
    text = json.loads(json.dumps(config))
    again = type(loss).from_config(text)
    assert json.dumps(again.get_config()) == json.dumps(config)
    also = losses.get({"class_name": type(loss).__name__, "config": text})
    assert type(also) is type(loss)
    assert also.name == loss.name


def test_what_is_in_a_configuration():
    config = losses.BinaryFocalCrossentropy(gamma=1.5).get_config()
    assert config == {
        "apply_class_balancing": False,
        "alpha": 0.25,
        "gamma": 1.5,
        "from_logits": False,
        "label_smoothing": 0.0,
        "axis": -1,
        "reduction": "sum_over_batch_size",
        "name": "binary_focal_crossentropy",
        "dtype": None,
    }


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("kld", losses.KLDivergence),
        ("KLD", losses.KLDivergence),
        ("MAPE", losses.MeanAbsolutePercentageError),
        ("msle", losses.MeanSquaredLogarithmicError),
        ("BCE", losses.BinaryCrossentropy),
        ("huber", losses.Huber),
        ("Huber", losses.Huber),
        ("log_cosh", losses.LogCosh),
        ("dice", losses.Dice),
        ("KLDivergence", losses.KLDivergence),
        (losses.huber, losses.Huber),
        (ops.dice, losses.Dice),
        (losses.hinge, losses.Hinge),
        (losses.Poisson, losses.Poisson),
    ],
)
def test_losses_by_name_class_or_function(given, kind):
    assert type(losses.get(given)) is kind


def test_functions_take_arguments_as_keras_does(rng):
    t, p = rng.uniform(0, 1, (3, 4)), rng.uniform(0.1, 0.9, (3, 4))
    np.testing.assert_array_equal(losses.huber(t, p, 0.3), ops.huber(t, p, delta=0.3))
    found = losses.binary_crossentropy(t, p, True, 0.0, -1)
    np.testing.assert_array_equal(found, ops.binary_crossentropy(t, p, from_logits=True))
    found = losses.dice(t, p, (1,))
    np.testing.assert_array_equal(found, ops.dice(t, p, axis=1))
    found = losses.cosine_similarity(t, p, 0)
    np.testing.assert_array_equal(found, ops.cosine_similarity(t, p, axis=0))
    found = losses.sparse_categorical_crossentropy([0, 1, 2], p)
    np.testing.assert_array_equal(found, ops.sparse_categorical_crossentropy([0, 1, 2], p))


def test_what_is_not_supported_says_so():
    with pytest.raises(ValueError, match="expected no ignore_class, got 3"):
        losses.SparseCategoricalCrossentropy(ignore_class=3)
    with pytest.raises(ValueError, match="axis -1"):
        losses.SparseCategoricalCrossentropy(axis=1)
    with pytest.raises(TypeError, match="alpha to be a number"):
        losses.CategoricalFocalCrossentropy(alpha=[0.1, 0.9])


# ---- training ------------------------------------------------------------------------------------


def trained(loss, last: str, samples: int, tiled: bool, monkeypatch):
    monkeypatch.setattr(planner, "least_depth_first", lambda *_, **__: 1 if tiled else 10**9)
    rng = np.random.default_rng(4)
    x = rng.normal(size=(samples, 5)).astype(np.float32)
    y = to_categorical(rng.integers(0, 3, samples), 3)
    convkit.utils.set_random_seed(2)
    model = Sequential([Input((5,)), layers.Dense(7, "tanh"), layers.Dense(3, last)])
    model.compile(optimizers.SGD(0.05), loss)
    history = model.fit(x, y, batch_size=20, epochs=4, verbose=0).history["loss"]
    return history, model.get_weights(), model.evaluate(x, y)


@pytest.mark.parametrize("name", WITHOUT_ARGUMENTS)
def test_every_loss_trains_alike_on_both_schedules(name, monkeypatch):
    last = "softmax" if "categorical" in name or name == "dice" else "sigmoid"
    if "hinge" in name or name in ("huber", "log_cosh", "mse", "mae", "cosine_similarity"):
        last = "linear"
    tiled = trained(name, last, 53, True, monkeypatch)
    rows = trained(name, last, 53, False, monkeypatch)
    np.testing.assert_allclose(tiled[0], rows[0], rtol=1e-4)
    for one, other in zip(tiled[1], rows[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-5)
    assert tiled[2] == pytest.approx(rows[2], rel=1e-4)
    if "percentage" not in name and name.lower() != "mape":  # of targets that are 0
        assert tiled[0][-1] < tiled[0][0]


@pytest.mark.parametrize(
    "loss",
    [
        losses.CategoricalCrossentropy(label_smoothing=0.1),
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        losses.BinaryFocalCrossentropy(apply_class_balancing=True, from_logits=True),
        losses.CategoricalFocalCrossentropy(from_logits=True),
        losses.Dice(axis=1),
    ],
    ids=lambda loss: loss.name,
)
def test_losses_with_options_train_alike_on_both_schedules(loss, monkeypatch):
    last = "linear" if getattr(loss, "from_logits", False) else "softmax"
    tiled, rows = (trained(loss, last, 53, t, monkeypatch) for t in (True, False))
    np.testing.assert_allclose(tiled[0], rows[0], rtol=1e-4)
    assert tiled[0][-1] < tiled[0][0]


def test_a_focal_loss_behind_its_sigmoid_is_exact_where_probabilities_are_not():
    model = Sequential([Input((2,)), layers.Activation("sigmoid")])
    model.compile("sgd", "binary_focal_crossentropy")
    z, t = np.array([[60.0, -70.0]]), np.array([[0.0, 1.0]])
    assert model.evaluate(z, t) == pytest.approx(65.0, rel=1e-6)


def test_smoothing_needs_no_softmax_of_its_own():
    model = Sequential([Input((3,)), layers.Dense(4, "softmax")])
    model.compile("sgd", losses.CategoricalCrossentropy(label_smoothing=0.1))
    x, y = np.zeros((32, 3), np.float32), to_categorical(np.arange(32) % 4, 4)
    plan = convkit.profile(model, x, y, seconds=0, print_fn=None)
    kernels = [row.kernel for row in plan.rows]
    assert "gather + rescale" in kernels
    assert not any("softmax" in kernel for kernel in kernels)


def test_targets_that_weights_make_are_errors():
    y_true, y_pred = (
        graph.call("mean", _core.Mean(rows=1), None, [x], [(None, 2)], "float32")[0]
        for x in (graph.Symbol((None, 2), "float32", place="fed") for _ in range(2))
    )
    loss = ops.huber(y_true, y_pred)
    mean = graph.call("mean", _core.Mean(rows=1), None, [loss], [(1,)], "float32")[0]
    with pytest.raises(ValueError, match="expected targets that no weights make"):
        gradients.gradients([mean], [y_true])
    assert gradients.gradients([mean], [y_pred])[0].shape == (None, 2)
