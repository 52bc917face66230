"""Models as functions of arrays: `Model.compiled`, and `predict` on one sample."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import convkit
from convkit import Input, Model, Sequential, _core, config, layers, ops
from convkit.graph import Symbol
from convkit.models import CompiledModel, lenet
from convkit.models.steps import Prediction
from convkit.program import Program, gather


def branches() -> Model:
    """Values that live long, are added and concatenated, grow and shrink."""
    x = Input((12, 10, 3))
    a = layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    b = layers.Conv2D(8, 5, padding="same", dilation_rate=2)(x)
    y = layers.Add()([a, b])
    y = layers.Concatenate()([layers.AveragePooling2D(2)(y), layers.MaxPooling2D(2)(a)])
    y = layers.UpSampling2D(2)(layers.Dropout(0.5)(y))
    y = layers.Concatenate()([y, x])
    y = layers.Conv2D(4, 3, strides=2, activation="leaky_relu")(y)
    return Model(x, layers.Dense(7, activation="sigmoid")(layers.Flatten()(y)))


def shared() -> Model:
    """One layer twice, and a result that is not the last node's only reader."""
    x = Input((6,))
    dense = layers.Dense(6, activation="relu")
    return Model(x, layers.Add()([dense(dense(x)), x]))


def nothing() -> Model:
    x = Input((5, 2))
    return Model(x, layers.Flatten()(x))


MODELS = {
    "lenet": lenet,
    "lenet 1998": lambda: lenet("1998"),
    "lenet caffe": lambda: lenet("caffe"),
    "branches": branches,
    "shared": shared,
    "nothing": nothing,
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    convkit.utils.set_random_seed(3)
    return MODELS[request.param]()


def inputs(model: Model, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *model.input_shape[1:])).astype(model.dtype)


def predicted(model: Model, x: np.ndarray) -> np.ndarray:
    """What predict gives for few samples at a time, which run breadth-first as compiled does."""
    return np.concatenate([model.predict(x[i : i + 5]) for i in range(0, len(x), 5)])


# ---- what it returns -----------------------------------------------------------------------------


def test_many_samples_are_predicted_as_few_are(backend, model):
    x = inputs(model, 21)
    limit = 1e-5 if model.dtype == "float32" else 1e-12
    np.testing.assert_allclose(model.predict(x), predicted(model, x), rtol=limit, atol=limit)


@pytest.mark.parametrize("batch", [1, 5])
def test_it_returns_what_predict_returns(backend, model, batch):
    compiled = model.compiled(batch)
    assert isinstance(compiled, CompiledModel)
    assert compiled.input_shape == (batch, *model.input_shape[1:])
    assert compiled.output_shape == (batch, *model.output_shape[1:])
    assert compiled.dtype == model.dtype
    x = inputs(model, 40)
    expected = predicted(model, x)
    for at in range(0, len(x), batch):
        np.testing.assert_array_equal(compiled(x[at : at + batch]), expected[at : at + batch])


def test_many_samples_at_once_are_what_predict_returns(backend, model):
    compiled = model.compiled(40)
    x = inputs(model, 33)
    for n in (0, 1, 10, 11, 33):
        expected = model.predict(x[:n])
        np.testing.assert_array_equal(compiled(x[:n]), expected)
        out = np.empty_like(expected)
        assert compiled(x[:n], out) is out
        np.testing.assert_array_equal(out, expected)


def test_large_images_are_what_predict_returns(backend):
    model = Sequential([convkit.layers.Conv2D(24, 3, activation="relu", input_shape=(72, 72, 1))])
    assert 16 * model.sample_bytes() > 6 << 20
    compiled = model.compiled(25)
    x = inputs(model, 25)
    for n in (11, 17, 23, 24, 25):
        np.testing.assert_array_equal(compiled(x[:n]), model.predict(x[:n]))


def test_predict_on_one_sample_has_the_bits_of_a_batch(backend, model):
    x = inputs(model, 5)
    expected = model.predict(x)
    for i in range(len(x)):
        np.testing.assert_array_equal(model.predict(x[i : i + 1]), expected[i : i + 1])
        np.testing.assert_array_equal(
            model.predict(x[i : i + 1], batch_size=1), expected[i : i + 1]
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_kernels_have_the_bits_of_the_layers_one_by_one(backend, dtype):
    config.set_floatx(dtype)
    try:
        model = lenet()
    finally:
        config.set_floatx("float32")
    x = inputs(model, 3)
    (w1, b1), (w2, b2), *dense = (
        [weight.numpy() for weight in layer.weights] for layer in model.layers if layer.weights
    )
    y = ops.max_pool2d(ops.relu(ops.conv2d(x, w1, b1, padding="same")), 2)
    y = ops.max_pool2d(ops.relu(ops.conv2d(y, w2, b2)), 2).reshape(3, -1)
    for weight, bias in dense[:-1]:
        y = ops.relu(ops.dense(y, weight, bias))
    y = ops.softmax(ops.dense(y, *dense[-1]))
    np.testing.assert_array_equal(model.compiled(3)(x), y)


def test_float64():
    config.set_floatx("float64")
    try:
        model = branches()
    finally:
        config.set_floatx("float32")
    values = inputs(model, 3)
    assert values.dtype == np.float64
    compiled = model.compiled(3)
    result = compiled(values)
    assert result.dtype == np.float64 and compiled.dtype == "float64"
    np.testing.assert_array_equal(result, model.predict(values))


@pytest.mark.parametrize("n", [0, 1, 3, 4])
def test_it_takes_up_to_a_batch(n):
    model = lenet()
    x = inputs(model, n)
    result = model.compiled(4)(x)
    assert result.shape == (n, 10)
    np.testing.assert_array_equal(result, model.predict(x))


def test_each_call_has_an_array_of_its_own():
    model = lenet()
    compiled = model.compiled()
    x = inputs(model, 2)
    first, second = compiled(x[:1]), compiled(x[1:])
    assert not np.may_share_memory(first, second)
    np.testing.assert_array_equal(first, compiled(x[:1]))
    first[:] = 0
    assert compiled(x[:1]).sum() > 0.99
    assert not np.may_share_memory(model.predict(x[:1]), model.predict(x[:1]))


def test_numbers_that_are_not_finite_stay():
    model = lenet()
    x = inputs(model, 1)
    x[0, 3, 4] = np.nan
    assert np.isnan(model.compiled()(x)).all() and np.isnan(model.predict(x)).all()


# ---- what it takes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: (x * 40).astype(np.uint8),
        lambda x: (x * 40).astype(np.int64),
        lambda x: x > 0,
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">f4"),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.tolist(),
        lambda x: np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    ],
    ids=[
        "uint8",
        "int64",
        "bool",
        "float64",
        "float16",
        "big-endian",
        "fortran",
        "strided",
        "list",
        "unaligned",
    ],
)
def test_other_arrays_are_converted(convert):
    model = branches()
    x = convert(abs(inputs(model, 2)))
    expected = model.predict(np.asarray(x, np.float32))
    before = np.array(x)
    np.testing.assert_array_equal(model.compiled(2)(x), expected)
    np.testing.assert_array_equal(model.predict(x[:1]), expected[:1])
    np.testing.assert_array_equal(before, x)


def test_arrays_that_may_not_be_written_to_are_read():
    model = lenet()
    x = inputs(model, 1)
    x.flags.writeable = False
    np.testing.assert_array_equal(model.compiled()(x), model.predict(x))


class Marked(np.ndarray):
    pass


def test_subclasses_are_read_as_arrays():
    model = lenet()
    x = inputs(model, 1)
    result = model.compiled()(x.view(Marked))
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, model.predict(x))


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (2, 28, 28, 1), (1, 28, 28), (1, 28, 28, 3), (1, 784), ()]
)
def test_other_shapes_are_refused(shape):
    compiled = lenet().compiled()
    with pytest.raises(ValueError, match=r"^compiled: expected x ") as error:
        compiled(np.zeros(shape, np.float32))
    if shape:
        assert str(error.value) == f"compiled: expected x of shape (1, 28, 28, 1), got {shape}"


def test_more_than_a_batch_is_refused():
    compiled = lenet().compiled(8)
    expected = r"expected x of shape \(N, 28, 28, 1\), N up to 8, got \(9, 28, 28, 1\)"
    with pytest.raises(ValueError, match=expected):
        compiled(np.zeros((9, 28, 28, 1), np.float32))


@pytest.mark.parametrize("x", [np.zeros((1, 28, 28, 1), complex), np.array([["a"]]), None])
def test_other_types_are_refused(x):
    with pytest.raises(TypeError, match=r"^compiled: expected x to hold real numbers"):
        lenet().compiled()(x)


@pytest.mark.parametrize("batch", [0, -1, 1.5, "1", True])
def test_batch_sizes_are_whole_numbers_from_1(batch):
    with pytest.raises((ValueError, TypeError), match=r"^compiled: expected batch_size"):
        lenet().compiled(batch)


def test_predict_still_looks_at_its_arguments_after_one_image():
    model = lenet()
    x = inputs(model, 1)
    model.predict(x)
    with pytest.raises(ValueError, match=r"^predict: expected batch_size"):
        model.predict(x, batch_size=0)
    with pytest.raises(ValueError, match=r"^predict: expected x of shape \(N, 28, 28, 1\)"):
        model.predict(x[0])


def test_a_model_without_a_shape_cannot_be_compiled():
    with pytest.raises(ValueError, match=r"^compiled: expected a built model"):
        Sequential([layers.Dense(2)]).compiled()


# ---- out -----------------------------------------------------------------------------------------


def test_out_is_written_to_and_returned():
    model = lenet()
    compiled = model.compiled(2)
    x = inputs(model, 2)
    expected = model.predict(x)
    out = np.full((2, 10), -1, np.float32)
    assert compiled(x, out) is out
    np.testing.assert_array_equal(out, expected)
    out[:] = -1
    assert compiled(x[:1], out=out[:1]).base is out
    np.testing.assert_array_equal(out[0], expected[0])
    assert (out[1] == -1).all()
    wide = np.full((2, 20), -1, np.float32)
    part = wide[:, ::2]
    assert compiled(x.astype(np.float64), part) is part
    np.testing.assert_array_equal(part, expected)
    assert (wide[:, 1::2] == -1).all()


def test_out_may_share_memory_with_x():
    model = shared()
    x = inputs(model, 3)
    expected = model.predict(x)
    assert model.compiled(3)(x, x) is x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        (np.zeros((2, 10), np.float32), r"out of shape \(1, 10\), got \(2, 10\)"),
        (np.zeros((1, 10)), "out of dtype float32, got float64"),
        (np.zeros((1, 10), np.float32).tolist(), "out to be a NumPy array, got list"),
        (np.broadcast_to(np.float32(0), (1, 10)), "out to be writable"),
    ],
)
def test_other_outs_are_refused(out, expected):
    model = lenet()
    with pytest.raises((ValueError, TypeError), match=f"^compiled: expected {expected}"):
        model.compiled()(inputs(model, 1), out)


# ---- the model lives on --------------------------------------------------------------------------


def test_weights_are_the_models_own(tmp_path):
    model = lenet()
    x = inputs(model, 64)
    compiled = model.compiled()
    model.save_weights(tmp_path / "weights.safetensors")
    before = compiled(x[:1])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(64) % 10, batch_size=16, verbose=0)
    after = compiled(x[:1])
    assert (before != after).any()
    np.testing.assert_array_equal(after, model.predict(x[:1]))
    model.load_weights(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(compiled(x[:1]), before)
    np.testing.assert_array_equal(model.predict(x[:1]), before)
    model.weights[-1].value[0] += 100
    assert compiled(x[:1]).argmax() == model.predict(x[:1]).argmax() == 0


def test_a_changed_model_predicts_anew():
    model = Sequential([Input((4,)), layers.Dense(3)])
    x = inputs(model, 1)
    before = model.compiled()
    assert model.predict(x).shape == model.predict(x).shape == (1, 3)
    model.add(layers.Dense(2))
    assert model.predict(x).shape == model.predict(x).shape == (1, 2)
    assert model.compiled()(x).shape == (1, 2)
    assert before(x).shape == (1, 3)


def test_it_outlives_the_model_and_then_goes():
    model = lenet()
    x = inputs(model, 1)
    expected = model.predict(x)
    compiled = model.compiled()
    weights = weakref.ref(model.weights[0].value)
    del model
    gc.collect()
    np.testing.assert_array_equal(compiled(x), expected)
    assert weights() is not None
    del compiled
    gc.collect()
    assert weights() is None


# ---- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["brief", "long"])
def test_threads_may_call_it_at_the_same_time(size):
    batch = 1 if size == "brief" else 48  # long enough to let the other threads run meanwhile
    model = lenet()
    compiled = model.compiled(batch)
    x = inputs(model, 8 * batch).reshape(8, batch, 28, 28, 1)
    expected = np.stack([model.predict(images) for images in x])
    start = threading.Barrier(4)

    def work(seed: int) -> bool:
        start.wait()
        order = np.random.default_rng(seed).integers(0, 8, 60)
        return all(np.array_equal(compiled(x[i]), expected[i]) for i in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_the_number_of_threads_does_not_show(threads):
    model = lenet("caffe")
    x = inputs(model, 40)
    compiled = model.compiled(40)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        results.append(compiled(x))
    assert all(np.array_equal(result, results[0]) for result in results)


# ---- what can be prepared ------------------------------------------------------------------------


def test_one_image_is_predicted_without_a_program_run(monkeypatch):
    model = lenet()
    images = (abs(inputs(model, 1)) * 90).astype(np.uint8)
    expected = model.compiled()(images)
    monkeypatch.setattr(Program, "run", None)
    for image in (images, images.astype(np.float32), images.astype(np.float32)):
        np.testing.assert_array_equal(model.predict(image), expected)


def test_programs_with_more_than_one_input_are_refused():
    x, index = Symbol((None, 3), "float32", place="source"), Symbol((None,), "int64", place="fed")
    y = gather(x, index, "float32")
    program = Program("float32", results=[y])
    with pytest.raises(ValueError, match="expected"):
        program.prepared(index, y, y.shape, 1)


def test_the_function_itself_takes_nothing_else():
    prediction = Prediction(lenet(), [np.zeros((1, 28, 28, 1), np.float32)], False)
    x = np.zeros((1, 28, 28, 1), np.float32)
    function = prediction.prepared(1)
    assert isinstance(function, _core.Prepared)
    for other in (x[0], x.astype(np.float64), x.T, x.tolist(), None, np.repeat(x, 2, 0)):
        assert function(other, None) is None
    assert function(x, np.zeros((1, 11), np.float32)) is None
    with pytest.raises(TypeError):
        function(x)
    with pytest.raises(TypeError):
        function(x, out=None)
    with pytest.raises(TypeError):
        _core.Prepared()
