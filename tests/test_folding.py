"""Inference with batch norm taken into the weights of what stands before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from networks import batch, floats, made

from convkit import graph, layers, optimizers, utils
from convkit.callbacks import Callback
from convkit.layers import Input
from convkit.models import Model
from convkit.models.steps import Prediction

SAMPLE = (6, 5, 3)


def with_norm(before: Callable[..., Any], **options: Any) -> Callable[[Any], Any]:
    return lambda x: layers.BatchNormalization(**options)(before()(x))


def read_twice(x: Any) -> Any:
    conv = layers.Conv2D(4, 3)(x)
    return layers.Concatenate()([layers.BatchNormalization()(conv), conv])


def returned_too(x: Any) -> Any:
    conv = layers.Conv2D(4, 3)(x)
    return [layers.BatchNormalization()(conv), conv]


def flattened_too(x: Any) -> Any:
    conv = layers.Conv2D(4, 3)(x)
    return [layers.Flatten()(conv), layers.BatchNormalization()(conv)]


def two_norms(x: Any) -> Any:
    conv = layers.Conv2D(4, 3)(x)
    return [layers.BatchNormalization()(conv), layers.BatchNormalization()(conv)]


def shared(x: Any) -> Any:
    conv, norm = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    return norm(conv(norm(conv(x))))


def channels_first(x: Any) -> Any:
    conv = layers.Conv2D(4, 3, data_format="channels_first")(layers.Permute((3, 1, 2))(x))
    return layers.BatchNormalization(axis=1)(conv)


# How the outputs are made of a symbol, and how many scales and shifts are left for inference.
FOLDING: dict[str, tuple[Callable[[Any], Any], int]] = {
    "conv": (with_norm(lambda: layers.Conv2D(4, 3, use_bias=False)), 0),
    "conv_bias": (with_norm(lambda: layers.Conv2D(4, 3, strides=2, padding="same")), 0),
    "conv_groups": (with_norm(lambda: layers.Conv2D(6, 3, groups=3)), 0),
    "no_gamma": (with_norm(lambda: layers.Conv2D(4, 3), scale=False), 0),
    "no_beta": (with_norm(lambda: layers.Conv2D(4, 3), center=False), 0),
    "neither": (with_norm(lambda: layers.Conv2D(4, 3), center=False, scale=False), 0),
    "dense": (lambda x: layers.BatchNormalization()(layers.Dense(4)(layers.Flatten()(x))), 0),
    "dense_of_pixels": (with_norm(lambda: layers.Dense(4)), 0),
    "depthwise": (with_norm(lambda: layers.DepthwiseConv2D(3)), 0),
    "depthwise_twofold": (
        with_norm(lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
        0,
    ),
    "separable": (with_norm(lambda: layers.SeparableConv2D(4, 3)), 0),
    "norm_twice": (
        lambda x: layers.BatchNormalization()(with_norm(lambda: layers.Conv2D(4, 3))(x)),
        0,
    ),
    "relu_behind": (lambda x: layers.ReLU()(with_norm(lambda: layers.Conv2D(4, 3))(x)), 0),
    "shared": (shared, 0),
    "relu_between": (with_norm(lambda: layers.Conv2D(4, 3, activation="relu")), 1),
    "transposed": (with_norm(lambda: layers.Conv2DTranspose(4, 3)), 2),  # the bias is one
    "read_twice": (read_twice, 1),
    "returned_too": (returned_too, 1),
    "flattened_too": (flattened_too, 1),
    "two_norms": (two_norms, 2),
    "channels_first": (channels_first, 1),
    "norm_first": (lambda x: layers.Conv2D(4, 3)(layers.BatchNormalization()(x)), 1),
}


def folding_model(name: str, dtype: str = "float64") -> Model:
    with floats(dtype):
        utils.set_random_seed(6)
        x = Input(SAMPLE)
        model = Model(x, FOLDING[name][0](x))
    change_weights(model, 7)
    return model


def change_weights(model: Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.weights])


def unfolded(model: Model, x: np.ndarray) -> list[np.ndarray]:
    """Layer by layer."""
    y = model(x)
    return [np.array(one) for one in (y if isinstance(y, list) else [y])]


def assert_predicts(model: Model, x: np.ndarray, predict: Any = None) -> None:
    found = (predict or model.predict)(x)
    found = found if isinstance(found, list) else [found]
    bound = 1e-12 if model.dtype == "float64" else 1e-5
    for one, other in zip(found, unfolded(model, x), strict=True):
        np.testing.assert_allclose(one, other, bound, bound * np.abs(other).max())


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(8).normal(size=(40, *SAMPLE))


@pytest.mark.parametrize("name", FOLDING)
def test_inference_has_batch_norm_in_the_weights(name, x, place):
    for dtype in ("float64", "float32"):
        model = folding_model(name, dtype)
        given = x.astype(dtype)
        expected = [given[:1], given[:3], given]  # one sample, breadth-first, depth-first
        right = [unfolded(model, part) for part in expected]
        if place is not None:
            model.to("cuda")
        bound = 1e-12 if dtype == "float64" else 1e-5
        for part, outputs in zip(expected, right, strict=True):
            found = model.predict(part)
            for one, other in zip(
                found if isinstance(found, list) else [found], outputs, strict=True
            ):
                np.testing.assert_allclose(one, other, bound, bound * np.abs(other).max())


@pytest.mark.parametrize("name", FOLDING)
@pytest.mark.parametrize("depth_first", [False, True])
def test_batch_norm_costs_inference_nothing_where_it_can_be_taken_in(name, depth_first, x):
    program = Prediction(folding_model(name), [x], depth_first).program
    kernels = [step.kernel for step in program.steps]
    left = sum(kernel.endswith("channel_affine") for kernel in kernels)
    assert left == FOLDING[name][1]


@pytest.mark.parametrize("name", ["conv_bias", "dense", "depthwise", "shared", "flattened_too"])
def test_folded_weights_are_always_those_of_the_model(name, x, tmp_path):
    model = folding_model(name)
    one = isinstance(model.output, graph.Symbol)
    compiled = [model.compiled(batch_size=n) for n in (1, 40)] if one else []

    def check() -> None:
        for rows in (1, 3, 40):
            assert_predicts(model, x[:rows])
        for function in compiled:
            assert_predicts(model, x[: function.batch_size], function)

    check()
    path = tmp_path / "weights.safetensors"
    model.save_weights(path)
    before = unfolded(model, x)
    targets = [np.zeros_like(y) for y in before]
    model.compile(optimizers.SGD(1e-4), "mse")
    model.fit(x, targets if len(targets) > 1 else targets[0], batch_size=16, verbose=0)
    assert not np.allclose(unfolded(model, x)[0], before[0])
    check()
    model.train_on_batch(x[:9], [t[:9] for t in targets] if len(targets) > 1 else targets[0][:9])
    check()
    model.load_weights(path)
    np.testing.assert_array_equal(unfolded(model, x)[0], before[0])
    check()
    change_weights(model, 9)
    check()
    model.layers[-1].trainable_weights[0].assign(2 * model.layers[-1].trainable_weights[0].numpy())
    check()


def test_callbacks_on_batches_have_the_weights_of_that_batch(x):
    model = folding_model("conv_bias")
    model.compile(optimizers.SGD(0.05), "mse")
    seen = []

    class Predicts(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            assert_predicts(self.model, x[:1])
            seen.append(self.model.predict(x[:1]))

    y = np.zeros((40, *model.output_shape[1:]))
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[Predicts()])
    assert len(seen) == 3
    assert not np.allclose(seen[0], seen[1])


def test_moving_averages_may_move_on_arrays_too(x):
    model = folding_model("conv_bias")
    before = model.predict(x[:1])
    convolution, norm = model.layers[1:]
    norm(3 * np.asarray(convolution(x)), training=True)
    assert not np.allclose(model.predict(x[:1]), before)
    assert_predicts(model, x[:1])


def test_bytes_and_batch_norm():
    """Images as they come from files have a compiled function of their own."""
    with floats("float32"):
        x = Input(SAMPLE)
        model = Model(x, with_norm(lambda: layers.Conv2D(4, 3))(layers.Rescaling(1 / 255)(x)))
    change_weights(model, 7)
    images = np.random.default_rng(9).integers(0, 256, (5, *SAMPLE), np.uint8)
    classify = model.compiled(batch_size=5)
    assert_predicts(model, images, classify)
    change_weights(model, 8)
    assert_predicts(model, images, classify)


def test_two_threads_have_the_new_weights(x):
    model = folding_model("conv_bias")
    compiled = model.compiled(batch_size=1)
    model.predict(x)
    failures: list[BaseException] = []
    for seed in range(10, 20):
        change_weights(model, seed)
        right = unfolded(model, x)[0]
        start = threading.Barrier(4)

        def run(predict: Any, rows: int, right: np.ndarray = right, start: Any = start) -> None:
            try:
                start.wait()
                np.testing.assert_allclose(predict(x[:rows]), right[:rows], 1e-12, 1e-12)
            except BaseException as error:
                failures.append(error)

        calls = [(model.predict, 40), (model.predict, 1), (compiled, 1), (model.predict, 40)]
        threads = [threading.Thread(target=run, args=call) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.parametrize("name", ["resnet18", "mobilenet", "unet_concatenate_bilinear_norm"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_networks_predict_what_they_evaluate(name, dtype):
    model = made(name, dtype)
    x, y = batch(model, 30)
    for rows in (1, 4, 30):
        assert_predicts(model, x[:rows])
    kernels = {step.kernel for step in Prediction(model, [x], False).program.steps}
    assert "channel_affine" not in kernels
    model.compile("sgd", "sparse_categorical_crossentropy")
    probabilities = np.take_along_axis(model.predict(x), y[..., np.newaxis], -1)
    loss = model.evaluate(x, y, verbose=0)
    assert loss == pytest.approx(-np.log(probabilities).mean(), rel=1e-4)
