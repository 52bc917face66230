"""convkit.Perceptron: what it learns, what it says when it cannot, and what it refuses."""

import numpy as np
import pytest

from convkit import Perceptron

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
OR, AND, XOR = [0, 1, 1, 1], [0, 0, 0, 1], [0, 1, 1, 0]


@pytest.mark.parametrize("targets", [OR, AND, [1, 0, 0, 0], [0, 0, 1, 0], [0] * 4, [1] * 4])
@pytest.mark.parametrize("learning_rate", [1.0, 0.1, 7.5])
def test_separable_functions_converge(targets, learning_rate):
    perceptron = Perceptron(learning_rate=learning_rate)
    assert perceptron.fit(INPUTS, targets) is perceptron
    assert perceptron.converged
    assert perceptron.predict(INPUTS).tolist() == targets
    assert perceptron.epochs == len(perceptron.mistakes) <= 20
    assert perceptron.mistakes[-1] == 0
    assert all(count > 0 for count in perceptron.mistakes[:-1])
    assert f"converged after {perceptron.epochs} epoch" in repr(perceptron)


@pytest.mark.parametrize("max_epochs", [1, 2, 100])
def test_xor_does_not_converge_and_says_so(max_epochs):
    perceptron = Perceptron(max_epochs).fit(INPUTS, XOR)
    assert not perceptron.converged
    assert perceptron.epochs == max_epochs
    assert perceptron.mistakes[-1] > 0
    assert perceptron.predict(INPUTS).tolist() != XOR
    assert f"did not converge in {max_epochs} epoch" in repr(perceptron)


def test_and_by_hand():
    # Epoch by epoch on paper: (0,0) (0,1) (1,0) (1,1) in order, starting from zeros.
    weights, bias, mistakes = np.zeros(2), 0.0, []
    while not mistakes or mistakes[-1]:
        mistakes.append(0)
        for x, target in zip(INPUTS, AND, strict=True):
            prediction = 1 if weights[0] * x[0] + weights[1] * x[1] + bias > 0 else 0
            weights, bias = weights + (target - prediction) * x, bias + target - prediction
            mistakes[-1] += prediction != target
    perceptron = Perceptron().fit(INPUTS, AND)
    assert perceptron.weights.tolist() == weights.tolist() == [2, 1]
    assert perceptron.bias == bias == -2
    assert perceptron.mistakes == mistakes == [1, 3, 3, 2, 1, 0]


def test_the_first_sample_on_the_line_counts_as_negative():
    perceptron = Perceptron(max_epochs=1).fit([[0.0]], [1])
    assert perceptron.mistakes == [1]
    assert perceptron.bias == 1
    assert not perceptron.converged  # it learnt, but no epoch has shown so yet


def test_labels_minus_one_and_one():
    targets = np.where(np.array(OR) == 1, 1, -1)
    perceptron = Perceptron().fit(INPUTS, targets)
    plain = Perceptron().fit(INPUTS, OR)
    assert perceptron.predict(INPUTS).tolist() == targets.tolist()
    assert perceptron.weights.tolist() == plain.weights.tolist()
    assert perceptron.bias == plain.bias


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32])
def test_kinds_of_labels(kind):
    perceptron = Perceptron().fit(INPUTS.astype(np.float32), np.array(AND, kind))
    assert perceptron.converged
    assert perceptron.predict(INPUTS).dtype == np.int64


def test_wide_gap_in_many_dimensions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 10))
    normal = rng.normal(size=10)
    x = x[np.abs(x @ normal) > 1]
    y = (x @ normal > 0).astype(int)
    perceptron = Perceptron(1000).fit(x, y)
    assert perceptron.converged
    np.testing.assert_array_equal(perceptron.predict(x), y)


def test_fit_starts_afresh_and_leaves_its_inputs_alone():
    x, y = INPUTS.astype(float), np.array(OR)
    copies = x.copy(), y.copy()
    perceptron = Perceptron().fit(INPUTS, XOR).fit(x, y)
    assert perceptron.weights.tolist() == Perceptron().fit(x, y).weights.tolist()
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([0, 1], [0, 1], r"expected x of shape \(N, features\), got \(2,\)"),
        (np.zeros((0, 2)), [], r"expected x of shape \(N, features\), got \(0, 2\)"),
        (np.zeros((2, 0)), [0, 1], r"expected x of shape \(N, features\), got \(2, 0\)"),
        ([[0, 1], [1]], [0, 1], "expected x to be numbers"),
        ([["a"]], [0], "expected x to be numbers"),
        ([[np.nan]], [0], "expected finite x, got NaN or infinity"),
        ([[np.inf]], [0], "expected finite x, got NaN or infinity"),
        (INPUTS, [0, 1], r"expected y of shape \(4,\), got \(2,\)"),
        (INPUTS, [[0], [1], [1], [1]], r"expected y of shape \(4,\), got \(4, 1\)"),
        (INPUTS, [0, 1, 2, 3], r"expected labels 0 and 1, or -1 and 1, got \[0, 1, 2, 3\]"),
        (INPUTS, [-1, 0, 1, 1], "expected labels 0 and 1, or -1 and 1"),
        (INPUTS, [0, 1, 0.5, 1], "expected labels 0 and 1, or -1 and 1"),
        (INPUTS, [0, 1, np.nan, 1], "expected labels 0 and 1, or -1 and 1"),
        (INPUTS, ["no", "yes", "no", "yes"], "expected labels 0 and 1, or -1 and 1"),
    ],
)
def test_bad_input_to_fit(x, y, message):
    with pytest.raises(ValueError, match=f"Perceptron.fit: {message}"):
        Perceptron().fit(x, y)


def test_bad_input_to_predict():
    with pytest.raises(RuntimeError, match="call fit first"):
        Perceptron().predict(INPUTS)
    perceptron = Perceptron().fit(INPUTS, OR)
    with pytest.raises(ValueError, match=r"expected x of shape \(N, 2\), got \(1, 3\)"):
        perceptron.predict([[1, 2, 3]])
    with pytest.raises(ValueError, match=r"Perceptron.predict: expected finite x"):
        perceptron.predict([[1, np.nan]])


@pytest.mark.parametrize("max_epochs", [0, -1])
def test_bad_limit(max_epochs):
    with pytest.raises(ValueError, match="expected max_epochs of at least 1"):
        Perceptron(max_epochs)


@pytest.mark.parametrize("max_epochs", [1.5, True, "10", None])
def test_limit_of_a_wrong_type(max_epochs):
    with pytest.raises(TypeError, match="expected max_epochs to be an int"):
        Perceptron(max_epochs)


@pytest.mark.parametrize("learning_rate", [0, -1, np.nan, np.inf])
def test_bad_learning_rate(learning_rate):
    with pytest.raises(ValueError, match="expected a learning_rate above 0"):
        Perceptron(learning_rate=learning_rate)


def test_repr_before_training():
    assert repr(Perceptron(5, 0.5)) == "Perceptron(max_epochs=5, learning_rate=0.5): not trained"
