"""Sequential and functional models: how they are built, asked, written and read."""

from __future__ import annotations

import os
import pickle
import re
import stat

import numpy as np
import pytest

import convkit
from convkit import Input, Model, Sequential, layers, ops
from convkit.models import lenet


def small() -> Sequential:
    return Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )


# ---- Sequential --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["Input", "input_shape", "build", "call", "predict", "fit"])
def test_a_sequential_model_is_built_once_it_knows_its_inputs_shape(way):
    head = [layers.Conv2D(3, 3, **({"input_shape": (8, 8, 1)} if way == "input_shape" else {}))]
    if way == "Input":
        head.insert(0, Input((8, 8, 1)))
    model = Sequential([*head, layers.Flatten(), layers.Dense(2)])
    x = np.zeros((3, 8, 8, 1), np.float32)
    if way in ("build", "call", "predict", "fit"):
        assert not model.built
        with pytest.raises(ValueError, match="input shape is not known"):
            model.summary()
    if way == "build":
        model.build((None, 8, 8, 1))
    elif way == "call":
        model(x)
    elif way == "predict":
        model.predict(x)
    elif way == "fit":
        model.compile("sgd", "mse", metrics=["accuracy"])
        model.fit(x, np.zeros((3, 2)), verbose=0)
    assert model.built
    assert model.output_shape == (None, 2)
    assert model.input_shape[1:] == (8, 8, 1)
    assert model.count_params() == 3 * 9 + 3 + 108 * 2 + 2
    assert len(model.layers) == 3


def test_layers_can_be_added_and_popped():
    model = Sequential()
    model.add(Input((4,)))
    model.add(layers.Dense(3))
    model.add(layers.Dense(2))
    kernel = model.layers[0].get_weights()[0]
    assert model.output_shape == (None, 2)
    assert model.predict(np.ones((1, 4))).shape == (1, 2)
    assert isinstance(model.pop(), layers.Dense)
    assert model.output_shape == (None, 3)
    np.testing.assert_array_equal(model.predict(np.eye(4)), kernel)
    model.add(layers.Activation("softmax"))
    np.testing.assert_allclose(model.predict(np.ones((1, 4))).sum(), 1, rtol=1e-6)
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "Activation"]


def test_a_layer_that_does_not_fit_is_not_added():
    model = Sequential([Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="shape"):
        model.add(layers.Conv2D(2, 3))
    assert len(model.layers) == 1
    assert model.predict(np.ones((1, 4))).shape == (1, 3)
    model.add(layers.Dense(2))
    assert model.output_shape == (None, 2)


def test_what_sequential_does_not_take():
    with pytest.raises(TypeError, match="expected a layer, got 3"):
        Sequential([3])
    with pytest.raises(TypeError, match="expected a layer"):
        Sequential([layers.Dense])
    with pytest.raises(ValueError, match="only at the beginning"):
        Sequential([layers.Dense(2), Input((4,))])
    with pytest.raises(ValueError, match="twice"):
        Sequential([layers.Dense(2, name="a"), layers.Dense(2, name="a")])
    with pytest.raises(ValueError, match="at least one layer"):
        Sequential().pop()
    for empty in (Sequential(), Sequential([Input((4,))])):
        with pytest.raises(ValueError, match=r"predict: expected .*layer"):
            empty.predict(np.zeros((1, 4)))


def test_an_input_shape_on_later_layers_is_taken_as_the_deck_writes_it():
    model = Sequential([layers.Dense(3, input_shape=(4,)), layers.Dense(2, input_shape=(3,))])
    assert model.output_shape == (None, 2)


def test_a_model_inside_a_model_shares_its_weights(rng):
    inner = Sequential([Input((4,)), layers.Dense(3, activation="tanh")])
    outer = Sequential([Input((4,)), inner, layers.Dense(2)])
    x = rng.normal(size=(5, 4)).astype(np.float32)
    expected = outer.layers[1](inner.predict(x))
    np.testing.assert_allclose(outer.predict(x), expected, rtol=1e-6)
    assert outer.count_params() == inner.count_params() + 8
    before = inner.get_weights()[0]
    outer.compile("sgd", "mse")
    outer.fit(x, np.ones((5, 2)), verbose=0)
    assert not np.array_equal(inner.get_weights()[0], before)


# ---- the functional model ----------------------------------------------------------------------


def test_branches_meet(rng):
    x = Input((6,))
    a = layers.Dense(4, activation="tanh")(x)
    b = layers.Dense(4, activation="sigmoid")(x)
    y = layers.Concatenate()([layers.Add()([a, b]), a])
    model = Model(x, y)
    given = rng.normal(size=(5, 6)).astype(np.float32)
    one, two = (layer(given) for layer in model.layers if isinstance(layer, layers.Dense))
    expected = np.concatenate([one + two, one], axis=1)
    np.testing.assert_array_equal(model.predict(given), expected)
    np.testing.assert_array_equal(model(given), expected)


def test_a_shared_layer_counts_once_and_learns_from_both_places():
    x = Input((1,))
    twice = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = Model(x, twice(twice(x)))
    assert len(model.trainable_weights) == 1
    assert model.count_params() == 1
    model.compile(convkit.optimizers.SGD(0.125), "mse")
    model.train_on_batch(np.array([[1.0]]), np.array([[0.0]]))
    # y = w^2, loss = y^2, d(loss)/dw = 4 w^3 = 4
    np.testing.assert_array_equal(model.get_weights()[0], [[0.5]])


def test_a_part_of_a_model_is_a_model(rng):
    model = lenet()
    x = rng.random((2, 28, 28, 1), dtype=np.float32)
    maps = Model(model.inputs, model.layers[1](model.layers[0](model.inputs)))
    assert maps.output_shape == (None, 14, 14, 6)
    expected = model.layers[1](model.layers[0](x))
    np.testing.assert_array_equal(maps.predict(x), expected)
    head = Sequential(model.layers[:2])
    head.build((None, 28, 28, 1))
    np.testing.assert_array_equal(head.predict(x), expected)


def test_models_that_change_nothing_give_copies(rng):
    x = rng.normal(size=(3, 4)).astype(np.float32)
    symbol = Input((4,))
    for model in (
        Model(symbol, symbol),
        Sequential([Input((4,)), layers.Activation("linear")]),
        Sequential([Input((4,)), layers.Reshape((2, 2)), layers.Flatten()]),
        Sequential([Input((4,)), layers.Dropout(0.5)]),
    ):
        y = model.predict(x)
        np.testing.assert_array_equal(y, x)
        assert not np.shares_memory(x, y)


def test_a_functional_model_is_named_so_and_begins_with_its_input():
    x = Input((4,), name="pixels")
    dense = layers.Dense(2)
    model = Model(x, dense(x))
    assert re.fullmatch(r"functional(_\d+)?", model.name)
    assert [layer.name for layer in model.layers] == ["pixels", dense.name]
    assert isinstance(model.layers[0], layers.InputLayer)
    assert model.layers[0].output is x
    assert (model.input_shape, model.output_shape) == ((None, 4), (None, 2))
    assert Model(x, model.outputs, name="mine").name == "mine"


def test_what_a_functional_model_does_not_take():
    x, other = Input((4,)), Input((4,))
    y = layers.Dense(2)(x)
    with pytest.raises(TypeError, match=r"inputs to be symbols \(one, a list or a dictionary\)"):
        Model(None, y)
    with pytest.raises(TypeError, match=r"outputs to be symbols \(one, a list or a dictionary\)"):
        Model(x, np.zeros(3))
    with pytest.raises(TypeError, match="inputs to be symbols"):
        Model([x, None], y)
    with pytest.raises(ValueError, match="follow from all inputs, got none from input 1"):
        Model([x, other], y)
    with pytest.raises(ValueError, match="follow from inputs"):
        Model(other, y)
    with pytest.raises(ValueError, match="follow from inputs"):
        Model(x, layers.Add()([y, layers.Dense(2)(other)]))
    with pytest.raises(ValueError, match="made by layers"):
        Model(x, ops.relu(y))


def test_get_layer_by_name_and_by_index():
    model = Sequential([Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")])
    assert model.get_layer("b") is model.layers[1]
    assert model.get_layer(index=0) is model.layers[0]
    with pytest.raises(ValueError, match="one of a, b, got 'c'"):
        model.get_layer("c")
    with pytest.raises(ValueError, match="a name or an index"):
        model.get_layer()


# ---- predict -----------------------------------------------------------------------------------


def test_predict_does_not_depend_on_the_batch_size(rng):
    model = lenet()
    x = rng.random((23, 28, 28, 1), dtype=np.float32)
    expected = model.predict(x, batch_size=23).tobytes()
    for batch in (1, 2, 7, 16, 22, 1000, None):
        assert model.predict(x, batch_size=batch).tobytes() == expected
    singles = b"".join(model.predict(x[i : i + 1]).tobytes() for i in range(23))
    assert singles == model(x).tobytes()
    np.testing.assert_allclose(np.frombuffer(expected, np.float32), model(x).ravel(), rtol=1e-5)


def test_predict_takes_any_real_dtype_and_no_samples(rng):
    model = small()
    x = rng.integers(0, 2, (5, 8, 8, 1))
    expected = model.predict(x.astype(np.float32)).tobytes()
    for kind in ("uint8", "bool", "int64", "float64", "float16", ">f4"):
        assert model.predict(x.astype(kind)).tobytes() == expected
    assert model.predict(x.tolist()).tobytes() == expected
    nothing = model.predict(np.zeros((0, 8, 8, 1), np.float32))
    assert nothing.shape == (0, 4)
    assert nothing.dtype == np.float32


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((8, 8, 1)), r"predict: expected x of shape \(N, 8, 8, 1\), got \(8, 8, 1\)"),
        (np.zeros((2, 8, 8)), r"got \(2, 8, 8\)"),
        (np.zeros((2, 9, 8, 1)), r"got \(2, 9, 8, 1\)"),
        (np.array(["a"]), "real numbers"),
        (np.zeros((2, 8, 8, 1), complex), "real numbers"),
        (None, "predict: expected x"),
    ],
)
def test_predict_of_what_does_not_fit_is_an_error(x, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small().predict(x)


def test_a_wrong_call_leaves_the_model_as_it_was():
    model = small()
    expected = model.predict(np.ones((2, 8, 8, 1)))
    with pytest.raises(ValueError, match="dense: expected"):
        model(np.zeros((2, 12, 12, 1), np.float32))
    np.testing.assert_array_equal(model.predict(np.ones((2, 8, 8, 1))), expected)


def test_predictions_follow_the_weights(rng):
    model = small()
    x = rng.random((3, 8, 8, 1), dtype=np.float32)
    first = model.predict(x)
    model.set_weights([w + 1 for w in model.get_weights()])
    assert not np.array_equal(model.predict(x), first)
    np.testing.assert_array_equal(model.predict(x), model(x))


# ---- the zoo -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "size", "count"),
    [("modern", 28, 61_706), ("1998", 32, 61_706), ("caffe", 28, 431_080)],
)
def test_lenets_have_the_known_number_of_parameters(variant, size, count):
    model = lenet(variant)
    assert model.count_params() == count
    assert sum(w.size for w in model.get_weights()) == count
    p = model.predict(np.random.default_rng(0).random((2, size, size, 1)))
    assert p.shape == (2, 10)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)


def test_lenet_with_other_classes_and_unknown_variants():
    assert lenet(classes=26).output_shape == (None, 26)
    with pytest.raises(ValueError, match="'modern', '1998', 'caffe', got '2024'"):
        lenet("2024")


# ---- summary -----------------------------------------------------------------------------------


def test_the_summary_lists_layers_shapes_and_parameters(capsys):
    model = lenet()
    model.layers[0].trainable = False
    model.summary()
    text = capsys.readouterr().out
    for line in (
        'Model: "lenet"',
        "Layer (type)",
        "(None, 28, 28, 6)",
        "(None, 400)",
        "48,120",
        "Total params: 61,706 (241.04 KB)",
        "Trainable params: 61,550 (240.43 KB)",
        "Non-trainable params: 156 (624.00 B)",
    ):
        assert line in text
    table = [line for line in text.splitlines() if line and line[0] in "┌│├└"]
    assert len({len(line) for line in table}) == 1  # the borders meet
    assert sum("(Conv2D)" in line for line in table) == 2
    kept = []
    model.summary(print_fn=kept.append)
    assert "".join(kept) == text.rstrip("\n")


# ---- weights on disk ---------------------------------------------------------------------------


def test_weights_go_to_a_file_and_back(tmp_path, rng):
    model = small()
    path = tmp_path / "weights.safetensors"
    model.save_weights(path)
    x = rng.random((3, 8, 8, 1), dtype=np.float32)
    other = small()
    assert not np.array_equal(other.predict(x), model.predict(x))
    other.load_weights(str(path))
    assert other.predict(x).tobytes() == model.predict(x).tobytes()
    # The file is one that other programs read.
    from safetensors.numpy import load_file

    stored = load_file(path)
    assert sorted(a.shape for a in stored.values()) == sorted(w.shape for w in model.get_weights())


def test_a_file_of_weights_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    model = small()
    path = tmp_path / "weights"
    model.save_weights(path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    model.set_weights([w + 1 for w in model.get_weights()])

    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        model.save_weights(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["weights"]
    monkeypatch.undo()
    model.save_weights(path)
    assert path.read_bytes() != before


def other_shapes() -> Sequential:
    return Sequential([Input((4,)), layers.Dense(3), layers.Dense(2)])


@pytest.mark.parametrize(
    "content",
    ["other shapes", "fewer layers", "no bias", "text", "empty", "cut off"],
)
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, content):
    model = Sequential([Input((4,)), layers.Dense(3), layers.Dense(5)])
    path = tmp_path / "weights"
    if content == "other shapes":
        other_shapes().save_weights(path)
    elif content == "fewer layers":
        Sequential([Input((4,)), layers.Dense(3)]).save_weights(path)
    elif content == "no bias":
        Sequential([Input((4,)), layers.Dense(3), layers.Dense(5, use_bias=False)]).save_weights(
            path
        )
    elif content == "cut off":
        model.save_weights(path)
        path.write_bytes(path.read_bytes()[:-7])
    else:
        path.write_text("hello" * 100 if content == "text" else "")
    before = [w.tobytes() for w in model.get_weights()]
    with pytest.raises(ValueError, match="load_weights: expected"):
        model.load_weights(path)
    assert [w.tobytes() for w in model.get_weights()] == before


def test_paths_that_are_not_there_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        small().load_weights(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        small().save_weights(tmp_path / "no" / "folder")
    with pytest.raises(ValueError, match="without"):
        Sequential([Input((4,)), layers.Flatten()]).save_weights(tmp_path / "w")
    with pytest.raises(ValueError, match="built"):
        Sequential([layers.Dense(2)]).save_weights(tmp_path / "w")


def test_get_and_set_weights_of_a_model(rng):
    model = small()
    values = [rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights(values)
    for value, weight in zip(values, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, value.astype(np.float32))
    with pytest.raises(ValueError, match="expected 4 weights, got 3"):
        model.set_weights(values[:3])
    weights = pickle.loads(pickle.dumps(model.get_weights()))
    model.set_weights(weights)
