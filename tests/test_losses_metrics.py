"""Losses and metrics as objects: definitions in NumPy, numbers from Keras, names and messages."""

from __future__ import annotations

import numpy as np
import pytest

from convkit import Input, Sequential, layers, losses, metrics, ops, optimizers
from convkit.utils import to_categorical

# ---- the definitions, row by row ---------------------------------------------------------------


def categorical_crossentropy(t, p):
    p = np.clip(p / p.sum(-1, keepdims=True), 1e-7, 1 - 1e-7)
    return -np.sum(t * np.log(p), axis=-1)


def categorical_from_logits(t, z):
    shifted = z - z.max(-1, keepdims=True)
    return -np.sum(t * (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))), axis=-1)


def binary_crossentropy(t, p):
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p), axis=-1)


def binary_from_logits(t, z):
    return np.mean(np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z))), axis=-1)


def mean_squared_error(t, p):
    return np.mean((p - t) ** 2, axis=-1)


def mean_absolute_error(t, p):
    return np.mean(np.abs(p - t), axis=-1)


DENSE = [
    (losses.CategoricalCrossentropy(), categorical_crossentropy),
    (losses.CategoricalCrossentropy(from_logits=True), categorical_from_logits),
    (losses.BinaryCrossentropy(), binary_crossentropy),
    (losses.BinaryCrossentropy(from_logits=True), binary_from_logits),
    (losses.MeanSquaredError(), mean_squared_error),
    (losses.MeanAbsoluteError(), mean_absolute_error),
]
IDS = [f"{type(loss).__name__}-{getattr(loss, 'from_logits', '')}" for loss, _ in DENSE]


@pytest.mark.parametrize(("loss", "definition"), DENSE, ids=IDS)
@pytest.mark.parametrize("shape", [(4, 3), (1, 1), (2, 3, 5, 7)])
def test_losses_follow_their_definition(rng, dtype, loss, definition, shape):
    t, p = rng.uniform(0, 1, shape), rng.uniform(0.05, 0.95, shape)  # targets of any sum
    found = loss.call(t.astype(dtype), p.astype(dtype))
    assert found.shape == shape[:-1]
    tolerance = 50 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found, definition(t, p), rtol=tolerance, atol=tolerance)
    mean = loss(t.astype(dtype), p.astype(dtype))
    assert isinstance(mean, float)
    assert mean == pytest.approx(definition(t, p).mean(), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5, 7)])
def test_sparse_crossentropy_is_that_of_one_hot_targets(rng, dtype, from_logits, shape):
    labels = rng.integers(0, shape[-1], shape[:-1])
    p = rng.uniform(0.05, 0.95, shape).astype(dtype)
    hot = np.eye(shape[-1])[labels]
    definition = categorical_from_logits if from_logits else categorical_crossentropy
    found = losses.SparseCategoricalCrossentropy(from_logits=from_logits).call(labels, p)
    tolerance = 50 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found, definition(hot, p), rtol=tolerance, atol=tolerance)


# ---- numbers from another implementation -------------------------------------------------------

TARGETS = [[0.2, 0.5, 0.1], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
SHARES = [[0.0, 1.0, 0.5], [1.0, 1.0, 0.25], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
PROBABILITIES = [[0.2, 0.3, 0.5], [0.1, 0.6, 0.9], [0.4, 0.4, 0.2], [0.0, 1.0, 0.0]]
LOGITS = [[1.0, -2.0, 0.5], [30.0, -40.0, 0.0], [0.0, 0.0, 0.0], [-3.0, 2.0, 700.0]]
LABELS = [2, 1, 0, 1]

# Keras 3.15.1 on JAX 0.10.2 in float64, where it does not fall back to float32.
KERAS = [
    (
        losses.CategoricalCrossentropy(),
        (TARGETS, PROBABILITIES),
        [0.9931887027057826, 2.537022650927014, 0.0, 16.11809565095832],
    ),
    (
        losses.CategoricalCrossentropy(from_logits=True),
        (TARGETS, LOGITS),
        [1.9536775218738267, 170.00000000000028, 0.0, 703.0],
    ),
    (
        losses.SparseCategoricalCrossentropy(),
        (LABELS, PROBABILITIES),
        [0.6931471805599453, 0.9808292530117262, 0.916290731874155, 1.0000000494736474e-07],
    ),
    (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        (LABELS, LOGITS),
        [1.0045969023422834, 70.0000000000001, 1.0986122886681098, 698.0],
    ),
    (
        losses.BinaryCrossentropy(),
        (SHARES, PROBABILITIES),
        [0.7067545652389526, 1.5222299098968506, 0.41493162512779236, 16.11809539794922],
    ),
    (
        losses.BinaryCrossentropy(from_logits=True),
        (SHARES, LOGITS),
        [1.3880889415740967, 13.564382553100586, 0.6931471824645996, 1.7251718044281006],
    ),
    (
        losses.MeanSquaredError(),
        (TARGETS, PROBABILITIES),
        [0.06666666269302368, 0.6600000262260437, 0.11999999731779099, 0.6666666865348816],
    ),
    (
        losses.MeanAbsoluteError(),
        (TARGETS, PROBABILITIES),
        [0.20000001788139343, 0.5333333611488342, 0.3333333432674408, 0.6666666865348816],
    ),
]


@pytest.mark.parametrize(
    ("loss", "given", "expected"), KERAS, ids=[f"{type(loss).__name__}" for loss, _, _ in KERAS]
)
def test_losses_give_the_numbers_that_keras_gives(loss, given, expected):
    y_true, y_pred = (np.array(values) for values in given)
    found = loss.call(y_true, y_pred)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


# ---- probabilities that come out of a softmax or a sigmoid --------------------------------------


@pytest.mark.parametrize(
    ("last", "loss", "definition"),
    [
        ("softmax", "categorical_crossentropy", categorical_from_logits),
        ("sigmoid", "binary_crossentropy", binary_from_logits),
    ],
)
def test_a_loss_behind_its_activation_is_exact_where_probabilities_are_not(last, loss, definition):
    model = Sequential([Input((3,)), layers.Activation(last)])
    model.compile("sgd", loss)
    z = np.array([[60.0, -60.0, 0.0], [-80.0, 0.0, 3.0]])
    t = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert model.evaluate(z, t) == pytest.approx(definition(t, z).mean(), rel=1e-6)


def test_a_softmax_over_another_axis_is_no_softmax_of_the_loss(rng):
    model = Sequential([Input((3, 4)), layers.Softmax(axis=1)])
    model.compile("sgd", "categorical_crossentropy")
    z, t = rng.normal(size=(5, 3, 4)), rng.uniform(size=(5, 3, 4))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert model.evaluate(z, t) == pytest.approx(categorical_crossentropy(t, p).mean(), rel=1e-5)


def test_a_saturated_softmax_goes_on_learning():
    model = Sequential([Input((1,)), layers.Dense(2, "softmax", kernel_initializer="zeros")])
    model.set_weights([np.array([[40.0, -40.0]]), np.zeros(2)])
    model.compile(optimizers.SGD(1.0), "categorical_crossentropy")
    model.train_on_batch(np.ones((1, 1)), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(model.get_weights()[1], [-1.0, 1.0])


# ---- metrics -----------------------------------------------------------------------------------


def test_accuracies_count_what_is_right(rng, dtype):
    t, p = rng.uniform(size=(50, 4)).astype(dtype), rng.uniform(size=(50, 4)).astype(dtype)
    right = t.argmax(-1) == p.argmax(-1)
    metric = metrics.CategoricalAccuracy()
    np.testing.assert_array_equal(metric.call(t, p), right)
    assert metric(t, p) == pytest.approx(right.mean())
    labels = rng.integers(0, 4, 50)
    found = metrics.SparseCategoricalAccuracy().call(labels, p)
    np.testing.assert_array_equal(found, labels == p.argmax(-1))
    sure = np.where(t > 0.5, 1.0, t)  # a target between 0 and 1 is no class, so never hit
    hits = (sure == (p > 0.5)).mean(-1)
    np.testing.assert_allclose(metrics.BinaryAccuracy().call(sure, p), hits, rtol=1e-6)


def test_the_first_maximum_counts_and_a_half_is_no():
    p = np.array([[0.5, 0.5], [0.0, 0.0]])
    np.testing.assert_array_equal(metrics.SparseCategoricalAccuracy().call([0, 1], p), [1, 0])
    np.testing.assert_array_equal(metrics.BinaryAccuracy().call(np.ones((2, 2)), p), [0, 0])


def test_errors_as_metrics(rng):
    t, p = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    assert metrics.MeanSquaredError()(t, p) == pytest.approx(((t - p) ** 2).mean())
    assert metrics.MeanAbsoluteError()(t, p) == pytest.approx(np.abs(t - p).mean())


@pytest.mark.parametrize("given", ["mse", "MSE", "mean_squared_error", "acc", "binary_accuracy"])
def test_a_metric_is_shown_by_the_name_it_was_asked_for(given):
    assert metrics.get(given, (None, 3), False).name == given


def test_metrics_of_one_name_are_all_shown():
    model = Sequential([Input((2,)), layers.Activation("linear")])
    model.compile("sgd", "mse", metrics=["mae", "mae", metrics.MeanSquaredError("mine")])
    logs = model.evaluate(np.ones((2, 2)), np.zeros((2, 2)), return_dict=True)
    assert logs == {"loss": 1.0, "mae": 1.0, "mae_1": 1.0, "mine": 1.0}


def test_unknown_metrics_are_errors():
    model = Sequential([Input((2,)), layers.Activation("linear")])
    with pytest.raises(ValueError, match=r"'accuracy'.*got 'f1'"):
        model.compile("sgd", "mse", metrics=["f1"])
    with pytest.raises(TypeError, match="expected a name or a metric, got 3"):
        model.compile("sgd", "mse", metrics=[3])
    with pytest.raises(TypeError, match="list of metrics"):
        model.compile("sgd", "mse", metrics="accuracy")


# ---- names and messages ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("mse", losses.MeanSquaredError),
        ("MeanSquaredError", losses.MeanSquaredError),
        ("mean_squared_error", losses.MeanSquaredError),
        ("mae", losses.MeanAbsoluteError),
        ("categorical_crossentropy", losses.CategoricalCrossentropy),
        ("CategoricalCrossentropy", losses.CategoricalCrossentropy),
        ("sparse_categorical_crossentropy", losses.SparseCategoricalCrossentropy),
        ("binary_crossentropy", losses.BinaryCrossentropy),
        (losses.BinaryCrossentropy, losses.BinaryCrossentropy),
        (ops.mean_squared_error, losses.MeanSquaredError),
        (losses.sparse_categorical_crossentropy, losses.SparseCategoricalCrossentropy),
    ],
)
def test_losses_by_name_class_or_function(given, kind):
    assert type(losses.get(given)) is kind


def test_unknown_losses_are_errors():
    with pytest.raises(ValueError, match=r"'mse'.*got 'hindge'"):
        losses.get("hindge")
    with pytest.raises(TypeError, match="expected a name, a loss or a function"):
        losses.get(7)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        ("categorical_crossentropy", np.zeros(4, int), "sparse_categorical_crossentropy"),
        ("categorical_crossentropy", np.zeros(4, int), r"to_categorical\(y, 3\)"),
        ("categorical_crossentropy", np.zeros((4, 1), int), "sparse_categorical_crossentropy"),
        ("categorical_crossentropy", np.zeros((4, 2)), "categorical_crossentropy: expected"),
        ("sparse_categorical_crossentropy", np.zeros((4, 3)), 'loss="categorical_crossentropy"'),
        ("mean_squared_error", np.zeros(4, int), "to_categorical"),
        ("binary_crossentropy", np.zeros(4), "binary_crossentropy: expected targets"),
    ],
)
def test_targets_that_fit_another_loss_get_a_message_that_names_it(loss, y, message):
    model = Sequential([Input((2,)), layers.Dense(3, "softmax")])
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=message):
        model.fit(np.zeros((4, 2)), y)


def test_losses_of_arrays_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r"mean_squared_error: expected y_true of shape \(2, 3\)"):
        losses.MeanSquaredError()(np.zeros((2, 4)), np.zeros((2, 3)))


# ---- one-hot targets ---------------------------------------------------------------------------


def test_to_categorical_makes_one_hot_rows():
    np.testing.assert_array_equal(to_categorical([1, 0, 2]), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert to_categorical([1, 0]).dtype == np.float32
    for given in (np.array([1, 0], np.uint8), [1.0, 0.0], [[1], [0]], [True, False]):
        np.testing.assert_array_equal(to_categorical(given, 3), [[0, 1, 0], [1, 0, 0]])
    assert to_categorical(np.zeros((2, 3), int), 4).shape == (2, 3, 4)
    assert to_categorical([], 4).shape == (0, 4)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([-1, 0], None), ([0, 3], 3), ([0.5], None), ([], None), ([0], 0), ([np.nan], 2), (["a"], 2)],
)
def test_to_categorical_refuses_what_are_no_labels(labels, classes):
    with pytest.raises((ValueError, TypeError), match="to_categorical: expected"):
        to_categorical(labels, classes)
