"""Depth-first programs by blocks of threads on a device: they are what the processor makes."""

from __future__ import annotations

import numpy as np
import pytest
from devices import DEVICES, EMULATED, emulator
from test_planner import MODELS, conv_pool_dense, data, dropout_mlp, shared_layer

import convkit
from convkit import _core, layers
from convkit.models import Model, Sequential
from convkit.models.steps import Evaluation, Prediction, Scores, TrainingStep

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
    x, y = model._arrays("fit", x / np.float32(255), y)
    scores = Scores(model.loss, model._choose_metrics())
    step = TrainingStep(model, x, y, scores, model.optimizer, depth_first=device is not None)
    native = step.program.native
    order = np.random.default_rng(1).permutation(n)
    on_device = None if device is None else _core.Stretch(native, device, batch)
    with step.on(x, y, order):
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
    expected = Prediction(model, x, False).run(x, 7)
    prediction = Prediction(model, x, True)
    y = np.full_like(expected, np.nan)
    with prediction.program.bound((prediction.x, x), (prediction.y, y)):
        _core.Stretch(prediction.program.native, device, 3).run(0, 7, 3, False, False)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cursor", [False, True])
def test_evaluation(device, cursor):
    convkit.utils.set_random_seed(4)
    model = conv_pool_dense()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = data(model, 13)
    x, y = model._arrays("evaluate", x / np.float32(255), y)
    scores = [Scores(model.loss, model._choose_metrics()) for _ in range(2)]
    expected = Evaluation(model, x, y, scores[0], False).run(x, y, 5)
    found = Evaluation(model, x, y, scores[1], True)
    with found.program.bound((found.x, x), (found.y, y)):
        _core.Stretch(found.program.native, device, 5).run(0, 13, 5, cursor, False)
    assert scores[1].logs() == pytest.approx(expected, abs=1e-5)


# ---- what does not fit ---------------------------------------------------------------------------


def refused(make: object, device: str, depth_first: bool = True) -> str:
    model = make()  # type: ignore[operator]
    x = np.zeros((1, *model.input_shape[1:]), model.dtype)
    program = Prediction(model, x, depth_first).program
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
    prediction = Prediction(model, x, True)
    stretch = _core.Stretch(prediction.program.native, device, 2)
    with pytest.raises(ValueError, match="was never bound"):
        stretch.run(0, 2, 2, False, False)
    y = np.zeros((4, 5), np.float32)
    with prediction.program.bound((prediction.x, x), (prediction.y, y)):
        with pytest.raises(ValueError, match="expected at most 2 samples, got 3"):
            stretch.run(0, 3, 3, False, False)
        stretch.run(0, 4, 2, False, False)
    assert 0 < stretch.block_bytes() <= 227 << 10 and stretch.device_bytes() > 0
