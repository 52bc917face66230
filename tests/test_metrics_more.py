"""Metrics that keep counters: Keras's numbers, used alone and by models, and those of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convkit
from convkit import Input, Sequential, _core, callbacks, layers, losses, metrics, ops, planner
from convkit.utils import to_categorical

# Made by tests/keras_losses_metrics.py.
TABLE = json.loads(Path(__file__).with_name("keras_losses_metrics.json").read_text())["metrics"]


def made(entry: dict[str, Any]) -> metrics.Metric:
    metric: metrics.Metric = getattr(metrics, entry["class"])(**entry["options"])
    return metric


every_entry = pytest.mark.parametrize(
    "entry", TABLE, ids=[f"{e['class']}-{i}" for i, e in enumerate(TABLE)]
)


@every_entry
def test_metrics_give_the_numbers_that_keras_gives(entry, dtype):
    y_true, y_pred = (np.array(entry[side], dtype) for side in ("y_true", "y_pred"))
    metric = made(entry)
    for part in (slice(0, 4), slice(4, None)):
        metric.update_state(y_true[part], y_pred[part])
    found = metric.result()
    assert np.shape(found) == np.shape(entry["values"])
    tolerance = 1e-6 if dtype == np.float64 else 2e-4
    np.testing.assert_allclose(found, entry["values"], rtol=tolerance, atol=1e-8)


@every_entry
def test_a_metric_is_made_again_from_its_configuration(entry):
    metric = made(entry)
    text = json.loads(json.dumps(metric.get_config()))
    again = type(metric).from_config(text)
    assert json.dumps(again.get_config()) == json.dumps(metric.get_config())
    also = metrics.get({"class_name": entry["class"], "config": text}, (None, 4), False)
    assert type(also) is type(metric)
    y_true, y_pred = (np.array(entry[side]) for side in ("y_true", "y_pred"))
    np.testing.assert_array_equal(again(y_true, y_pred), metric(y_true, y_pred))


@every_entry
def test_a_reset_forgets_everything(entry):
    y_true, y_pred = (np.array(entry[side]) for side in ("y_true", "y_pred"))
    metric = made(entry)
    metric(y_pred if y_true.shape == y_pred.shape else y_true, y_pred[::-1])
    metric.reset_state()
    assert all((variable.numpy() == 0).all() for variable in metric.variables)
    np.testing.assert_allclose(metric(y_true, y_pred), entry["values"], rtol=1e-6, atol=1e-8)


# ---- used alone ----------------------------------------------------------------------------------


def test_results_before_the_first_batch():
    assert np.isnan(metrics.MeanSquaredError().result())
    assert metrics.Precision().result() == 0
    assert metrics.AUC().result() == 0
    assert metrics.MeanIoU(3).result() == 0
    assert metrics.F1Score("macro").result() == 0
    np.testing.assert_array_equal(metrics.ConfusionMatrix(2).result(), np.zeros((2, 2)))
    np.testing.assert_array_equal(metrics.Recall([0.1, 0.9]).result(), [0, 0])


def test_flat_targets_serve_columns_of_one():
    y_true, y_pred = [0, 1, 1, 1], [[0.2], [0.8], [0.4], [0.9]]
    assert metrics.Precision()(y_true, y_pred) == 1
    assert metrics.Recall()(y_true, y_pred) == pytest.approx(2 / 3)
    assert metrics.Recall()(y_true, np.ravel(y_pred)) == pytest.approx(2 / 3)
    assert metrics.BinaryAccuracy()(np.reshape(y_true, (-1, 1)), y_pred) == 0.75
    np.testing.assert_array_equal(
        metrics.ConfusionMatrix()(np.array(y_true)[:, None], y_pred), [[1, 0], [1, 2]]
    )


def test_labels_may_stand_in_a_column():
    p = np.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3]])
    for labels in ([1, 2], [[1], [2]]):
        assert metrics.SparseTopKCategoricalAccuracy(2)(labels, p) == 1
        assert metrics.SparseCategoricalAccuracy()(labels, p) == 0.5
        found = metrics.ConfusionMatrix(3)(labels, p)
        np.testing.assert_array_equal(found, [[0, 0, 0], [0, 1, 0], [1, 0, 0]])
        assert found.dtype == np.int64


def test_a_confusion_matrix_takes_labels_and_one_hot_targets(rng):
    p, labels = rng.uniform(size=(50, 5)), rng.integers(0, 5, 50)
    right = np.zeros((5, 5), int)
    np.add.at(right, (labels, p.argmax(-1)), 1)
    np.testing.assert_array_equal(metrics.ConfusionMatrix()(labels, p), right)
    np.testing.assert_array_equal(metrics.ConfusionMatrix()(np.eye(5)[labels], p), right)


def test_classes_outside_are_left_out_of_iou():
    metric = metrics.MeanIoU(2)
    metric.update_state([0, 1, 1, 255, -1], [0, 1, 0, 1, 0])
    assert metric.result() == pytest.approx((1 / 2 + 1 / 2) / 2)
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    metric = metrics.MeanIoU(2, sparse_y_pred=False)
    assert metric([0, 1, 1, 255, -1], p) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_means_and_sums_of_values():
    mean = metrics.Mean()
    assert mean.result() == 0
    mean.update_state([1.0, 2.0, 6.0])
    mean.update_state(3)
    assert mean.result() == 3
    mean.reset_state()
    assert mean([[1.0, 3.0], [5.0, 7.0]], [1, 0]) == 2
    assert metrics.Sum()([1.0, 2.0], [1, 3]) == 7
    with pytest.raises(ValueError, match="mean: expected sample_weight of shape"):
        metrics.Mean()([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_dtype_is_what_predictions_become():
    y = np.array([[0.7, 0.2]])
    limit = float(np.float32(0.7)) - 1e-9  # above 0.7, below float32's 0.7
    assert metrics.TruePositives(limit)([[1, 1]], y) == 1
    assert metrics.TruePositives(limit, dtype="float32")([[1, 1]], y) == 0
    with pytest.raises(ValueError, match="dtype to be one of"):
        metrics.AUC(dtype="float16")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.Precision(1.5), "0 <= thresholds <= 1, got 1.5"),
        (lambda: metrics.Precision([]), "at least one threshold"),
        (lambda: metrics.Recall(top_k=0), "top_k to be at least 1"),
        (lambda: metrics.TopKCategoricalAccuracy(0), "k to be at least 1"),
        (lambda: metrics.SparseTopKCategoricalAccuracy(from_sorted_ids=True), "from_sorted_ids"),
        (lambda: metrics.F1Score("some"), "average to be one of"),
        (lambda: metrics.FBetaScore(beta=0), "beta above 0"),
        (lambda: metrics.F1Score(threshold=0.0), "a threshold above 0"),
        (lambda: metrics.AUC(curve="ROCK"), "curve to be one of"),
        (lambda: metrics.AUC(summation_method="none"), "summation_method to be one of"),
        (lambda: metrics.AUC(1), "num_thresholds to be at least 2"),
        (lambda: metrics.AUC(num_labels=3), "num_labels only with multi_label"),
        (lambda: metrics.SensitivityAtSpecificity(2), "0 <= specificity <= 1, got 2"),
        (lambda: metrics.IoU(3, [3]), "target_class_ids below 3"),
        (lambda: metrics.MeanIoU(3, axis=1), "axis -1"),
        (lambda: metrics.BinaryIoU([2]), "target_class_ids of 0 and 1"),
        (lambda: metrics.Precision(class_id=3)(np.ones((2, 3)), np.ones((2, 3))), "class_id"),
        (lambda: metrics.Precision()(np.ones((2, 2)), np.ones((2, 3))), "like the predictions"),
        (lambda: metrics.AUC(label_weights=[1])(np.ones((2, 3)), np.ones((2, 3))), "3 label_we"),
        (
            lambda: metrics.AUC(multi_label=True, num_labels=2)(np.ones((2, 3)), np.ones((2, 3))),
            "2 predictions per row",
        ),
        (lambda: metrics.ConfusionMatrix(4)([1, 2], np.ones((2, 3))), "predictions of 4 classes"),
        (lambda: metrics.ConfusionMatrix()([1, 3], np.ones((2, 3))), "between 0 and 2"),
        (lambda: metrics.ConfusionMatrix()([1, 2, 0], np.ones((2, 3))), "targets for"),
        (lambda: metrics.MeanIoU(3, sparse_y_pred=False)([1], np.ones((1, 2))), "of 3 classes"),
        (lambda: metrics.MeanIoU(3)([1, 2], [1]), "2 predictions"),
    ],
)
def test_what_does_not_fit_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- in models -----------------------------------------------------------------------------------


def classifier(loss: Any, chosen: list[Any], last: str = "softmax", units: int = 3) -> Sequential:
    convkit.utils.set_random_seed(3)
    model = Sequential([Input((6,)), layers.Dense(9, "relu"), layers.Dense(units, last)])
    model.compile("adam", loss, metrics=chosen)
    return model


def samples(count: int = 75) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    return rng.normal(size=(count, 6)).astype(np.float32), rng.integers(0, 3, count)


def everything() -> list[metrics.Metric]:
    """One of each kind that takes targets like predictions."""
    return [
        metrics.AUC(),
        metrics.AUC(curve="PR", multi_label=True, name="pr"),
        metrics.Precision(),
        metrics.Recall(class_id=1),
        metrics.Precision(top_k=2, name="top"),
        metrics.F1Score("macro"),
        metrics.F1Score("weighted", 0.4, name="f"),
        metrics.TruePositives(0.3),
        metrics.SensitivityAtSpecificity(0.5),
        metrics.OneHotMeanIoU(3),
        metrics.BinaryIoU(),
        metrics.ConfusionMatrix(),
        metrics.TopKCategoricalAccuracy(2),
        metrics.RootMeanSquaredError(),
        metrics.CosineSimilarity(),
        metrics.KLDivergence(),
        metrics.LogCoshError(),
        metrics.BinaryAccuracy(threshold=0.4),
        metrics.CategoricalCrossentropy(label_smoothing=0.1),
    ]


@pytest.mark.parametrize("tiled", [True, False])
def test_a_model_counts_what_a_metric_alone_counts(tiled, monkeypatch):
    monkeypatch.setattr(planner, "least_depth_first", lambda *_, **__: 1 if tiled else 10**9)
    x, labels = samples()
    y = to_categorical(labels, 3)
    chosen = everything()
    model = classifier("categorical_crossentropy", chosen)
    model.fit(x, y, batch_size=20, epochs=2, verbose=0)
    logs = model.evaluate(x, y, batch_size=20, return_dict=True)
    alone = everything()
    predictions = model.predict(x, batch_size=20)
    for metric, other in zip(chosen, alone, strict=True):
        right = other(y, predictions)
        np.testing.assert_allclose(metric.result(), right, rtol=2e-5)
        if np.ndim(right) == 0:
            assert logs[metric.name] == metric.result()
        else:
            assert metric.name not in logs
    assert len(logs) == len(chosen)  # without the matrix, with the loss


def test_training_counts_alike_on_both_schedules(monkeypatch):
    found = []
    x, labels = samples()
    for tiled in (True, False):
        monkeypatch.setattr(
            planner, "least_depth_first", lambda *_, tiled=tiled, **__: 1 if tiled else 10**9
        )
        model = classifier("categorical_crossentropy", everything())
        y = to_categorical(labels, 3)
        found.append(model.fit(x, y, batch_size=20, epochs=3, verbose=0).history)
    assert found[0].keys() == found[1].keys()
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], rtol=1e-4)


def test_labels_and_metrics_that_take_them():
    x, labels = samples()
    chosen = [
        "accuracy",
        metrics.SparseTopKCategoricalAccuracy(2),
        metrics.MeanIoU(3, sparse_y_pred=False),
        metrics.IoU(3, [1], sparse_y_pred=False, ignore_class=0),
        metrics.ConfusionMatrix(),
        metrics.SparseCategoricalCrossentropy(),
    ]
    model = classifier("sparse_categorical_crossentropy", chosen)
    model.fit(x, labels, batch_size=20, verbose=0)
    logs = model.evaluate(x, labels, batch_size=32, return_dict=True)
    predictions = model.predict(x)
    matrix = chosen[4].result()
    right = np.zeros((3, 3), int)
    np.add.at(right, (labels, predictions.argmax(-1)), 1)
    np.testing.assert_array_equal(matrix, right)
    assert logs["accuracy"] == pytest.approx(np.trace(right) / len(x))
    assert logs["mean_io_u"] == metrics.MeanIoU(3)(labels, predictions.argmax(-1))
    assert logs["sparse_categorical_crossentropy"] == pytest.approx(logs["loss"], rel=1e-5)


def test_every_pixel_counts(rng):
    model = Sequential([Input((4, 5, 2)), layers.Conv2D(3, 1, activation="softmax")])
    matrix = metrics.ConfusionMatrix()
    model.compile(
        "sgd",
        "sparse_categorical_crossentropy",
        metrics=[matrix, metrics.MeanIoU(3, sparse_y_pred=False)],
    )
    x, y = rng.normal(size=(7, 4, 5, 2)).astype(np.float32), rng.integers(0, 3, (7, 4, 5))
    logs = model.evaluate(x, y, return_dict=True)
    assert matrix.result().sum() == 7 * 4 * 5
    assert logs["mean_io_u"] == metrics.MeanIoU(3)(y, model.predict(x).argmax(-1))
    model = Sequential([Input((4, 5, 2)), layers.Conv2D(1, 1, activation="sigmoid")])
    model.compile("sgd", losses.Dice(), metrics=[metrics.BinaryIoU([1]), metrics.AUC()])
    masks = rng.integers(0, 2, (7, 4, 5, 1))
    logs = model.evaluate(x, masks, return_dict=True)
    assert logs["binary_io_u"] == metrics.BinaryIoU([1])(masks, model.predict(x))
    assert logs["loss"] == pytest.approx(losses.Dice()(masks, model.predict(x)), rel=1e-5)


def test_training_and_evaluation_count_apart():
    """Evaluation in the midst of an epoch, as in a callback, leaves what training counts alone."""
    x, labels = samples(60)

    class Evaluate(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.evaluate(x[:20], labels[:20], verbose=0)

    found = []
    for chosen in ([], [Evaluate()]):
        model = classifier(
            "sparse_categorical_crossentropy", ["accuracy", metrics.ConfusionMatrix()]
        )
        history = model.fit(x, labels, batch_size=20, epochs=2, verbose=0, callbacks=chosen)
        found.append(history.history)
    assert found[0] == found[1]


def test_a_metric_shows_the_run_that_began_last():
    x, labels = samples(60)
    matrix = metrics.ConfusionMatrix()
    model = classifier("sparse_categorical_crossentropy", [matrix])
    model.fit(x, labels, epochs=2, verbose=0)
    assert matrix.result().sum() == 60
    model.fit(x, labels, verbose=0, validation_data=(x[:17], labels[:17]))
    assert matrix.result().sum() == 17
    model.train_on_batch(x[:5], labels[:5])
    assert matrix.result().sum() == 5
    matrix.reset_state()
    assert matrix.result().sum() == 0


def test_metrics_of_one_name_are_counted_apart():
    x, labels = samples(40)
    chosen = [metrics.Precision(0.1), metrics.Precision(0.9)]
    model = classifier("categorical_crossentropy", chosen)
    logs = model.evaluate(x, to_categorical(labels, 3), return_dict=True)
    assert logs["precision"] == chosen[0].result() != chosen[1].result()
    assert logs["precision_1"] == chosen[1].result()
    assert [metric.name for metric in chosen] == ["precision", "precision"]


def test_metrics_by_name():
    x, labels = samples(40)
    names = [name for name in metrics.NAMES if not name.startswith("sparse") and name != "poisson"]
    model = classifier("categorical_crossentropy", [*names, "AUC", "F1Score"])
    logs = model.evaluate(x, to_categorical(labels, 3), return_dict=True)
    assert {"auc", "auc_1", "precision", "kl_divergence", "true_positives"} <= logs.keys()
    assert "f1_score" not in logs  # one for each class
    for name, cls in metrics.NAMES.items():
        assert type(metrics.get(name, (None, 3), bool(cls.sparse))) is cls
    with pytest.raises(ValueError, match="a metric on labels"):
        metrics.get("mae", (None, 3), True)


@pytest.mark.parametrize(
    ("metric", "loss", "message"),
    [
        (metrics.Precision(), "sparse_categorical_crossentropy", "targets like the predictions"),
        (metrics.F1Score(), "sparse_categorical_crossentropy", "targets like the predictions"),
        (metrics.MeanIoU(3), "sparse_categorical_crossentropy", "sparse_y_pred=False"),
        (
            metrics.MeanIoU(3, sparse_y_pred=False),
            "categorical_crossentropy",
            "labels, as sparse_y_true says",
        ),
        (
            metrics.OneHotMeanIoU(3),
            "sparse_categorical_crossentropy",
            "targets like the predictions, as sparse_y_true says",
        ),
        (
            metrics.MeanIoU(4, sparse_y_pred=False),
            "sparse_categorical_crossentropy",
            "of 4 classes",
        ),
    ],
)
def test_metrics_that_do_not_fit_a_model_are_errors(metric, loss, message):
    x, labels = samples(20)
    y = labels if loss.startswith("sparse") else to_categorical(labels, 3)
    model = classifier(loss, [metric])
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)


# ---- of one's own --------------------------------------------------------------------------------


class Hits(metrics.Metric):
    """A mean of scores: `call` is all it takes."""

    name = "hits"

    def call(self, y_true, y_pred):
        return ops.rescale(ops.mean_absolute_error(y_true, y_pred), 2.0)


class Largest(metrics.Metric):
    """Counters of its own: how often each class is predicted."""

    name = "largest"

    def build(self, y_true, y_pred):
        self.matrix = self.add_variable("matrix", (y_pred[-1], y_pred[-1]))

    def record(self, y_true, y_pred):
        classes = y_pred.shape[-1]
        rows = int(np.prod([s for s in y_pred.shape[:-1] if s is not None]))
        spec = _core.Confusion(rows=rows, columns=classes)
        return self.add("confusion_matrix", spec, [y_pred, y_pred], self.matrix, "float32")

    def result(self):
        return np.diag(self.matrix.numpy())


def test_metrics_of_one_s_own():
    x, labels = samples(40)
    y = to_categorical(labels, 3)
    hits, largest = Hits(), Largest("mine")
    model = classifier("categorical_crossentropy", [hits, largest])
    model.fit(x, y, verbose=0)
    logs = model.evaluate(x, y, return_dict=True)
    p = model.predict(x)
    assert logs["hits"] == pytest.approx(2 * np.abs(y - p).mean(), rel=1e-5)
    assert "mine" not in logs
    np.testing.assert_array_equal(largest.result(), np.bincount(p.argmax(-1), minlength=3))
    np.testing.assert_array_equal(Largest()(y, p), largest.result())


def test_functions_and_losses_as_metrics():
    def gap(y_true, y_pred):
        return ops.mean_absolute_error(y_true, y_pred)

    x, labels = samples(40)
    y = to_categorical(labels, 3)
    model = classifier("categorical_crossentropy", [gap, losses.Huber(0.1), ops.hinge])
    logs = model.evaluate(x, y, return_dict=True)
    p = model.predict(x)
    assert logs["gap"] == pytest.approx(np.abs(y - p).mean(), rel=1e-5)
    assert logs["huber_loss"] == pytest.approx(losses.Huber(0.1)(y, p), rel=1e-5)
    assert logs["hinge"] == pytest.approx(losses.Hinge()(y, p), rel=1e-5)


def test_a_metric_without_a_call_says_what_is_missing():
    with pytest.raises(TypeError, match="must define call"):
        metrics.Metric()([1.0], [1.0])
