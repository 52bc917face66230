"""Models with several inputs and outputs, of shared layers and of other models: predictions,
losses, gradients, weights of samples, configurations, frozen parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import convkit
from convkit import layers, metrics, models, ops, optimizers, registered, utils
from convkit.layers import Input, Layer
from convkit.models import Model, Sequential
from convkit.models.steps import Evaluation, Prediction, TrainingStep

ROWS = 24  # depth-first where a model chooses for itself; 3 rows are breadth-first
SCHEDULES = pytest.mark.parametrize("depth_first", [False, True], ids=["breadth", "depth"])


@contextmanager
def floats(dtype: str) -> Iterator[None]:
    convkit.config.set_floatx(dtype)
    try:
        yield
    finally:
        convkit.config.set_floatx("float32")


@pytest.fixture
def float64() -> Iterator[None]:
    with floats("float64"):
        yield


# ---- a model of two inputs and two outputs, and the same in NumPy ------------------------------


def two_by_two(form: str = "list") -> Model:
    """Inputs "a" (3,) and "b" (2,), outputs "kind" (4,), a softmax, and "size" (1,)."""
    a, b = Input((3,), name="a"), Input((2,), name="b")
    hidden = layers.Dense(5, activation="tanh", name="hidden")(a)
    both = layers.Concatenate(name="both")([hidden, b])
    kind = layers.Dense(4, activation="softmax", name="kind")(both)
    size = layers.Dense(1, name="size")(both)
    if form == "list":
        return Model([a, b], [kind, size])
    return Model({"first": a, "second": b}, {"class": kind, "length": size})


def random_weights(model: Model, seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.7, weight.shape) for weight in model.weights])


def forward(model: Model, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w = {v.name: v.numpy().astype(np.float64) for v in model.weights}
    hidden = np.tanh(a @ w["hidden/kernel"] + w["hidden/bias"])
    both = np.concatenate([hidden, b], axis=1)
    logits = both @ w["kind/kernel"] + w["kind/bias"]
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    kind = exponentials / exponentials.sum(1, keepdims=True)
    return kind, both @ w["size/kernel"] + w["size/bias"]


def points(rows: int = ROWS, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """([a, b], [labels, sizes])"""
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(rows, 3)), rng.normal(size=(rows, 2))]
    return x, [rng.integers(0, 4, rows), rng.normal(size=(rows, 1))]


def losses_of(model: Model, x: list, y: list) -> tuple[np.ndarray, np.ndarray]:
    """The cross-entropy and the squared error of each row."""
    kind, size = forward(model, *x)
    return -np.log(kind[np.arange(len(kind)), y[0]]), np.square(size - y[1]).mean(1)


LOSSES = ["sparse_categorical_crossentropy", "mse"]


# ---- predictions -------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 3, ROWS])
@pytest.mark.parametrize("form", ["list", "dictionary"])
def test_predictions_of_several_inputs_and_outputs(form, rows):
    model = two_by_two(form)
    random_weights(model)
    (a, b), _ = points(rows)
    expected = forward(model, a, b)
    if form == "list":
        assert model.output_names == ["kind", "size"]
        given = [[a, b], (a, b), {"a": a, "b": b}, {"b": b, "a": a}]
    else:
        assert model.output_names == ["class", "length"]
        given = [{"second": b, "first": a}, [a, b]]
    for x in given:
        found = model.predict(x)
        if form == "dictionary":
            assert list(found) == ["class", "length"]
            found = list(found.values())
        assert isinstance(found, list) and len(found) == 2
        for one, right in zip(found, expected, strict=True):
            assert one.shape == right.shape and one.dtype == np.float32
            np.testing.assert_allclose(one, right, 1e-5, 1e-6)


@SCHEDULES
def test_predictions_by_either_schedule(depth_first, float64):
    model = two_by_two()
    random_weights(model)
    x, _ = points()
    found = Prediction(model, x, depth_first).run(x, 7)
    for one, right in zip(found, forward(model, *x), strict=True):
        np.testing.assert_allclose(one, right, 1e-12)


def test_a_model_is_called_with_arrays_and_with_symbols_in_any_form():
    model = two_by_two()
    (a, b), _ = points(3)
    for x in ([a, b], {"b": b, "a": a}):
        for one, right in zip(model(x), forward(model, a, b), strict=True):
            np.testing.assert_allclose(one, right, 1e-5, 1e-6)
    p, q = Input((3,)), Input((2,))
    outer = Model([q, p], model({"b": q, "a": p}))
    for one, right in zip(outer.predict([b, a]), forward(model, a, b), strict=True):
        np.testing.assert_allclose(one, right, 1e-5, 1e-6)


def test_a_dictionary_of_one_output_stays_one_for_one_row_too():
    x = Input((3,))
    model = Model(x, {"only": layers.Dense(2)(x)})
    for _ in range(3):  # the first call makes the function of one row
        assert list(model.predict(np.zeros((1, 3), np.float32))) == ["only"]


def test_what_a_model_does_not_change_and_what_it_returns_twice():
    x = Input((3,))
    y = layers.Dense(2)(x)
    model = Model(x, [x, y, y, layers.Flatten()(x)])
    assert len(set(model.output_names)) == 4
    for rows in (1, 3, ROWS):
        given = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
        same, one, other, flat = model.predict(given)
        np.testing.assert_array_equal(same, given)
        np.testing.assert_array_equal(flat, given)
        np.testing.assert_array_equal(one, other)
        assert not np.shares_memory(one, other) and not np.shares_memory(same, given)


def test_images_as_bytes_beside_numbers():
    a, b = Input((2, 2, 1)), Input((3,))
    total = layers.Add()([layers.Dense(3, use_bias=False)(layers.Flatten()(a)), b])
    model = Model([a, b], total)
    rng = np.random.default_rng(0)
    for rows in (1, 3, ROWS):
        x = [rng.integers(0, 256, (rows, 2, 2, 1), np.uint8), rng.integers(0, 9, (rows, 3))]
        right = x[0].reshape(rows, 4).astype(float) @ model.weights[0].numpy() + x[1]
        np.testing.assert_allclose(model.predict(x), right, 1e-4, 1e-4)


# ---- losses, weights of losses, metrics --------------------------------------------------------


@pytest.mark.parametrize("rows", [3, ROWS])
def test_logs_of_two_outputs_are_those_of_numpy(rows):
    model = two_by_two()
    model.compile(
        optimizers.SGD(0.0), LOSSES, loss_weights=[0.5, 2.0], metrics=[["accuracy"], ["mae", "mse"]]
    )
    random_weights(model)
    x, y = points(rows)
    (cross, square), (kind, size) = losses_of(model, x, y), forward(model, *x)
    expected = {
        "loss": 0.5 * cross.mean() + 2 * square.mean(),
        "kind_loss": cross.mean(),
        "size_loss": square.mean(),
        "kind_accuracy": (kind.argmax(1) == y[0]).mean(),
        "size_mae": np.abs(size - y[1]).mean(),
        "size_mse": square.mean(),
    }
    assert model.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
    # The order of Keras: the loss, those of the outputs, metrics.
    assert model.evaluate(x, y, verbose=0) == pytest.approx(list(expected.values()), rel=1e-5)
    history = model.fit(x, y, batch_size=7, epochs=2, verbose=0, validation_data=(x, y)).history
    for name, value in expected.items():
        assert history[name] == pytest.approx([value] * 2, rel=1e-5)
        assert history[f"val_{name}"] == pytest.approx([value] * 2, rel=1e-5)
    assert len(history) == 2 * len(expected)
    assert model.train_on_batch(x, y) == pytest.approx(list(expected.values()), rel=1e-5)
    found = model.test_on_batch(x, y, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)


def test_dictionaries_by_the_outputs_names_mean_the_same_as_lists():
    x, y = points()
    found = []
    for form in ("list", "dictionary"):
        model = two_by_two(form)
        names = model.output_names

        def by_name(values: list, form=form, names=names) -> Any:
            return values if form == "list" else dict(zip(names[::-1], values[::-1], strict=True))

        model.compile(
            "sgd",
            by_name(LOSSES),
            loss_weights=by_name([0.5, 2.0]),
            metrics=by_name([["accuracy"], ["mae"]]),
        )
        random_weights(model)
        given = {"first": x[0], "second": x[1]} if form == "dictionary" else x
        history = model.fit(given, by_name(y), epochs=2, shuffle=False, verbose=0).history
        assert list(history) == [
            f"{names[0]}_loss",
            f"{names[1]}_loss",
            f"{names[0]}_accuracy",
            f"{names[1]}_mae",
            "loss",
        ]
        found.append((list(history.values()), model.get_weights()))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_loss_serves_all_outputs_and_so_does_a_list_of_metrics():
    x = Input((3,))
    model = Model(x, [layers.Dense(2, name="p")(x), layers.Dense(2, name="q")(x)])
    model.compile("sgd", "mse", metrics=["mae"])
    given, y = np.ones((4, 3)), np.zeros((4, 2))
    logs = model.evaluate(given, [y, y], verbose=0, return_dict=True)
    assert list(logs) == ["p_loss", "q_loss", "p_mae", "q_mae", "loss"]
    p, q = model.predict(given)
    assert logs["loss"] == pytest.approx((p**2).mean() + (q**2).mean(), rel=1e-5)
    assert logs["q_mae"] == pytest.approx(np.abs(q).mean(), rel=1e-5)


def test_metrics_of_outputs_keep_their_own_state():
    model = two_by_two()
    shown = metrics.SparseCategoricalAccuracy("right")
    model.compile("sgd", LOSSES, metrics={"kind": [shown]})
    x, y = points()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert list(logs) == ["kind_loss", "size_loss", "kind_right", "loss"]
    assert shown.result() == logs["kind_right"]


def test_an_output_without_a_loss_needs_no_targets_and_its_weights_stay():
    x, y = points()
    model = two_by_two()
    random_weights(model)
    model.compile(optimizers.Adam(0.1), {"kind": LOSSES[0]}, metrics={"kind": ["accuracy"]})
    before = {v.name: v.numpy() for v in model.weights}
    for targets in ({"kind": y[0]}, [y[0], None]):
        history = model.fit(x, targets, verbose=0).history
        assert set(history) == {"loss", "kind_loss", "kind_accuracy"}
    after = {v.name: v.numpy() for v in model.weights}
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {"hidden/kernel", "hidden/bias", "kind/kernel", "kind/bias"}
    assert model.evaluate(x, {"kind": y[0]}, verbose=0)[0] > 0


def test_weights_that_the_loss_does_not_depend_on_stay_and_are_named():
    backbone, x = two_by_two(), points()[0]
    p, q = Input((3,)), Input((2,))
    model = Model([p, q], layers.Dense(1, name="after")(backbone([p, q])[0]))
    model.compile(optimizers.Adam(0.1), "mse")
    before = backbone.get_layer("size").get_weights()
    with pytest.warns(UserWarning, match="fit: the loss does not depend on size/kernel, size/bias"):
        model.fit(x, np.zeros((ROWS, 1)), verbose=0)
    np.testing.assert_equal(backbone.get_layer("size").get_weights(), before)


def test_names_of_outputs_of_a_layer_that_stands_twice():
    x, y = Input((3,)), Input((3,))
    dense = layers.Dense(1, name="dense_1")
    model = Model([x, y], [layers.Dense(1, name="dense")(x), dense(x), dense(y)])
    assert model.output_names == ["dense", "dense_1", "dense_1_1"]
    twice = layers.Dense(1, name="dense")
    model = Model([x, y], [layers.Dense(1, name="dense_1")(x), twice(x), twice(y)])
    assert len(set(model.output_names)) == 3


# ---- gradients ---------------------------------------------------------------------------------


def assert_gradients(model: Model, arrays: Any, depth_first: bool) -> None:
    """One step of descent at a rate of 1 takes the gradient away, that finite differences give."""
    start = [v.numpy() for v in model.weights]
    step = TrainingStep(model, arrays, model.optimizer, depth_first)
    if depth_first:
        assert any(one.tiled for one in step.program.steps)
    rows = len(arrays.x[0])
    with step.on(arrays, np.arange(rows)):
        step.program.run(0, rows, rows)
    found = [before - v.numpy() for before, v in zip(start, model.weights, strict=True)]
    model.set_weights(start)
    evaluation = Evaluation(model, arrays, False)
    rng = np.random.default_rng(0)
    for variable, gradient in zip(model.weights, found, strict=True):
        flat = variable.value.reshape(-1)
        for i in rng.permutation(flat.size)[:6]:
            here, h = flat[i], 1e-6
            values = []
            for place in (here + h, here - h):
                flat[i] = place
                values.append(evaluation.run(arrays, rows)["loss"])
            flat[i] = here
            right = (values[0] - values[1]) / (2 * h)
            assert gradient.reshape(-1)[i] == pytest.approx(right, rel=1e-5, abs=1e-8)


@SCHEDULES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss_weights", [None, [0.3, 1.7]])
def test_gradients_of_two_outputs(depth_first, weighted, loss_weights, float64):
    model = two_by_two()
    random_weights(model)
    model.compile(optimizers.SGD(1.0), LOSSES, loss_weights=loss_weights)
    x, y = points(19)
    weights = np.random.default_rng(2).uniform(0, 3, 19) if weighted else None
    assert_gradients(model, model._arrays("fit", x, y, weights), depth_first)


@SCHEDULES
def test_gradients_of_images_and_numbers_through_shared_layers_and_models(depth_first, float64):
    picture, facts = Input((8, 8, 2)), Input((3,))
    conv = layers.Conv2D(2, 3, padding="same", activation="tanh")
    inner_x = Input((8, 8, 2))
    inner = Model(inner_x, [conv(conv(inner_x)), layers.GlobalAveragePooling2D()(inner_x)])
    features, mean = inner(picture)
    flat = layers.Flatten()(layers.MaxPooling2D(2)(conv(features)))
    both = layers.Concatenate()([flat, mean, facts])
    model = Model(
        {"picture": picture, "facts": facts},
        {
            "kind": layers.Dense(4, activation="softmax")(both),
            "map": layers.Conv2D(1, 1, activation="sigmoid")(features),
            "sum": layers.Dense(2)(layers.Dropout(0.0)(both)),
        },
    )
    random_weights(model)
    model.compile(
        optimizers.SGD(1.0),
        {"kind": "categorical_crossentropy", "map": "bce", "sum": "mse"},
        loss_weights={"map": 3.0},
    )
    rng = np.random.default_rng(3)
    x = {"picture": rng.normal(size=(18, 8, 8, 2)), "facts": rng.normal(size=(18, 3))}
    y = {
        "kind": np.eye(4)[rng.integers(0, 4, 18)],
        "map": rng.integers(0, 2, (18, 8, 8, 1)),
        "sum": rng.normal(size=(18, 2)),
    }
    arrays = model._arrays("fit", x, y, {"map": rng.uniform(0, 2, (18, 8, 8))})
    assert_gradients(model, arrays, depth_first)


@SCHEDULES
def test_both_schedules_train_the_same(depth_first):
    x, y = points(50)
    model = two_by_two()
    random_weights(model)
    model.compile(optimizers.SGD(0.1), LOSSES, loss_weights=[1.0, 0.5], metrics=["accuracy", "mae"])
    arrays = model._arrays("fit", x, y, np.linspace(0, 2, 50))
    step = TrainingStep(model, arrays, model.optimizer, depth_first)
    kernels = [one.kernel for one in step.program.steps]
    assert "sparse_softmax_crossentropy" in kernels or not depth_first
    order = np.random.default_rng(1).permutation(50)
    step.scores.reset()
    with step.on(arrays, order):
        step.program.run(0, 50, 16)
    with floats("float64"):
        exact = two_by_two()
    random_weights(exact)
    exact.compile(optimizers.SGD(0.1), LOSSES, loss_weights=[1.0, 0.5], metrics=["accuracy", "mae"])
    for start in range(0, 50, 16):
        rows = order[start : start + 16]
        exact.train_on_batch(
            [a[rows] for a in x], [a[rows] for a in y], np.linspace(0, 2, 50)[rows]
        )
    for one, right in zip(model.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_allclose(one, right, 1e-4, 1e-5)


# ---- layers that stand in several places -------------------------------------------------------


def test_a_shared_layer_has_one_set_of_weights_and_the_sum_of_gradients(float64):
    a, b = Input((3,)), Input((3,))
    shared = layers.Dense(1, use_bias=False)
    model = Model([a, b], layers.Add()([shared(a), shared(b)]))
    assert len(model.weights) == 1 and len(model.layers) == 4
    shared.set_weights([np.array([[1.0], [2.0], [3.0]])])
    model.compile(optimizers.SGD(0.5), "mse")
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), rng.normal(size=(9, 1))
    start = shared.kernel.numpy()
    error = (x + y) @ start - z
    model.train_on_batch([x, y], z)
    gradient = (x + y).T @ error * 2 / 9
    np.testing.assert_allclose(shared.kernel.numpy(), start - 0.5 * gradient, 1e-12)


def test_a_model_in_a_model_has_its_weights():
    inner = two_by_two()
    p, q = Input((3,)), Input((2,))
    kind, size = inner([p, q])
    total = layers.Dense(1, name="total")(layers.Concatenate()([kind, size]))
    outer = Model([p, q], [total, size])
    assert outer.output_names == ["total", inner.name]
    assert outer.layers[2] is inner and len(outer.weights) == len(inner.weights) + 2
    x, y = points()
    kind_, size_ = forward(inner, *x)
    weights = [w.numpy() for w in outer.get_layer("total").weights]
    right = np.concatenate([kind_, size_], 1) @ weights[0] + weights[1]
    found = outer.predict(x)
    np.testing.assert_allclose(found[0], right, 1e-5, 1e-5)
    np.testing.assert_allclose(found[1], size_, 1e-5, 1e-5)
    before = inner.get_weights()
    outer.compile("sgd", "mse")
    outer.fit(x, [y[1], y[1]], verbose=0)
    changed = [(a != b).any() for a, b in zip(before, inner.get_weights(), strict=True)]
    assert all(changed)
    for one, right in zip(inner.predict(x), forward(inner, *x), strict=True):
        np.testing.assert_allclose(one, right, 1e-5, 1e-5)
    text: list[str] = []
    outer.summary(print_fn=text.append)
    assert inner.name in text[0] and f"{outer.count_params():,}" in text[0]


def test_a_model_twice_in_a_model_is_shared():
    branch = Sequential([Input((3,)), layers.Dense(4, activation="tanh"), layers.Dense(2)])
    a, b = Input((3,)), Input((3,))
    model = Model([a, b], layers.Add()([branch(a), branch(b)]))
    assert len(model.weights) == 4
    x, y = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(
        model.predict([x, y]), branch.predict(x) + branch.predict(y), 1e-5, 1e-6
    )


def test_models_of_what_lies_between():
    model = two_by_two()
    random_weights(model)
    x, _ = points()
    kind, size = model.predict(x)
    hidden, both = model.get_layer("hidden"), model.get_layer("both")
    features = Model(model.inputs, [hidden.output, both.output, model.outputs[0]])
    found = features.predict(x)
    np.testing.assert_allclose(found[1][:, :5], found[0], 1e-6)
    np.testing.assert_allclose(found[1][:, 5:], x[1], 1e-6)
    np.testing.assert_array_equal(found[2], kind)
    assert features.get_layer("hidden") is hidden
    first = Model(model.inputs[0], model.symbol_of(hidden))
    np.testing.assert_allclose(first.predict(x[0]), found[0], 1e-6)
    # And from there to the outputs.
    rest = Model(both.output, model.outputs)
    for one, right in zip(rest.predict(found[1]), (kind, size), strict=True):
        np.testing.assert_allclose(one, right, 1e-5, 1e-6)
    assert [layer.name for layer in rest.layers] == ["kind", "size"]


# ---- configurations ----------------------------------------------------------------------------


def nested() -> Model:
    inner = two_by_two("dictionary")
    inner.get_layer("hidden").trainable = False
    p, q = Input((3,), name="p"), Input((2,), name="q")
    made = inner({"second": q, "first": p})
    return Model([p, q], {"out": layers.Add()([made["length"], layers.Dense(1)(made["class"])])})


def shared() -> Model:
    a, b = Input((3,)), Input((3,))
    dense = layers.Dense(3, activation="relu", kernel_initializer="he_normal")
    return Model([b, a], [layers.Concatenate()([dense(dense(a)), b]), dense(b)], name="mine")


def frozen() -> Model:
    model = Sequential([Input((3,), name="x"), layers.Dense(4), layers.Dense(2)])
    model.layers[0].trainable = False
    return model


def from_within() -> Model:
    model = two_by_two()
    return Model(model.get_layer("both").output, model.outputs)


def sequential_in_sequential() -> Model:
    return Sequential(
        [
            layers.Conv2D(2, 3, input_shape=(6, 6, 1)),
            Sequential([layers.Flatten(), layers.Dense(3)]),
        ]
    )


MAKERS: list[Callable[[], Model]] = [
    two_by_two,
    lambda: two_by_two("dictionary"),
    nested,
    shared,
    frozen,
    from_within,
    sequential_in_sequential,
    lambda: models.lenet(),
]


def some_inputs(model: Model) -> Any:
    rng = np.random.default_rng(0)
    shapes = model.input_shape

    def one(shape: tuple) -> np.ndarray:
        return rng.normal(size=(4, *shape[1:])).astype(np.float32)

    if isinstance(shapes, dict):
        return {name: one(shape) for name, shape in shapes.items()}
    return [one(shape) for shape in shapes] if isinstance(shapes, list) else one(shapes)


def names_of_layers(model: Model) -> list[str]:
    """What lies between layers is a model's input, and its copy's an input layer."""
    return [layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)]


@pytest.mark.parametrize("copy", ["config", "clone"])
@pytest.mark.parametrize("make", MAKERS)
def test_a_model_of_a_configuration_is_like_the_first(make, copy):
    model = make()
    if copy == "clone":
        other = models.clone_model(model)
    else:
        other = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert type(other) is type(model) and other.name == model.name
    assert other.get_config() == model.get_config()
    assert names_of_layers(other) == names_of_layers(model)
    assert other.input_shape == model.input_shape and other.output_shape == model.output_shape
    assert other.output_names == model.output_names
    for kind in ("weights", "trainable_weights", "non_trainable_weights"):
        mine, its = getattr(model, kind), getattr(other, kind)
        assert [v.name for v in mine] == [v.name for v in its]
        assert [v.shape for v in mine] == [v.shape for v in its]
        assert not {id(v) for v in mine} & {id(v) for v in its}
    x = some_inputs(model)
    random_weights(model)
    other.set_weights(model.get_weights())
    mine, its = model.predict(x), other.predict(x)
    assert type(mine) is type(its)
    if isinstance(mine, dict):
        assert list(mine) == list(its)
        mine, its = list(mine.values()), list(its.values())
    np.testing.assert_equal(mine, its)


def test_a_clone_trains_apart():
    model = two_by_two()
    other = models.clone_model(model)
    before = model.get_weights()
    other.compile("sgd", LOSSES)
    other.fit(*points(), verbose=0)
    np.testing.assert_equal(model.get_weights(), before)
    assert model.optimizer is None


def test_a_configuration_of_a_class_that_is_not_known():
    class Unknown(Layer):
        def call(self, x):
            return ops.add(x, x)

    model = Sequential([Input((3,)), Unknown()])
    with pytest.raises(ValueError, match="got 'Unknown'; if it is one of your own, register"):
        Sequential.from_config(model.get_config())


# ---- weights of samples and of classes ---------------------------------------------------------


def gradient_steps(model: Model, x: Any, y: Any, **options: Any) -> tuple[float, list[np.ndarray]]:
    """The loss of one batch, and how the weights changed at a rate of 1."""
    before = model.get_weights()
    loss = model.train_on_batch(x, y, **options)
    after = model.get_weights()
    return loss, [b - a for a, b in zip(after, before, strict=True)]


@pytest.mark.parametrize("rows", [3, ROWS])
def test_sample_weights_are_factors_of_losses(rows, float64):
    model = Sequential([Input((2,)), layers.Dense(2)])
    model.compile(optimizers.SGD(1.0), "mse", metrics=["mae"])
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(rows, 2)), rng.normal(size=(rows, 2)), rng.uniform(0, 5, rows)
    w[0] = 0
    for weights in (w, w[:, None], w.astype(np.float32), (w * 8).astype(np.int32), list(w)):
        kernel, bias = model.get_weights()
        error = x @ kernel + bias - y
        factors = np.asarray(weights, np.float64).reshape(-1)
        loss = (factors * np.square(error).mean(1)).mean()
        # Metrics are not weighted.
        scores = [loss, np.abs(error).mean()]
        found = model.evaluate(x, y, sample_weight=weights, verbose=0)
        assert found == pytest.approx(scores, rel=1e-6)
        (found, _), (dkernel, dbias) = gradient_steps(model, x, y, sample_weight=weights)
        assert found == pytest.approx(loss, rel=1e-6)
        slope = factors[:, None] * error / rows
        np.testing.assert_allclose(dkernel, x.T @ slope, 1e-6, 1e-9)
        np.testing.assert_allclose(dbias, slope.sum(0), 1e-6, 1e-9)
        model.set_weights([kernel, bias])


@pytest.mark.parametrize("rows", [2, ROWS])
@pytest.mark.parametrize("each", [False, True], ids=["a sample", "a pixel"])
def test_sample_weights_of_images(rows, each, float64):
    model = Sequential([Input((3, 5, 2)), layers.Conv2D(4, 1)])
    model.compile("sgd", "mae")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 3, 5, 2)), rng.normal(size=(rows, 3, 5, 4))
    w = rng.uniform(0, 5, (rows, 3, 5) if each else rows)
    values = np.abs(model.predict(x) - y).mean(-1)
    right = (values * (w if each else w[:, None, None])).mean()
    assert model.test_on_batch(x, y, sample_weight=w) == pytest.approx(right, rel=1e-12)


def test_sample_weights_that_a_loss_has_no_use_for():
    model = Sequential([Input((3, 5, 2)), layers.Conv2D(2, 1, activation="sigmoid")])
    model.compile("sgd", convkit.losses.Dice(axis=(1, 2, 3)))
    x, y = np.zeros((2, 3, 5, 2)), np.ones((2, 3, 5, 2))
    model.evaluate(x, y, sample_weight=np.ones(2), verbose=0)
    with pytest.raises(ValueError, match=r"expected one number for each sample.*, got 15"):
        model.evaluate(x, y, sample_weight=np.ones((2, 3, 5)), verbose=0)


@SCHEDULES
def test_sample_weights_go_with_their_rows(depth_first, float64):
    """In an order that is not that of memory, and in a last batch that is smaller."""
    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile(optimizers.SGD(0.0), "mse")
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(20, 2)), rng.normal(size=(20, 1)), rng.uniform(0, 5, 20)
    arrays = model._arrays("fit", x, y, w)
    step = TrainingStep(model, arrays, model.optimizer, depth_first)
    order = rng.permutation(20)[:13]
    step.scores.reset()
    with step.on(arrays, order):
        step.program.run(0, 13, 8)
    right = (w * np.square(model.predict(x) - y)[:, 0])[order].mean()
    assert step.scores.logs()["loss"] == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("form", ["labels", "column", "one-hot", "binary"])
def test_class_weights_are_factors_of_the_samples_of_a_class(form, float64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    labels = rng.integers(0, 2 if form == "binary" else 4, ROWS)
    units = 1 if form == "binary" else 4
    activation = "sigmoid" if form == "binary" else "softmax"
    model = Sequential([Input((3,)), layers.Dense(units, activation=activation)])
    loss = {"one-hot": "categorical_crossentropy", "binary": "bce"}.get(form, LOSSES[0])
    model.compile(optimizers.SGD(0.0), loss)
    y = {"column": labels[:, None], "one-hot": np.eye(4)[labels]}.get(form, labels)
    class_weight = {0: 3.0, 1: 0.25}
    factors = np.array([3.0, 0.25, 1.0, 1.0])[labels]
    predicted = model.predict(x)
    if form == "binary":
        predicted = np.concatenate([1 - predicted, predicted], 1)
    rows = -np.log(predicted[np.arange(ROWS), labels])
    right = (factors * rows).mean()
    assert model.train_on_batch(x, y, class_weight=class_weight) == pytest.approx(right, rel=1e-9)
    # Beside weights of samples it is the product.
    w = rng.uniform(0, 2, ROWS)
    found = model.train_on_batch(x, y, sample_weight=w, class_weight=class_weight)
    assert found == pytest.approx((w * factors * rows).mean(), rel=1e-6)
    history = model.fit(x, y, verbose=0, class_weight=class_weight, validation_split=0.25).history
    cut = ROWS * 3 // 4
    assert history["loss"] == [pytest.approx((factors * rows)[:cut].mean(), rel=1e-9)]
    # Validation is not weighted by classes, as in Keras.
    assert history["val_loss"] == [pytest.approx(rows[cut:].mean(), rel=1e-9)]


def test_weights_of_samples_for_each_output(float64):
    model = two_by_two()
    model.compile(optimizers.SGD(0.0), LOSSES)
    x, y = points()
    cross, square = losses_of(model, x, y)
    rng = np.random.default_rng(0)
    v, w = rng.uniform(0, 2, (2, ROWS))
    cases = [(w, w, w), ([v, w], v, w), ([None, w], 1, w), ({"kind": v}, v, 1)]
    for given, for_kind, for_size in cases:
        right = {"kind_loss": (cross * for_kind).mean(), "size_loss": (square * for_size).mean()}
        right["loss"] = sum(right.values())
        logs = model.evaluate(x, y, sample_weight=given, verbose=0, return_dict=True)
        assert logs == pytest.approx(right, rel=1e-9)
        history = model.fit(
            x, y, sample_weight=given, validation_data=(x, y, given), verbose=0, batch_size=9
        ).history
        for name, value in right.items():
            for found in (history[name], history[f"val_{name}"]):
                assert found == [pytest.approx(value, rel=1e-9)]


def test_several_arrays_are_split_for_validation(float64):
    model = two_by_two()
    model.compile(optimizers.SGD(0.0), LOSSES)
    x, y = points()
    w = np.linspace(0, 1, ROWS)
    cross, square = (w * values for values in losses_of(model, x, y))
    history = model.fit(x, y, sample_weight=w, validation_split=0.25, verbose=0).history
    right = (cross + square)[:18].mean(), (cross + square)[18:].mean()
    assert history["loss"] == [pytest.approx(right[0], rel=1e-9)]
    assert history["val_loss"] == [pytest.approx(right[1], rel=1e-9)]
    # Rows in a list are rows.
    single = Sequential([Input((3,)), layers.Dense(1)])
    single.compile("sgd", "mse")
    single.fit(list(x[0]), list(y[1]), validation_split=0.5, verbose=0)


# ---- layers of one's own -----------------------------------------------------------------------


class Penalised(Layer):
    """Adds factor * mean(x ** 2) of each row to the loss."""

    def __init__(self, factor: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        self.add_loss(ops.rescale(ops.mean_squared_error(ops.subtract(x, x), x), self.factor))
        return x


class Block(Layer):
    """Layers in attributes, in a list and in a dictionary."""

    def __init__(self, units: int, rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.rate = units, rate
        self.first = layers.Dense(units, activation="tanh")
        self.more = [layers.Dense(units), layers.Dropout(rate, seed=1)]
        self.named = {"last": layers.Dense(units, use_bias=False)}

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight("scale", (self.units,), "ones")

    def call(self, x: Any) -> Any:
        x = self.first(x)
        for layer in self.more:
            x = layer(x)
        return ops.multiply(self.named["last"](x), self.scale)


@pytest.mark.parametrize("rows", [3, ROWS])
def test_losses_that_layers_add(rows, float64):
    model = Sequential([Input((2,)), layers.Dense(3), Penalised(0.5), layers.Dense(1)])
    model.compile(optimizers.SGD(1.0), "mse")
    random_weights(model)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 2)), rng.normal(size=(rows, 1))
    k, b, k2, b2 = model.get_weights()
    hidden = x @ k + b
    error = hidden @ k2 + b2 - y
    right = np.square(error).mean() + 0.5 * np.square(hidden).mean()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(right, rel=1e-9)
    loss, (dk, *_) = gradient_steps(model, x, y)
    assert loss == pytest.approx(right, rel=1e-9)
    dhidden = 2 * error @ k2.T / rows + hidden / hidden.size
    np.testing.assert_allclose(dk, x.T @ dhidden, 1e-9)
    # On arrays, and in predictions, it is the layer alone.
    np.testing.assert_array_equal(Penalised()(x), x)
    np.testing.assert_allclose(model.predict(x), model(x), 1e-12)


@pytest.mark.parametrize("rows", [3, ROWS])
@pytest.mark.parametrize("name", ["l1", "l2", "l1_l2"])
def test_activity_regularizers(rows, name, float64):
    regularizer = {
        "l1": convkit.regularizers.L1(0.1),
        "l2": convkit.regularizers.L2(0.2),
        "l1_l2": convkit.regularizers.L1L2(0.1, 0.2),
    }[name]
    model = Sequential([Input((2,)), layers.Dense(3, activity_regularizer=regularizer)])
    model.compile(optimizers.SGD(1.0), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 2)), rng.normal(size=(rows, 3))
    out = model.predict(x)
    l1, l2 = regularizer.l1, regularizer.l2
    # As in Keras the sum over a batch is divided by its number of samples.
    right = np.square(out - y).mean() + (l1 * np.abs(out).sum() + l2 * np.square(out).sum()) / rows
    assert model.evaluate(x, y, verbose=0) == pytest.approx(right, rel=1e-9)
    loss, (dkernel, _) = gradient_steps(model, x, y)
    assert loss == pytest.approx(right, rel=1e-9)
    slope = 2 * (out - y) / out.size + (l1 * np.sign(out) + 2 * l2 * out) / rows
    np.testing.assert_allclose(dkernel, x.T @ slope, 1e-9)


def test_a_layer_of_layers_has_their_weights():
    block = Block(4, name="block")
    x = Input((3,))
    model = Model(x, layers.Dense(1, name="end")(block(x)))
    names = [v.name.split("/")[1] for v in block.weights]
    assert names == ["scale", "kernel", "bias", "kernel", "bias", "kernel"]
    assert [v.shape for v in block.weights] == [(4,), (3, 4), (4,), (4, 4), (4,), (4, 4)]
    assert len(model.weights) == 8 and model.count_params() == 4 + 16 + 20 + 16 + 5
    assert block.sublayers == [block.first, *block.more, *block.named.values()]
    given = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    np.testing.assert_allclose(model.predict(given), model(given), 1e-5, 1e-6)
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(given, np.ones((ROWS, 1)), verbose=0)
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    block.trainable = False
    assert [v.name for v in model.trainable_weights] == ["end/kernel", "end/bias"]
    assert not block.first.trainable and len(block.non_trainable_weights) == 6
    assert [v.shape for v in block.ordered_weights()] == [v.shape for v in block.weights]
    block.trainable = True
    assert len(model.trainable_weights) == 8


def test_layers_of_a_layer_know_whether_it_is_training():
    """A layer that does not ask for `training` passes it on to those that it calls."""
    block = Block(64, rate=0.5)
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    block(x)
    block.named["last"].set_weights([np.eye(64)])
    assert not (block(x) == 0).any()
    share = (block(x, training=True) == 0).mean()
    assert 0.4 < share < 0.6
    model = Sequential([Input((64,)), block])
    model.compile(optimizers.SGD(0.0), "mse")
    predicted = model.predict(x)
    without = np.square(predicted).mean()
    assert model.evaluate(x, np.zeros_like(x), verbose=0) == pytest.approx(without, rel=1e-5)
    trained = [model.train_on_batch(x, np.zeros_like(x)) for _ in range(2)]
    assert trained[0] != trained[1] and min(trained) > 1.2 * without
    assert model.states and not (model.predict(x) == 0).any()


def test_a_layer_that_is_built_by_hand_is_not_built_again():
    block = Block(4)
    block.build((None, 3))
    scale = block.scale
    assert block.built
    model = Sequential([Input((3,)), block])
    assert block.scale is scale and len(model.weights) == 6


def test_a_layer_that_is_part_of_two_others_counts_once():
    class Holder(Layer):
        def __init__(self, *held: Layer, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.held = list(held)

        def call(self, x: Any) -> Any:
            for layer in self.held:
                x = layer(x)
            return x

    dense = layers.Dense(3)
    outer = Holder(Holder(dense), Holder(dense), dense)
    model = Sequential([Input((3,)), outer])
    assert len(model.weights) == len(outer.weights) == len(outer.get_weights()) == 2
    assert outer.count_params() == 12


def test_configurations_of_layers_of_ones_own():
    models.register(Block)
    models.register(Penalised)
    try:
        x = Input((3,))
        model = Model(x, Penalised(0.25)(Block(4, rate=0.5, name="block", trainable=False)(x)))
        other = models.clone_model(model)
        assert other.get_layer("block").rate == 0.5 and other.layers[-1].factor == 0.25
        assert not other.get_layer("block").trainable and not other.trainable_weights
        other.set_weights(model.get_weights())
        given = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(model.predict(given), other.predict(given))
    finally:
        registered._things.pop("Block")
        registered._things.pop("Penalised")


def test_a_layer_with_several_inputs_and_outputs():
    class Both(Layer):
        def call(self, x: Any) -> Any:
            return {"sum": ops.add(x["a"], x["b"]), "product": ops.multiply(x["a"], x["b"])}

    a, b = Input((3,), name="a"), Input((3,), name="b")
    made = Both()({"a": a, "b": b})
    model = Model([a, b], [made["product"], layers.Flatten()(made["sum"])])
    x, y = np.random.default_rng(0).normal(size=(2, ROWS, 3)).astype(np.float32)
    product, total = model.predict([x, y])
    np.testing.assert_array_equal(product, x * y)
    np.testing.assert_array_equal(total, x + y)
    found = Both()({"a": x, "b": y})
    np.testing.assert_array_equal(found["sum"], x + y)


# ---- frozen parts ------------------------------------------------------------------------------


def test_frozen_layers_and_models_stay_as_they_are():
    x, y = points()
    inner = two_by_two()
    p, q = Input((3,)), Input((2,))
    kind, size = inner([p, q])
    outer = Model([p, q], [kind, layers.Dense(1, name="after")(size)])
    outer.compile(optimizers.Adam(0.1), LOSSES)

    def changed() -> set[str]:
        before = {v.name: v.numpy() for v in outer.weights}
        outer.fit(x, y, verbose=0)
        return {v.name for v in outer.weights if (before[v.name] != v.numpy()).any()}

    names = {v.name for v in outer.weights}
    assert changed() == names
    inner.get_layer("hidden").trainable = False
    assert changed() == names - {"hidden/kernel", "hidden/bias"}
    inner.trainable = False
    assert not inner.trainable_weights and len(inner.non_trainable_weights) == 6
    assert changed() == {"after/kernel", "after/bias"}
    outer.trainable = False
    assert not outer.get_layer("after").trainable
    assert changed() == set()
    outer.trainable = True
    assert inner.get_layer("hidden").trainable
    assert changed() == names
    assert len(outer.get_weights()) == len(names)  # in the same order, frozen or not


def test_the_order_of_weights_does_not_depend_on_what_is_frozen():
    model = two_by_two()
    before = [v.name for v in model.ordered_weights()]
    model.get_layer("both").trainable = model.get_layer("hidden").trainable = False
    assert [v.name for v in model.ordered_weights()] == before
    assert {v.name for v in model.weights} == set(before)
    assert [v.name for v in model.trainable_weights] == before[2:]


# ---- other devices -----------------------------------------------------------------------------


def pictures_and_facts() -> Model:
    utils.set_random_seed(3)
    picture, facts = Input((8, 8, 1), name="picture"), Input((3,), name="facts")
    conv = layers.Conv2D(3, 3, activation="relu")(picture)
    flat = layers.Flatten()(layers.MaxPooling2D(2)(conv))
    both = layers.Concatenate()([layers.Dense(6, activation="tanh")(flat), facts])
    model = Model(
        [picture, facts],
        [
            layers.Dense(5, activation="softmax", name="kind")(layers.Dropout(0.2)(both)),
            layers.Dense(1, name="size", activity_regularizer="l2")(both),
        ],
    )
    model.compile(
        optimizers.SGD(0.1), LOSSES, loss_weights=[1.0, 0.5], metrics=[["accuracy"], ["mae"]]
    )
    return model


@pytest.mark.parametrize("weighted", [False, True])
def test_a_model_of_two_inputs_and_outputs_anywhere(place, weighted):
    rng = np.random.default_rng(5)
    x = [rng.integers(0, 256, (37, 8, 8, 1), np.uint8), rng.random((37, 3), np.float32)]
    y = [rng.integers(0, 5, 37), rng.random((37, 1), np.float32)]
    weights = rng.uniform(0, 2, 37) if weighted else None
    here, there = pictures_and_facts(), pictures_and_facts()
    if place is not None:
        there.to("cuda")
    for model in (here, there):
        model.get_layer("kind").set_weights(
            [w * 0.1 for w in model.get_layer("kind").get_weights()]
        )
    logs = []
    for model in (here, there):
        utils.set_random_seed(1)
        options = {"batch_size": 8, "epochs": 2, "verbose": 0, "sample_weight": weights}
        history = model.fit(x, y, validation_data=(x, y), **options).history
        history["evaluated"] = model.evaluate(x, y, verbose=0, sample_weight=weights)
        history["batch"] = model.train_on_batch(x, y, sample_weight=weights)
        logs.append(history)
    assert logs[0].keys() == logs[1].keys()
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, 2e-4, 1e-5, err_msg=name)
    for one, other in zip(here.get_weights(), there.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, 1e-3, 1e-4)
    for rows in (1, 37):
        given = [array[:rows] for array in x]
        for one, other in zip(here.predict(given), there.predict(given), strict=True):
            assert other.shape == one.shape and isinstance(other, np.ndarray)
            np.testing.assert_allclose(other, one, 1e-3, 1e-4)


def test_an_output_without_a_loss_anywhere(place):
    x, y = points()
    found = []
    for there in (None, place):
        model = two_by_two()
        random_weights(model)
        model.compile(optimizers.SGD(0.1, momentum=0.5), {"kind": LOSSES[0]})
        model.fit(
            x, {"kind": y[0]}, verbose=0, shuffle=False, device="cpu" if there is None else "cuda"
        )
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, 1e-4, 1e-5)


# ---- what goes wrong ---------------------------------------------------------------------------


def trained_with(y: Any = None, x: Any = None, **options: Any) -> Callable[[], Any]:
    def run() -> Any:
        model = two_by_two()
        model.compile("sgd", options.pop("loss", LOSSES), **options.pop("compiled", {}))
        right_x, right_y = points(6)
        model.fit(right_x if x is None else x, right_y if y is None else y, verbose=0, **options)

    return run


def compiled_with(**options: Any) -> Callable[[], Any]:
    return lambda: two_by_two().compile("sgd", **{"loss": LOSSES, **options})


A, B = np.zeros((6, 3)), np.zeros((6, 2))
KIND, SIZE = np.zeros(6, int), np.zeros((6, 1))


def returns(value: Any) -> Callable[[], Any]:
    class Odd(Layer):
        def call(self, x: Any) -> Any:
            return value

    return lambda: Odd(name="odd")(Input((2,)))


def linked(make: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    def run() -> Any:
        x = Input((2,), name="x")
        return make(x, layers.Dense(1, name="dense")(x))

    return run


def class_weighted(value: Any, y: Any = KIND, **options: Any) -> Callable[[], Any]:
    def run() -> Any:
        units, loss = (4, LOSSES[0]) if y is KIND else (2, "mse")
        model = Sequential([Input((3,)), layers.Dense(units)])
        model.compile("sgd", loss)
        model.fit(A, y, class_weight=value, verbose=0, **options)

    return run


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # Graphs.
    (linked(lambda x, y: Model(x, [y, [y]])), TypeError, "Model: expected outputs to be symbols"),
    (linked(lambda x, y: Model({"x": [x]}, y)), TypeError, "Model: expected inputs to be symbols"),
    (
        linked(lambda x, y: Model([x, x], y)),
        ValueError,
        "inputs that differ, got one of them twice",
    ),
    (linked(lambda x, y: Model(x, [])), TypeError, "expected outputs to be symbols"),
    (
        linked(lambda x, y: Model([x, Input((1,))], y)),
        ValueError,
        "outputs that follow from all inputs, got none from input 1",
    ),
    (
        linked(lambda x, y: Model([x, Input((2,), name="x")], layers.Add()([x, y]))),
        ValueError,
        "Model: expected",
    ),
    (lambda: two_by_two()([Input((3,))]), ValueError, "expected 2 inputs, got 1"),
    (lambda: two_by_two()({"a": A, "c": B}), ValueError, "expected inputs for a, b, got a, c"),
    (lambda: layers.Add()([Input((2,)), B]), TypeError, "expected symbols or arrays, got both"),
    (returns(None), TypeError, "odd: expected call to make its result .*, got NoneType"),
    (returns(1.0), TypeError, "odd: expected call to make its result .*, got float"),
    (lambda: two_by_two().compiled(), ValueError, "a model with one input, got 2 in a list"),
    (lambda: two_by_two().symbol_of(layers.Dense(1)), ValueError, "a layer that this model calls"),
    (lambda: models.clone_model(layers.Dense(1)), TypeError, "clone_model: expected a model"),
    # x.
    (lambda: two_by_two().predict(A), ValueError, "x as a list of 2 arrays, got ndarray"),
    (lambda: two_by_two().predict([A]), ValueError, "x as a list of 2 arrays, got 1"),
    (lambda: two_by_two().predict([A, B, B]), ValueError, "x as a list of 2 arrays, got 3"),
    (lambda: two_by_two().predict({"a": A}), ValueError, "predict: expected x for a, b, got a"),
    (lambda: two_by_two().predict([B, A]), ValueError, r"x 'a' of shape \(N, 3\), got \(6, 2\)"),
    (lambda: two_by_two().predict([A, None]), TypeError, "x 'b' to hold real numbers"),
    (
        lambda: two_by_two().predict([A, B[:5]]),
        ValueError,
        r"x 'b' with as many rows .*\(6\), got 5",
    ),
    # y.
    (trained_with([KIND]), ValueError, "fit: expected y as a list of 2 arrays, got 1"),
    (trained_with(KIND), ValueError, "fit: expected y as a list of 2 arrays, got ndarray"),
    (trained_with({"kind": KIND}), ValueError, "y for the output 'size', as there is a loss, got"),
    (trained_with([KIND, None]), ValueError, "y for the output 'size', as there is a loss, got"),
    (trained_with({"kind": KIND, "no": SIZE}), ValueError, "y for kind, size, got kind, no"),
    (trained_with([KIND, SIZE[:4]]), ValueError, r"y with as many rows as x \(6\), got 4"),
    (trained_with([KIND + 4, SIZE]), ValueError, "y between 0 and 3, got the label 4"),
    # Weights of samples and classes.
    (trained_with(sample_weight=np.ones(5)), ValueError, r"sample_weight of shape \(6,\)"),
    (trained_with(sample_weight=np.ones((6, 2))), ValueError, r"sample_weight of shape \(6,\)"),
    (trained_with(sample_weight=[np.ones(6)]), ValueError, "sample_weight as a list of 2 arrays"),
    (trained_with(sample_weight={"no": A}), ValueError, "sample_weight for kind, size, got no"),
    (trained_with(sample_weight=["a"] * 2), TypeError, "sample_weight to hold real numbers"),
    (trained_with(class_weight={0: 1.0}), ValueError, "class_weight for a model with one output"),
    (class_weighted([1.0]), TypeError, r"class_weight to be a dictionary, got \[1.0\]"),
    (class_weighted({-1: 1.0}), ValueError, "fit: expected a class to be at least 0, got -1"),
    (class_weighted({0: -1.0}), ValueError, "fit: expected 0 <= class_weight < inf, got -1.0"),
    (class_weighted({"a": 1.0}), TypeError, "fit: expected a class to be an integer, got 'a'"),
    (class_weighted({0: 2.0}, sample_weight=np.ones(5)), ValueError, r"shape \(6,\)"),
    # What compile is told.
    (compiled_with(loss=["mse"]), ValueError, "compile: expected loss for 2 outputs, got 1"),
    (compiled_with(loss={"no": "mse"}), ValueError, "loss for outputs among kind, size, got no"),
    (compiled_with(loss_weights=[1]), ValueError, "loss_weights for 2 outputs, got 1"),
    (
        compiled_with(loss_weights=2.0),
        ValueError,
        "loss_weights as a list or a dictionary, got 2.0",
    ),
    (
        compiled_with(loss_weights={"no": 1}),
        ValueError,
        "loss_weights for outputs among kind, size",
    ),
    (compiled_with(loss_weights=["a", 1]), TypeError, "loss_weights"),
    (compiled_with(metrics={"no": ["mae"]}), ValueError, "metrics for outputs among kind, size"),
    (compiled_with(metrics="mae"), TypeError, "compile: expected a list of metrics, got 'mae'"),
    (compiled_with(metrics=[["mae"], ["mae"]]), ValueError, "a metric on labels"),
    (
        compiled_with(loss={"kind": LOSSES[0]}, metrics={"size": ["mae"]}),
        ValueError,
        "metrics for outputs with a loss, as size has none",
    ),
    (lambda: fit_with(PenaltyOnWeights()), TypeError, "odd: expected add_loss to be given what"),
    (trained_with(loss=[None, None]), ValueError, "fit: expected a loss, got compile"),
    (
        linked(
            lambda x, y: class_of_unused(x, y),
        ),
        ValueError,
        "fit: expected the loss to depend on odd/unused",
    ),
]


def class_of_unused(x: Any, y: Any) -> None:
    class Odd(Layer):
        def build(self, input_shape: Any) -> None:
            self.add_weight("unused", (2,))

        def call(self, x: Any) -> Any:
            return ops.add(x, x)

    model = Model(x, Odd(name="odd")(x))
    model.compile("sgd", "mse")
    model.fit(np.zeros((3, 2)), np.zeros((3, 2)), verbose=0)


class PenaltyOnWeights(Layer):
    def __init__(self) -> None:
        super().__init__(name="odd")

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight("factor", (2,))

    def call(self, x: Any) -> Any:
        self.add_loss(ops.square(self.factor))
        return ops.multiply(x, self.factor)


def fit_with(layer: Layer) -> None:
    model = Sequential([Input((2,)), layer])
    model.compile("sgd", "mse")
    model.fit(np.zeros((3, 2)), np.zeros((3, 2)), verbose=0)


@pytest.mark.parametrize(
    ("run", "exception", "message"), BAD, ids=[f"{i}-{one[2]}" for i, one in enumerate(BAD)]
)
def test_what_is_wrong_is_said(run, exception, message):
    with pytest.raises(exception) as caught:
        run()
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
