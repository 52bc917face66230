"""Networks as scikit-learn's estimators: its own checks, searches, pickles, forks."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from processes import output_of
from small_network import small

import convkit
from convkit import layers, losses, optimizers, schedules

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from convkit.sklearn import CNNClassifier, CNNRegressor


@parametrize_with_checks([CNNClassifier(), CNNRegressor()])
@pytest.mark.filterwarnings("ignore")  # checks mean to cause them
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:600], y[:600]


@pytest.fixture(scope="module")
def fitted(digits):
    return CNNClassifier(input_shape=(8, 8), epochs=30, random_state=0).fit(*digits)


def logits(shape, outputs):
    return convkit.Sequential([layers.Input(shape), layers.Flatten(), layers.Dense(outputs)])


def one_sigmoid(shape, outputs):
    return convkit.Sequential(
        [layers.Input(shape), layers.Flatten(), layers.Dense(1, activation="sigmoid")]
    )


def compiled(shape, outputs):
    model = small(shape, outputs)
    model.compile(optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy")
    return model


# ---- what is trained -----------------------------------------------------------------------------


def test_rows_as_images(digits, fitted):
    x, y = digits
    assert fitted.score(x, y) > 0.97
    assert fitted.input_shape_ == (8, 8, 1)
    assert fitted.n_features_in_ == 64
    assert fitted.n_iter_ == len(fitted.history_["loss"]) == 30
    assert any(isinstance(layer, layers.Conv2D) for layer in fitted.model_.layers)
    probabilities = fitted.predict_proba(x)
    assert probabilities.shape == (600, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert log_loss(y, probabilities) < 0.3


def test_images_and_their_rows_are_the_same(digits, fitted):
    x, y = digits
    of_images = CNNClassifier(epochs=30, random_state=0).fit(x.reshape(-1, 8, 8), y)
    expected = fitted.predict_proba(x)
    for form in (x, x.reshape(-1, 8, 8), x.reshape(-1, 8, 8, 1)):
        np.testing.assert_array_equal(of_images.predict_proba(form), expected)
    np.testing.assert_array_equal(fitted.predict(x[:5].reshape(5, 8, 8).tolist()), y[:5])


def test_bytes_stay_bytes(digits):
    x, y = digits
    images = (x.reshape(-1, 8, 8) * 15).astype(np.uint8)
    assert CNNClassifier(epochs=20, random_state=0).fit(images, y).score(images, y) > 0.9


def test_a_prediction_does_not_depend_on_its_neighbours(digits, fitted):
    x, _ = digits
    whole = fitted.predict_proba(x[:100])
    for begin, end in ((0, 1), (3, 10), (50, 71)):
        np.testing.assert_array_equal(fitted.predict_proba(x[begin:end]), whole[begin:end])


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (small, None),
        (small, "categorical_crossentropy"),
        (small, losses.SparseCategoricalCrossentropy()),
        (logits, losses.SparseCategoricalCrossentropy(from_logits=True)),
        (compiled, None),
    ],
)
def test_models_of_ones_own(digits, model, loss):
    x, y = digits
    names = np.array([f"digit {label}" for label in range(10)])[y]
    classifier = CNNClassifier(
        model, input_shape=(8, 8, 1), loss=loss, epochs=30, batch_size=16, random_state=0
    )
    assert classifier.fit(x / 16, names).score(x / 16, names) > 0.9
    assert classifier.predict(x[:1] / 16) == ["digit 0"]
    assert log_loss(names, classifier.predict_proba(x / 16)) < 0.6


@pytest.mark.parametrize("binary", [False, True])
def test_two_classes(digits, binary):
    x, y = digits
    x, y = x[y < 2] / 16, y[y < 2] == 1
    model = one_sigmoid if binary else None
    classifier = CNNClassifier(model, learning_rate=0.03, random_state=0).fit(x, y)
    assert classifier.classes_.tolist() == [False, True]
    assert classifier.model_.output_shape == (None, 1 if binary else 2)
    assert classifier.predict_proba(x).shape == (len(x), 2)
    assert classifier.score(x, y) == 1


def test_regression_of_several_targets():
    x = np.random.default_rng(0).normal(size=(300, 4))
    y = np.stack([x[:, 0] + x[:, 1], x[:, 2] * 0.5, np.abs(x[:, 3])], axis=1)
    regressor = CNNRegressor(random_state=0).fit(x, y)
    assert regressor.score(x, y) > 0.9
    assert regressor.predict(x).shape == y.shape
    assert regressor.n_outputs_ == 3
    assert regressor.fit(x, y[:, 0]).predict(x).shape == (300,)
    assert regressor.fit(x, y[:, :1]).predict(x).shape == (300, 1)


def test_regression_on_images(digits):
    x, _ = digits
    y = x.mean(axis=1)
    regressor = CNNRegressor(input_shape=(8, 8), epochs=60, random_state=0).fit(x, y)
    assert regressor.score(x, y) > 0.8


def test_early_stopping_keeps_the_best_weights(digits):
    x, y = digits
    classifier = CNNClassifier(
        input_shape=(8, 8), early_stopping=True, n_iter_no_change=3, random_state=0
    ).fit(x, y)
    held_out = classifier.history_["val_loss"]
    assert classifier.n_iter_ == len(held_out) < 200
    assert np.argmin(held_out) < len(held_out) - 1
    at_all = CNNClassifier(epochs=12, n_iter_no_change=None, tol=1e9, random_state=0).fit(x, y)
    assert at_all.n_iter_ == 12
    assert CNNClassifier(tol=1e9, random_state=0).fit(x, y).n_iter_ < 20


def test_weights_of_samples_count_as_repetitions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    times = rng.integers(0, 4, 20)
    options = {"epochs": 50, "random_state": 0}
    weighted = CNNRegressor(**options).fit(x, y, sample_weight=times)
    repeated = CNNRegressor(**options).fit(np.repeat(x, times, 0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.predict(x), repeated.predict(x), rtol=1e-9, atol=1e-12)


def test_warm_start_goes_on(digits):
    x, y = digits
    classifier = CNNClassifier(epochs=5, warm_start=True, random_state=0)
    first = classifier.fit(x, y).history_["loss"]
    assert classifier.fit(x, y).history_["loss"][0] < first[-1]
    with pytest.raises(ValueError, match="warm_start goes on from"):
        classifier.fit(x[y < 5], y[y < 5])


# ---- randomness ----------------------------------------------------------------------------------


def test_equal_states_give_equal_bits_and_leave_other_generators_alone(digits):
    x, y = digits
    convkit.utils.set_random_seed(5)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is what is looked at
    expected = convkit.random.state()
    first = CNNClassifier(epochs=3, random_state=0).fit(x, y).predict_proba(x)
    second = CNNClassifier(epochs=3, random_state=0).fit(x, y).predict_proba(x)
    third = CNNClassifier(epochs=3, random_state=1).fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert convkit.random.state() == expected


def test_the_optimizer_that_is_a_parameter_stays_new(digits):
    x, y = digits
    optimizer = optimizers.Adam(schedules.CosineDecay(0.01, 100))
    classifier = CNNClassifier(optimizer=optimizer, epochs=3, random_state=0)
    first = classifier.fit(x, y).predict_proba(x)
    assert int(optimizer.iterations.host()[0]) == 0
    np.testing.assert_array_equal(classifier.fit(x, y).predict_proba(x), first)
    np.testing.assert_array_equal(clone(classifier).fit(x, y).predict_proba(x), first)
    assert pickle.loads(pickle.dumps(classifier)).optimizer.learning_rate == 0.01


# ---- searches, pickles, forks --------------------------------------------------------------------

GRID = {"cnnclassifier__learning_rate": [0.001, 0.01], "cnnclassifier__input_shape": [None, (8, 8)]}


def search(digits, n_jobs):
    pipeline = make_pipeline(StandardScaler(), CNNClassifier(epochs=5, random_state=0))
    return GridSearchCV(pipeline, GRID, cv=2, n_jobs=n_jobs).fit(*digits)


@pytest.fixture(scope="module")
def expected_scores(digits):
    return search(digits, None).cv_results_["mean_test_score"]


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_a_search_in_processes_and_threads_finds_the_same(digits, expected_scores, backend):
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_backend(backend, n_jobs=2):
        found = search(digits, None)
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected_scores)
    assert found.best_score_ > 0.6


def test_cross_validation_of_a_model_of_ones_own(digits):
    x, y = digits
    classifier = CNNClassifier(small, input_shape=(8, 8), epochs=5, random_state=0)
    scores = cross_val_score(classifier, x / 16, y, cv=2, n_jobs=2)
    np.testing.assert_array_equal(scores, cross_val_score(classifier, x / 16, y, cv=2))


@pytest.mark.parametrize(
    "way", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
def test_copies_predict_the_same(digits, fitted, way):
    x, _ = digits
    other = way(fitted)
    assert other.model_ is not fitted.model_
    np.testing.assert_array_equal(other.predict_proba(x), fitted.predict_proba(x))
    assert other.history_ == fitted.history_
    assert not hasattr(clone(fitted), "model_")


FORK = """
import multiprocessing
import numpy as np
from sklearn.datasets import load_digits
from convkit.sklearn import CNNClassifier

x, y = load_digits(return_X_y=True)
x, y = x[:300], y[:300]
classifier = CNNClassifier(input_shape=(8, 8), epochs=3, random_state=0).fit(x, y)

def again(_):
    refitted = CNNClassifier(input_shape=(8, 8), epochs=3, random_state=0).fit(x, y)
    return classifier.predict_proba(x).tobytes() + refitted.predict_proba(x).tobytes()

with multiprocessing.get_context("fork").Pool(2) as pool:
    expected = 2 * classifier.predict_proba(x).tobytes()
    print([found == expected for found in pool.map(again, range(4))])
"""


def test_forked_children_fit_and_predict(tmp_path):
    assert output_of(FORK, tmp_path, OMP_NUM_THREADS="2") == "[True, True, True, True]"


# ---- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "lenet"}, TypeError, "expected model to be None or a function"),
        ({"model": lambda shape, outputs: 7}, TypeError, "to return a Model, got 7"),
        ({"model": lambda shape, outputs: small((9, 9, 1), 10)}, ValueError, "a model of inputs"),
        (
            {"model": lambda shape, outputs: small(shape, 9), "input_shape": (8, 8)},
            ValueError,
            r"a model of outputs \(None, 10\)",
        ),
        ({"input_shape": (7, 9)}, ValueError, r"shape \(7, 9, 1\), got 64 features"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"optimizer": "magic"}, ValueError, "magic"),
    ],
)
def test_arguments_that_make_no_sense(digits, options, error, message):
    with pytest.raises(error, match=message):
        CNNClassifier(**{"epochs": 30, **options}).fit(*digits)


def test_a_training_that_runs_away():
    x = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ValueError, match="take a smaller learning_rate"):
        CNNRegressor(optimizer="sgd", learning_rate=1e6).fit(x, x[:, 0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"sample_weight of shape \(600,\)"),
        (np.zeros(600), "not all of them zero"),
        (np.full(600, -1.0), "at least 0"),
        (np.full(600, np.nan), "finite"),
    ],
)
def test_weights_that_make_no_sense(digits, weights, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(epochs=1).fit(*digits, sample_weight=weights)


def test_samples_of_another_shape(digits, fitted):
    x, _ = digits
    with pytest.raises(ValueError, match=r"of the shape \(8, 8, 1\), got \(4, 16\)"):
        fitted.predict(x.reshape(-1, 4, 16))
    with pytest.raises(ValueError, match="features"):
        fitted.predict(x[:, :60])


def test_scikit_learn_missing(tmp_path):
    code = """
import sys
import convkit
assert "sklearn" not in sys.modules
sys.modules["sklearn"] = sys.modules["sklearn.base"] = None
try:
    convkit.sklearn
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        "convkit.sklearn needs scikit-learn 1.6 or newer: pip install 'convkit-nn[sklearn]'"
    )


def test_where_it_trains_and_predicts(digits, place):
    x, y = digits
    where = "cpu" if place is None else "cuda"
    classifier = CNNClassifier(small, input_shape=(8, 8), epochs=2, device=where, random_state=0)
    classifier.fit(x[:60] / 16, y[:60])
    assert classifier.model_.device.startswith(where)
    probabilities = classifier.predict_proba(x[:20])
    other = pickle.loads(pickle.dumps(classifier))
    assert other.model_.device == "cpu"
    np.testing.assert_array_equal(other.predict_proba(x[:20]), probabilities)
    assert other.model_.device.startswith(where)
