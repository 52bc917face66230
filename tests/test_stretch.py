"""Depth-first programs by blocks of threads on a device: they are what the processor makes."""

from __future__ import annotations

import numpy as np
import pytest
from checkers import assert_within, gamma
from devices import DEVICES, EMULATED, emulator
from test_planner import MODELS, conv_pool_dense, data, dropout_mlp, shared_layer

import convkit
from convkit import _core, layers
from convkit.graph import SOURCE_TYPES
from convkit.models import Model, Sequential
from convkit.models.steps import Evaluation, Prediction, TrainingStep

pytestmark = pytest.mark.skipif(not DEVICES, reason="no device")
needs_emulator = pytest.mark.skipif(EMULATED is None, reason="no emulated library")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def narrow_lenet() -> Model:
    """As LeNet, of fewer pixels and numbers."""
    return Sequential(
        [
            layers.Conv2D(6, 5, padding="same", activation="relu", input_shape=(14, 14, 1)),
            layers.MaxPooling2D(2),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(12, activation="relu"),
            layers.Dense(5, activation="softmax"),
        ]
    )


def strided_and_dilated() -> Model:
    return Sequential(
        [
            layers.Conv2D(4, 5, strides=2, padding="same", input_shape=(11, 9, 2)),
            layers.Activation("sigmoid"),
            layers.Conv2D(3, 3, dilation_rate=2, padding="same", use_bias=False),
            layers.AveragePooling2D(3, strides=2, padding="same"),
            layers.Conv2D(7, (3, 3), activation="tanh"),  # all of the picture: a dense layer
            layers.Flatten(),
            layers.Dense(5),
            layers.Activation("softmax"),
        ]
    )


def channels_first() -> Model:
    return Sequential(
        [
            layers.Conv2D(
                4, 3, data_format="channels_first", activation="relu", input_shape=(2, 7, 8)
            ),
            layers.MaxPooling2D(2, data_format="channels_first"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def wide_pictures() -> Model:
    """More work than threads, and filters that are no multiple of four."""
    return Sequential(
        [
            layers.Conv2D(16, 3, padding="same", activation="relu", input_shape=(19, 17, 3)),
            layers.Conv2D(5, 5, padding="valid"),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.MaxPooling2D(3),
            layers.Dense(6, activation="relu"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


NETWORKS = [*MODELS, narrow_lenet, strided_and_dilated, channels_first, wide_pictures]


def trained(
    make: object,
    device: str | None,
    n: int = 11,
    batch: int = 4,
    optimizer: object = "sgd",
    loss: str = "sparse_categorical_crossentropy",
    epochs: int = 1,
    cursor: bool = False,
    recorded: bool = False,
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Weights and logs of some steps: on a device depth-first, else breadth-first."""
    convkit.utils.set_random_seed(3)
    model = make()  # type: ignore[operator]
    model.compile(optimizer() if callable(optimizer) else optimizer, loss, metrics=["accuracy"])
    x, y = data(model, n, sparse=model.loss.sparse)
    arrays = model._arrays("fit", x / np.float32(255), y)
    step = TrainingStep(model, arrays, model.optimizer, depth_first=device is not None)
    native = step.program.native
    order = np.random.default_rng(1).permutation(n)
    on_device = None if device is None else _core.Stretch(native, device, batch)
    with step.on(arrays, order):
        for _ in range(epochs):
            if on_device is None:
                step.program.run(0, n, batch)
            else:
                on_device.run(0, n, batch, cursor, recorded)
    return [v.numpy().copy() for v in model.weights], step.scores.logs()


def assert_close(found: tuple, expected: tuple, atol: float = 2e-6) -> None:
    for a, b in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    assert found[1] == pytest.approx(expected[1], abs=1e-5)


def assert_same_bits(found: tuple, expected: tuple) -> None:
    for a, b in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[1] == expected[1]


@pytest.mark.parametrize("make", NETWORKS)
def test_training(device, make):
    expected = trained(make, None)
    # The last batch is smaller.
    assert_close(trained(make, device, cursor=True), expected)


@pytest.mark.parametrize("make", [conv_pool_dense, shared_layer, dropout_mlp])
def test_many_steps_with_a_cursor_and_as_a_graph(device, make):
    found = trained(make, device, batch=3, epochs=1)
    assert_close(found, trained(make, None, batch=3))
    assert_same_bits(trained(make, device, batch=3, cursor=True), found)
    assert_same_bits(trained(make, device, batch=3, cursor=True, recorded=True), found)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: convkit.optimizers.SGD(0.05, momentum=0.9),
        lambda: convkit.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: convkit.optimizers.Adam(0.01, epsilon=1e-2),
    ],
)
def test_optimizers(device, optimizer):
    expected = trained(conv_pool_dense, None, optimizer=optimizer)
    assert_close(trained(conv_pool_dense, device, optimizer=optimizer), expected, 1e-5)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy", "mse", "mae"])
def test_losses(device, loss):
    expected = trained(dropout_mlp, None, loss=loss)
    assert_close(trained(dropout_mlp, device, loss=loss), expected)


def test_one_batch_larger_than_the_slots(device):
    """Blocks then take several samples each, and the batch several chunks of rows."""

    def make() -> Model:
        return Sequential(
            [
                layers.Conv2D(3, 3, activation="relu", input_shape=(5, 5, 1)),
                layers.Flatten(),
                layers.Dense(5, activation="softmax"),
            ]
        )

    assert_close(trained(make, device, n=150, batch=150), trained(make, None, n=150, batch=150))


@needs_emulator
@pytest.mark.parametrize("make", NETWORKS)
def test_bits_do_not_depend_on_the_order_of_threads(make):
    library = emulator()
    try:
        assert library.emulator_set_order(b"forward") == 0
        expected = trained(make, "cuda_emulated", n=3, batch=3)
        for order in (b"reverse", b"random:5", b"verify"):
            assert library.emulator_set_order(order) == 0
            assert_same_bits(trained(make, "cuda_emulated", n=3, batch=3), expected)
    finally:
        library.emulator_set_order(b"forward")


@needs_emulator
def test_bits_do_not_depend_on_the_device():
    """With little shared memory weights are read from afar, in the same order."""
    library = emulator()
    expected = trained(narrow_lenet, "cuda_emulated")
    try:
        library.emulator_set(b"shared", 64 << 10)
        library.emulator_set(b"multiprocessors", 2)
        assert_same_bits(trained(narrow_lenet, "cuda_emulated"), expected)
    finally:
        library.emulator_set(b"shared", 227 << 10)
        library.emulator_set(b"multiprocessors", 132)


@pytest.mark.parametrize("make", NETWORKS)
def test_prediction(device, make):
    convkit.utils.set_random_seed(4)
    model = make()
    x = data(model, 7)[0] / np.float32(255)
    (expected,) = Prediction(model, [x], False).run([x], 7)
    prediction = Prediction(model, [x], True)
    y = np.full_like(expected, np.nan)
    with prediction.program.bound((prediction.x[0], x), (prediction.y[0], y)):
        _core.Stretch(prediction.program.native, device, 3).run(0, 7, 3, False, False)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cursor", [False, True])
def test_evaluation(device, cursor):
    convkit.utils.set_random_seed(4)
    model = conv_pool_dense()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = data(model, 13)
    arrays = model._arrays("evaluate", x / np.float32(255), y)
    expected = Evaluation(model, arrays, False).run(arrays, 5)
    found = Evaluation(model, arrays, True)
    with found.program.bound(*found.sources.pairs(arrays)):
        _core.Stretch(found.program.native, device, 5).run(0, 13, 5, cursor, False)
    assert found.scores.logs() == pytest.approx(expected, abs=1e-5)


# ---- one kernel alone ----------------------------------------------------------------------------


def alone(
    device: str | None,
    kernel: str,
    spec: object,
    inputs: list[np.ndarray],
    sizes: list[int | None],
    state: np.ndarray | None = None,
) -> list[np.ndarray]:
    """What a kernel makes of rows of samples, on a device or by the processor's tiles.

    Args:
        inputs: rows of float32, or of int32 for labels.
        sizes: of a row of each output; None: nobody needs it.
        state: what follows the inputs and is no sample's.
    """
    n = len(inputs[0])
    native = _core.Program("float32")
    bound: list[tuple[int, np.ndarray]] = []

    def tile_of(array: np.ndarray) -> int:
        size = array[0].size
        fed, tile = native.fed(array.itemsize, size), native.tile(4, size)
        rows = _core.Gather(size=size, type=SOURCE_TYPES[array.dtype.name], scale=1, offset=0)
        gather = "tile_gather_labels" if array.dtype == np.int32 else "tile_gather"
        native.node(gather, rows, [fed, -1, tile], True)
        bound.append((fed, array))
        return int(tile)

    arguments = [tile_of(array) for array in inputs]
    if state is not None:
        arguments.append(native.state(4, state.size))
        bound.append((arguments[-1], state))
    made = [-1 if size is None else native.tile(4, size) for size in sizes]
    native.node(kernel, spec, [*arguments, *made], True)
    results = [np.full((n, size), np.nan, np.float32) for size in sizes if size is not None]
    for tile, result in zip([tile for tile in made if tile >= 0], results, strict=True):
        fed = native.fed(4, result.shape[1])
        native.node("untile", _core.Elementwise(size=result.shape[1]), [tile, fed], True)
        bound.append((fed, result))
    for value, array in bound:
        native.bind(value, array)
    if device is None:
        native.run(0, n, n, float("inf"))
    else:
        _core.Stretch(native, device, n).run(0, n, n, False, False)
    return results


def assert_alone(device: str, *arguments: object) -> None:
    found, expected = (alone(where, *arguments) for where in (device, None))  # type: ignore[arg-type]
    for a, b in zip(found, expected, strict=True):
        assert not np.isnan(b).any()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def shares(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(0.1, 0.9, shape).astype(np.float32)


@pytest.mark.parametrize("rows", [(1, 5, 1), (2, 70, 3)])  # outer, size, inner
def test_softmax_and_its_gradient(device, rows):
    outer, size, inner = rows
    spec, total = _core.Softmax(outer=outer, size=size, inner=inner), outer * size * inner
    for name in ("softmax", "log_softmax"):
        x, dy = normal(3, total), normal(4, total)[:3]
        assert_alone(device, name, spec, [x], [total])
        (y,) = alone(None, name, spec, [x], [total])
        assert_alone(device, f"{name}_backward", spec, [dy, y], [total])


@pytest.mark.parametrize("rows", [(1, 5, 1), (2, 70, 3)])  # rows, size, inner
@pytest.mark.parametrize("from_logits", [0, 1])
@pytest.mark.parametrize(
    "name",
    [
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "binary_crossentropy",
        "mean_squared_error",
        "mean_absolute_error",
    ],
)
def test_losses_and_their_gradients(device, name, from_logits, rows):
    count, size, inner = rows
    spec = _core.Loss(rows=count, size=size, inner=inner, from_logits=from_logits)
    losses, total = count * inner, count * size * inner
    prediction, dloss = (normal if from_logits else shares)(3, total), normal(3, losses)
    target = shares(4, total)[:3]
    gradients: list[int | None] = [total, total]
    if name.startswith("sparse"):
        target = np.random.default_rng(1).integers(0, size, (3, losses)).astype(np.int32)
        gradients = [total]
    assert_alone(device, name, spec, [target, prediction], [losses])
    inputs = [dloss, target, prediction]
    assert_alone(device, f"{name}_backward", spec, inputs, gradients)
    if len(gradients) > 1:
        assert_alone(device, f"{name}_backward", spec, inputs, [total, None])


@pytest.mark.parametrize("rows", [(1, 5, 1), (2, 70, 3)])  # rows, size, inner
def test_accuracies(device, rows):
    count, size, inner = rows
    spec = _core.Loss(rows=count, size=size, inner=inner, from_logits=0)
    rng, total = np.random.default_rng(2), count * size * inner
    prediction = rng.integers(0, 4, (6, total)).astype(np.float32) / 4  # with ties
    target = rng.integers(0, 2, (6, total)).astype(np.float32)
    labels = rng.integers(0, size, (6, count * inner)).astype(np.int32)
    for name, given in (
        ("categorical_accuracy", target),
        ("binary_accuracy", target),
        ("sparse_categorical_accuracy", labels),
    ):
        assert_alone(device, name, spec, [given, prediction], [count * inner])


def test_the_gradient_of_a_sum_goes_to_both_or_to_one(device):
    spec, dy = _core.Elementwise(size=700), normal(3, 700)
    for sizes in ([700, 700], [700, None], [None, 700]):
        assert_alone(device, "add_backward", spec, [dy], sizes)


@pytest.mark.parametrize("units", [8, 7, 260])
@pytest.mark.parametrize("rows", [1, 6])
def test_the_gradient_of_what_goes_into_a_dense_layer(device, rows, units):
    spec = _core.Dense(rows=rows, inputs=9, units=units)
    dy, kernel = normal(3, rows * units), normal(9, units)
    (dx,) = alone(device, "tile_dense_backward_input", spec, [dy], [rows * 9], kernel)
    right, size = (
        (a.reshape(3, rows, units) @ b.T.astype(np.float64)).reshape(dx.shape)
        for a, b in ((dy, kernel), (np.abs(dy), np.abs(kernel)))
    )
    assert_within(dx, right, gamma(units, np.float32) * size, np.float32)


@pytest.mark.parametrize("by_index", [False, True])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("dtype", SOURCE_TYPES)
def test_rows_of_every_type(device, dtype, labels, by_index):
    values = [[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]]
    if dtype != "bool":
        values += [[2, 3, 255], [0, 7, 254]]
    if dtype in ("int64", "float64", "float32"):
        values += [[2**31, -(2**31), 2**40], [-(2**31) - 2**10, 2**31 - 129, -1]]
    if labels and dtype.startswith("float"):
        values += [[np.nan, np.inf, -np.inf], [-1.5, 0.99, 3.0]]
    source = np.array(values, dtype)
    n, size = source.shape
    index = np.random.default_rng(3).permutation(n)
    scale = {"scale": 1.0, "offset": 0.0} if labels else {"scale": 0.25, "offset": -3.0}
    spec = _core.Gather(size=size, type=SOURCE_TYPES[dtype], **scale)
    found = []
    for where in (device, None):
        native = _core.Program("float32")
        rows = (native.state if by_index else native.fed)(source.itemsize, size)
        order = native.fed(8, 1) if by_index else -1
        tile, result = native.tile(4, size), native.fed(4, size)
        gather = "tile_gather_labels" if labels else "tile_gather"
        native.node(gather, spec, [rows, order, tile], True)
        native.node("untile", _core.Elementwise(size=size), [tile, result], True)
        y = np.zeros((n, size), np.int32 if labels else np.float32)
        bound = [(rows, source), (result, y)] + ([(order, index)] if by_index else [])
        for value, array in bound:
            native.bind(value, array)
        if where is None:
            native.run(0, n, n, float("inf"))
        else:
            _core.Stretch(native, where, n).run(0, n, n, False, False)
        found.append(y)
    if labels:
        np.testing.assert_array_equal(found[0], found[1])
    else:
        np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
        expected = (source[index] if by_index else source) * 0.25 - 3
        np.testing.assert_allclose(found[0], expected, rtol=1e-6)


# ---- what does not fit ---------------------------------------------------------------------------


def refused(make: object, device: str, depth_first: bool = True) -> str:
    model = make()  # type: ignore[operator]
    x = np.zeros((1, *model.input_shape[1:]), model.dtype)
    program = Prediction(model, [x], depth_first).program
    with pytest.raises(ValueError, match=r"^stretch: ") as error:
        _core.Stretch(program.native, device, 8)
    return str(error.value)


def test_large_pictures_do_not_fit(device):
    def make() -> Model:
        return Sequential([layers.Conv2D(32, 3, input_shape=(96, 96, 3))])

    assert "bytes of shared memory for a sample" in refused(make, device)


def test_large_dense_layers_do_not_fit(device):
    def make() -> Model:
        return Sequential([layers.Dense(1000, input_shape=(1000,))])

    assert "dense layers of more than" in refused(make, device)


def test_large_values_do_not_fit(device):
    def make() -> Model:
        return Sequential([layers.Activation("relu", input_shape=(1025, 1024))])

    assert "room for a value of 1049600 numbers" in refused(make, device)


def test_a_layer_that_is_used_often_does_not_fit(device):
    def make(uses: int) -> Model:
        x = layers.Input((4, 4, 1))
        y, conv = x, layers.Conv2D(1, 3, padding="same", activation="tanh")
        for _ in range(uses):
            y = conv(y)
        return Model(x, layers.Dense(5, activation="softmax")(layers.Flatten()(y)))

    assert_close(trained(lambda: make(4), device), trained(lambda: make(4), None))
    with pytest.raises(_core.DoesNotFit, match="no room for so many uses of a layer"):
        trained(lambda: make(5), device)


def test_counting_in_slots_does_not_fit(device):
    native = _core.Program("float32")
    native.node("next_step", _core.Elementwise(size=1), [native.sum(8, 16)], True)
    with pytest.raises(_core.DoesNotFit, match="no kernel of this kind: number"):
        _core.Stretch(native, device, 1)


def test_breadth_first_programs_do_not_fit(device):
    assert "before the stretch" in refused(conv_pool_dense, device, depth_first=False)


def test_float64_does_not_fit(device):
    convkit.config.set_floatx("float64")
    try:
        assert "float64" in refused(conv_pool_dense, device)
    finally:
        convkit.config.set_floatx("float32")


def test_arguments(device):
    model = conv_pool_dense()
    x = np.zeros((4, 13, 13, 1), np.float32)
    prediction = Prediction(model, [x], True)
    stretch = _core.Stretch(prediction.program.native, device, 2)
    with pytest.raises(ValueError, match="was never bound"):
        stretch.run(0, 2, 2, False, False)
    y = np.zeros((4, 5), np.float32)
    with prediction.program.bound((prediction.x[0], x), (prediction.y[0], y)):
        with pytest.raises(ValueError, match="expected at most 2 samples, got 3"):
            stretch.run(0, 3, 3, False, False)
        stretch.run(0, 4, 2, False, False)
    assert 0 < stretch.block_bytes() <= 227 << 10 and stretch.device_bytes() > 0
