"""Inference with weights that Winograd's method transforms once, until they change."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from convkit import _core, config, layers, ops, set_precision
from convkit.models import Sequential, kept_weights
from convkit.models.kept_weights import transformed_steps
from convkit.models.steps import Prediction

SAMPLE = (13, 11, 16)


def network(dtype: str = "float32", kernel_size: int = 3, norm: bool = False) -> Sequential:
    """Convolutions that Winograd's method computes, and one that it does not."""
    config.set_floatx(dtype)
    try:
        return Sequential(network_layers(kernel_size, norm))
    finally:
        config.set_floatx("float32")


def network_layers(kernel_size: int, norm: bool) -> list[layers.Layer]:
    made = [layers.Input(SAMPLE), layers.Conv2D(24, kernel_size, padding="same")]
    if norm:
        made.append(layers.BatchNormalization())
    made += [
        layers.Conv2D(17, kernel_size, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(16, 1),
        layers.Flatten(),
        layers.Dense(3),
    ]
    return made


def images(n: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, *SAMPLE)).astype(dtype)


def prediction(model: Sequential, x: np.ndarray) -> Prediction:
    """One whose kernels see the whole batch, as few samples do."""
    return Prediction(model, [x[:0]], depth_first=False)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """What a model returns where nothing is kept."""

    def run(model: Sequential, x: np.ndarray) -> np.ndarray:
        with monkeypatch.context() as patch:
            patch.setattr(kept_weights, "MOST", 0)
            plain = prediction(model, x)
            assert not plain._derives or plain._fold is not None
            return plain.run([x], len(x))[0]

    return run


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("model_dtype", ["float32", "float64"])
def test_bits_are_those_of_weights_that_are_not_kept(
    backend: str,
    kernel_size: int,
    model_dtype: str,
    without: Callable[..., np.ndarray],
    threads: Callable[[int], None],
) -> None:
    model = network(model_dtype, kernel_size)
    one = prediction(model, images(1, model_dtype))
    assert len(transformed_steps(one.program)) == 2
    for n in (1, 2, 5, 40):
        x = images(n, model_dtype)
        expected = without(model, x)
        for count in (1, 2, 3):
            threads(count)
            np.testing.assert_array_equal(one.run([x], n)[0], expected)
        np.testing.assert_array_equal(one.run([x], 3)[0], expected)


def test_they_follow_every_change_of_weights(without: Callable[..., np.ndarray], tmp_path) -> None:
    model, x = network(norm=True), images(2)
    compiled = model.compiled(batch_size=2)
    seen = []

    def check() -> None:
        seen.append(model.predict(x, verbose=0))
        np.testing.assert_array_equal(seen[-1], without(model, x))
        np.testing.assert_array_equal(compiled(x), seen[-1])
        np.testing.assert_array_equal(model.predict(x[:1], verbose=0), without(model, x[:1]))
        assert not any(np.array_equal(seen[-1], before) for before in seen[:-1])

    check()
    kernel = model.layers[0].weights[0]
    kernel.assign(2 * kernel.numpy())
    check()
    model.set_weights([1.5 * w for w in model.get_weights()])
    check()
    model.save_weights(tmp_path / "one.safetensors")
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((2, 3), "f"), epochs=1, verbose=0)
    check()
    model.train_on_batch(x, np.ones((2, 3), "f"))
    check()
    model.load_weights(tmp_path / "one.safetensors")
    np.testing.assert_array_equal(model.predict(x, verbose=0), seen[2])


def test_each_instruction_set_has_its_own(without: Callable[..., np.ndarray]) -> None:
    model, x = network(), images(3)
    kept = prediction(model, x)
    before = _core.backend_name()
    try:
        for name in 2 * _core.available_backends():
            _core.use_backend(name)
            np.testing.assert_array_equal(kept.run([x], 3)[0], without(model, x))
    finally:
        _core.use_backend(before)


def test_direct_sums_use_none(without: Callable[..., np.ndarray]) -> None:
    model, x = network(), images(2)
    kept = prediction(model, x)
    fast = kept.run([x], 2)[0]
    set_precision("direct")
    try:
        direct = kept.run([x], 2)[0]
        np.testing.assert_array_equal(direct, without(model, x))
        assert not np.array_equal(direct, fast)
        assert not transformed_steps(kept.program)
    finally:
        set_precision("float32")
    np.testing.assert_array_equal(kept.run([x], 2)[0], fast)


def test_large_models_keep_none() -> None:
    made = [layers.Input((14, 14, 256)), layers.Conv2D(256, 3, padding="same")]
    model = Sequential([*made, layers.Conv2D(256, 3, padding="same"), layers.Flatten()])
    x = np.zeros((1, 14, 14, 256), "f")
    assert not transformed_steps(prediction(model, x).program)


def test_weights_that_a_program_works_out_are_not_kept() -> None:
    """A kernel that is no variable may be another one in each run."""

    class Scaled(layers.Layer):
        def build(self, input_shape) -> None:
            self.kernel = self.add_weight("kernel", (3, 3, 16, 16))

        def call(self, x):
            return ops.conv2d(x, ops.multiply(self.kernel, 2.0), padding="same")

    model = Sequential([layers.Input(SAMPLE), Scaled()])
    x = images(1)
    model.predict(x, verbose=0)
    assert not transformed_steps(prediction(model, x).program)


def test_threads_predict_while_weights_change() -> None:
    """Nothing crashes, and what is predicted afterwards is that of the last weights."""
    model, x = network(), images(1)
    compiled = model.compiled(batch_size=1)
    kernel = model.layers[0].weights[0]
    values = [kernel.numpy(), 3 * kernel.numpy()]
    done = threading.Event()
    failed: list[BaseException] = []

    def predict() -> None:
        try:
            while not done.is_set():
                assert np.isfinite(compiled(x)).all()
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=predict) for _ in range(3)]
    for worker in workers:
        worker.start()
    for i in range(100):
        kernel.assign(values[i % 2])
    done.set()
    for worker in workers:
        worker.join()
    assert not failed
    fresh = network()
    fresh.set_weights(model.get_weights())
    np.testing.assert_array_equal(compiled(x), fresh.predict(x, verbose=0))


def test_a_node_that_reads_what_is_written_is_refused() -> None:
    native = _core.Program("float32")
    rate, gradient, parameter, y = native.state(4, 1), *(native.state(4, 3) for _ in range(3))
    native.node("add", _core.Elementwise(size=3), [gradient, gradient, y])
    native.node("add", _core.Elementwise(size=3), [parameter, gradient, y])
    native.node("sgd", _core.Sgd(size=3, momentum=0, nesterov=0), [rate, gradient, -1, parameter])
    with pytest.raises(ValueError, match="add: a state is written"):
        native.keep_weights(1)
    with pytest.raises(IndexError):
        native.keep_weights(3)
