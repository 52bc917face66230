"""`fit`, `evaluate`, `train_on_batch`: gradients of whole networks, and what training promises."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import reference
from processes import output_of

import convkit
from convkit import Input, Model, Sequential, callbacks, config, layers, losses, ops, optimizers


@pytest.fixture
def float64() -> Iterator[None]:
    config.set_floatx("float64")
    yield
    config.set_floatx("float32")


@pytest.fixture(autouse=True)
def seeded() -> None:
    convkit.utils.set_random_seed(0)


# ---- gradients of whole networks against differences -------------------------------------------

CLASSES = 3


def plain() -> Model:
    return Sequential(
        [
            Input((8, 7, 2)),
            layers.Conv2D(4, 3, padding="same", activation="leaky_relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(5, (2, 3), strides=(1, 2), use_bias=False),
            layers.ReLU(negative_slope=0.1),
            layers.AveragePooling2D((2, 1), padding="same"),
            layers.Flatten(),
            layers.Dense(6, activation="tanh"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def channels_first() -> Model:
    return Sequential(
        [
            Input((2, 6, 5)),
            layers.Conv2D(4, 3, padding="same", groups=2, data_format="channels_first"),
            layers.MaxPooling2D((2, 1), data_format="channels_first"),
            layers.Conv2D(3, 2, dilation_rate=2, data_format="channels_first", activation="tanh"),
            layers.UpSampling2D(2, data_format="channels_first", interpolation="bilinear"),
            layers.AveragePooling2D(2, strides=1, data_format="channels_first"),
            layers.Flatten(data_format="channels_first"),
            layers.Dense(CLASSES),
            layers.Softmax(),
        ]
    )


def per_pixel() -> Model:
    return Sequential(
        [
            Input((4, 5, 2)),
            layers.Conv2D(4, 3, padding="same", activation="sigmoid"),
            layers.UpSampling2D((1, 2)),
            layers.Conv2D(CLASSES, 1, activation="softmax"),
        ]
    )


def branches() -> Model:
    x = Input((4, 4, 2))
    shared = layers.Conv2D(2, 3, padding="same", activation="tanh")
    a = shared(x)
    b = shared(a)  # the same weights again: their gradients add up
    c = layers.Add()([a, b, x])
    d = layers.Concatenate()([c, b, layers.Activation("exponential")(a)])
    e = layers.Reshape((8, -1))(d)
    f = layers.Softmax(axis=1)(e)
    return Model(x, layers.Dense(CLASSES)(layers.Flatten()(f)))


def logits() -> Model:
    return Sequential([Input((5,)), layers.Dense(4, "tanh"), layers.Dense(CLASSES)])


def probabilities() -> Model:
    return Sequential([Input((5,)), layers.Dense(4, "tanh"), layers.Dense(CLASSES, "sigmoid")])


def log_probabilities() -> Model:
    return Sequential([Input((5,)), layers.Dense(CLASSES, "log_softmax"), layers.Reshape((3, 1))])


def softmax_behind_reshape() -> Model:
    return Sequential([Input((5,)), layers.Dense(6, "softmax"), layers.Reshape((2, 3))])


def dense_over_pixels() -> Model:
    return Sequential([Input((3, 4)), layers.Dense(5, "relu"), layers.Dense(2), layers.Flatten()])


def weights_like(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.1, 0.9, shape)  # neither one-hot nor of sum one


def labels_like(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, CLASSES, shape[:-1])


NETWORKS = [
    (plain, "categorical_crossentropy", weights_like),
    (plain, "sparse_categorical_crossentropy", labels_like),
    (plain, "mean_squared_error", weights_like),
    (channels_first, "sparse_categorical_crossentropy", labels_like),
    (channels_first, "mean_absolute_error", weights_like),
    (per_pixel, "sparse_categorical_crossentropy", labels_like),
    (per_pixel, "categorical_crossentropy", weights_like),
    (per_pixel, "binary_crossentropy", weights_like),
    (branches, "mean_squared_error", weights_like),
    (branches, losses.CategoricalCrossentropy(from_logits=True), weights_like),
    (logits, losses.SparseCategoricalCrossentropy(from_logits=True), labels_like),
    (logits, losses.BinaryCrossentropy(from_logits=True), weights_like),
    (probabilities, "binary_crossentropy", weights_like),
    (probabilities, "categorical_crossentropy", weights_like),
    (log_probabilities, "mean_squared_error", weights_like),
    (softmax_behind_reshape, "categorical_crossentropy", weights_like),
    (dense_over_pixels, "mean_squared_error", weights_like),
]


def directional_check(
    model: Model, gradients: list[np.ndarray], loss: Callable[[], float], rng: np.random.Generator
) -> None:
    """The gradient of every weight along a random direction against central differences."""
    step = 2.0**-17
    for variable, gradient in zip(model.trainable_weights, gradients, strict=True):
        value = variable.numpy()
        direction = rng.choice([-1.0, -0.5, 0.5, 1.0], value.shape)

        def along(distance: float, variable=variable, value=value, direction=direction) -> float:
            variable.assign(value + distance * direction)
            return loss()

        near, far = (along(h) - along(-h) for h in (step / 2, step))
        variable.assign(value)
        quotient = (8 * near - far) / (6 * step)
        slope = float(np.sum(gradient * direction))
        assert slope == pytest.approx(quotient, rel=1e-7, abs=1e-9), variable.name


def gradients_of(model: Model, x: np.ndarray, y: np.ndarray, loss: object) -> list[np.ndarray]:
    """By one step of SGD with a learning rate of 1, undone afterwards."""
    model.compile(optimizers.SGD(1.0), loss)
    before = model.get_weights()
    model.train_on_batch(x, y)
    after = model.get_weights()
    model.set_weights(before)
    return [old - new for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize(
    ("network", "loss", "targets"),
    NETWORKS,
    ids=[f"{n.__name__}-{getattr(loss, 'name', loss)}" for n, loss, _ in NETWORKS],
)
def test_gradients_of_whole_networks_match_differences(float64, rng, network, loss, targets):
    model = network()
    x = rng.normal(size=(6, *model.input_shape[1:]))
    y = targets(rng, (6, *model.output_shape[1:]))
    for variable in model.trainable_weights:  # biases too must matter
        variable.assign(variable.value + rng.normal(0, 0.1, variable.shape))
    gradients = gradients_of(model, x, y, loss)
    assert any(np.abs(g).max() > 1e-4 for g in gradients)
    # Few samples at a time, so that a kink (ReLU, maximum) is unlikely to lie within a step.
    directional_check(model, gradients, lambda: model.evaluate(x, y, batch_size=4), rng)


def test_the_check_by_differences_notices_a_wrong_gradient(float64, rng):
    model = logits()
    x, y = rng.normal(size=(6, 5)), rng.normal(size=(6, CLASSES))
    gradients = gradients_of(model, x, y, "mse")
    gradients[1] = gradients[1] * (1 + 1e-5)
    with pytest.raises(AssertionError, match="bias"):
        directional_check(model, gradients, lambda: model.evaluate(x, y), rng)


def test_the_gradient_goes_through_the_values_that_dropout_kept(float64, rng):
    drop = layers.Dropout(0.4, seed=3)
    model = Sequential([Input((5,)), layers.Dense(8, "tanh"), drop, layers.Dense(1)])
    x, y = rng.normal(size=(6, 5)), rng.normal(size=(6, 1))
    gradients = gradients_of(model, x, y, "mse")
    model.compile(optimizers.SGD(0.0), "mse")
    start = drop._state.numpy() - [0, 1]  # as it was before that step

    def loss() -> float:
        drop._state.assign(start)
        return model.train_on_batch(x, y)

    directional_check(model, gradients, loss, rng)


# ---- a training loop in NumPy ------------------------------------------------------------------


def numpy_steps(weights: list, batches: list, update: Callable[[int, int, np.ndarray], np.ndarray]):
    """conv + ReLU, max pooling, dense, softmax, cross-entropy: the references one by one."""
    kernel, bias, dense, dense_bias = weights
    seen = []
    for number, (x, y) in enumerate(batches, start=1):
        a = reference.conv2d(x, kernel, bias, activation="relu")
        p = reference.max_pool2d(a)
        f = p.reshape(len(x), -1)
        z = reference.dense(f, dense, dense_bias)
        seen.append(reference.categorical_crossentropy(y, z, from_logits=True))
        dloss = np.full(len(x), 1 / len(x))
        _, dz = reference.categorical_crossentropy_backward(dloss, y, z, from_logits=True)
        df, ddense, ddense_bias = reference.dense_backward(dz, f, dense, dense_bias)
        (da,) = reference.max_pool2d_backward(df.reshape(p.shape), a)
        _, dkernel, dbias = reference.conv2d_backward(da, x, kernel, bias, activation="relu")
        found = (dkernel, dbias, ddense, ddense_bias)
        kernel, bias, dense, dense_bias = (
            w + update(number, i, g)
            for i, (w, g) in enumerate(zip((kernel, bias, dense, dense_bias), found, strict=True))
        )
    return [kernel, bias, dense, dense_bias], float(np.concatenate(seen).mean())


def sgd_rule() -> Callable:
    return lambda number, i, g: -0.1 * g


def nesterov_rule() -> Callable:
    velocity: dict[int, np.ndarray] = {}

    def update(number: int, i: int, g: np.ndarray) -> np.ndarray:
        velocity[i] = 0.9 * velocity.get(i, 0.0) - 0.1 * g
        return 0.9 * velocity[i] - 0.1 * g

    return update


def adam_rule() -> Callable:
    first: dict[int, np.ndarray] = {}
    second: dict[int, np.ndarray] = {}

    def update(number: int, i: int, g: np.ndarray) -> np.ndarray:
        first[i] = 0.9 * first.get(i, 0.0) + 0.1 * g
        second[i] = 0.999 * second.get(i, 0.0) + 0.001 * g * g
        rate = 0.01 * np.sqrt(1 - 0.999**number) / (1 - 0.9**number)
        return -rate * first[i] / (np.sqrt(second[i]) + 1e-7)

    return update


@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        (lambda: optimizers.SGD(0.1), sgd_rule),
        (lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True), nesterov_rule),
        (lambda: optimizers.Adam(0.01), adam_rule),
    ],
    ids=["sgd", "nesterov", "adam"],
)
def test_three_steps_equal_a_training_loop_in_numpy(float64, rng, optimizer, rule):
    model = Sequential(
        [
            Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(optimizer(), "categorical_crossentropy")
    x, y = rng.normal(size=(11, 6, 6, 2)), rng.uniform(size=(11, CLASSES))
    batches = [(x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)]  # of 4, 4 and 3 samples
    weights, loss = numpy_steps(model.get_weights(), batches, rule())
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert history.history["loss"] == [pytest.approx(loss, rel=1e-12)]
    for actual, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


# ---- which samples are seen, and when ----------------------------------------------------------


def counter(count: int) -> tuple[Model, np.ndarray, np.ndarray]:
    """A model that never changes and always says 0; sample i adds 4**i to the sum of losses."""
    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizers.SGD(0.0), "mse")
    return model, np.ones((count, 1)), 2.0 ** np.arange(count)


class Losses(callbacks.Callback):
    """The loss of every batch, from the running means and the sizes of batches."""

    def __init__(self, count: int, batch: int) -> None:
        self.ends = [min(start + batch, count) for start in range(0, count, batch)]
        self.epochs: list[list[float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])

    def on_train_batch_end(self, batch, logs=None):
        total = logs["loss"] * self.ends[batch]
        self.epochs[-1].append(round(total - sum(self.epochs[-1])))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 11, 12, 1000])
def test_every_sample_is_used_once_an_epoch(batch):
    model, x, y = counter(11)
    history = model.fit(x, y, batch_size=batch, epochs=2, verbose=0)
    assert history.history["loss"] == [sum(4.0**i for i in range(11)) / 11] * 2


def test_batches_come_in_order_without_shuffling_and_the_last_is_smaller():
    model, x, y = counter(7)
    seen = Losses(7, 3)
    model.fit(x, y, batch_size=3, shuffle=False, verbose=0, callbacks=[seen], epochs=2)
    assert seen.epochs == [[1 + 4 + 16, 64 + 256 + 1024, 4096]] * 2


def test_shuffling_gives_each_epoch_an_order_of_its_own():
    model, x, y = counter(9)
    seen = Losses(9, 1)
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[seen], epochs=3)
    assert all(sorted(epoch) == [4**i for i in range(9)] for epoch in seen.epochs)
    assert len({tuple(epoch) for epoch in seen.epochs}) == 3
    again = Losses(9, 1)
    convkit.utils.set_random_seed(0)
    model, x, y = counter(9)
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[again], epochs=3)
    assert again.epochs == seen.epochs


@pytest.mark.parametrize(("share", "held_out"), [(0.2, 2), (0.25, 3), (0.5, 5), (0.05, 1)])
def test_validation_split_takes_the_last_samples(share, held_out):
    model, x, y = counter(10)
    history = model.fit(x, y, validation_split=share, verbose=0).history
    used = 10 - held_out
    assert history["loss"] == [sum(4.0**i for i in range(used)) / used]
    assert history["val_loss"] == [sum(4.0**i for i in range(used, 10)) / held_out]


def test_validation_data_comes_before_validation_split():
    model, x, y = counter(6)
    history = model.fit(
        x, y, validation_split=0.5, validation_data=(x[:1], y[:1]), verbose=0
    ).history
    assert history["val_loss"] == [1.0]
    assert history["loss"] == [sum(4.0**i for i in range(6)) / 6]


def test_validation_freq_validates_every_so_many_epochs():
    model, x, y = counter(4)
    history = model.fit(
        x, y, epochs=5, validation_data=(x, y), validation_freq=2, verbose=0
    ).history
    assert len(history["loss"]) == 5
    assert len(history["val_loss"]) == 2


@pytest.mark.parametrize("share", [-0.1, 1.0, 2, 0.99, 0.01])
def test_a_validation_split_that_leaves_nothing_is_an_error(share):
    model, x, y = counter(4)
    if share == 0.01:  # the last share is rounded up, as Keras does
        assert "val_loss" in model.fit(x, y, validation_split=share, verbose=0).history
        return
    with pytest.raises(ValueError, match="validation_split"):
        model.fit(x, y, validation_split=share, verbose=0)


def test_history_has_a_value_per_epoch_of_loss_and_metrics(rng):
    model = logits()
    model.compile("sgd", "mse", metrics=["mae", "accuracy"])
    x, y = rng.normal(size=(10, 5)), rng.normal(size=(10, CLASSES))
    history = model.fit(x, y, epochs=3, initial_epoch=1, validation_data=(x, y), verbose=0)
    assert set(history.history) == {
        *("loss", "mae", "accuracy"),
        *("val_loss", "val_mae", "val_accuracy"),
    }
    assert all(len(values) == 2 for values in history.history.values())
    assert history.epoch == [1, 2]
    assert isinstance(history, callbacks.History)


def test_training_goes_on_where_it_stood(rng):
    x, y = rng.normal(size=(10, 5)), rng.normal(size=(10, CLASSES))
    results = []
    for parts in ((4,), (1, 3), (2, 2)):
        convkit.utils.set_random_seed(5)
        model = logits()
        model.compile("adam", "mse")
        for epochs in parts:
            model.fit(x, y, batch_size=3, epochs=epochs, verbose=0)
        results.append(b"".join(w.tobytes() for w in model.get_weights()))
    assert len(set(results)) == 1


# ---- callbacks ---------------------------------------------------------------------------------


class Recorder(callbacks.Callback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_train_begin(self, logs=None):
        self.events.append("train begin")

    def on_train_end(self, logs=None):
        self.events.append("train end")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} begin")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(f"epoch {epoch} end {sorted(logs)}")

    def on_train_batch_begin(self, batch, logs=None):
        self.events.append(f"batch {batch} begin")

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(f"batch {batch} end {sorted(logs)}")


def test_callbacks_are_called_in_order():
    model, x, y = counter(5)
    recorder = Recorder()
    model.fit(x, y, batch_size=3, epochs=2, validation_data=(x, y), callbacks=[recorder], verbose=0)
    assert recorder.model is model
    assert recorder.params["epochs"] == 2
    assert recorder.params["steps"] == 2
    epochs = [
        event
        for epoch in range(2)
        for event in (
            f"epoch {epoch} begin",
            "batch 0 begin",
            "batch 0 end ['loss']",
            "batch 1 begin",
            "batch 1 end ['loss']",
            f"epoch {epoch} end ['loss', 'val_loss']",
        )
    ]
    assert recorder.events == ["train begin", *epochs, "train end"]


def test_callbacks_on_batches_change_nothing(rng):
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, CLASSES))
    results = []
    for given in ([], [Recorder()]):
        convkit.utils.set_random_seed(1)
        model = logits()
        model.compile("adam", "mse")
        history = model.fit(x, y, batch_size=6, epochs=3, verbose=0, callbacks=given)
        results.append((history.history, [w.tobytes() for w in model.get_weights()]))
    assert results[0] == results[1]


def test_stop_training_ends_after_the_epoch():
    class Stop(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model, x, y = counter(4)
    recorder = Recorder()
    history = model.fit(x, y, epochs=10, callbacks=[Stop(), recorder], verbose=0)
    assert history.epoch == [0, 1]
    assert recorder.events[-1] == "train end"
    assert model.fit(x, y, epochs=2, verbose=0).epoch == [0, 1]  # and it trains again


def test_a_callback_that_raises_leaves_a_model_that_trains_on():
    class Fail(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("enough")

    model, x, y = counter(4)
    with pytest.raises(RuntimeError, match="enough"):
        model.fit(x, y, batch_size=1, callbacks=[Fail()], verbose=0)
    assert model.fit(x, y, verbose=0).epoch == [0]


def test_a_callback_can_change_the_learning_rate(float64):
    class Stop(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.0 if epoch else 0.5

    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizers.SGD(99.0), "mse")
    history = model.fit(np.ones((1, 1)), np.ones((1, 1)), epochs=3, callbacks=[Stop()], verbose=0)
    assert history.history["loss"] == [1.0, 0.0, 0.0]  # w = 0 + 0.5 * 2


def test_fit_inside_a_batch_of_fit_is_refused_and_inside_an_epoch_taken(float64):
    class Again(callbacks.Callback):
        def again(self):
            self.model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0)

    class AtBatch(Again):
        def on_train_batch_end(self, batch, logs=None):
            self.again()

    class AtEpoch(Again):
        def on_epoch_end(self, epoch, logs=None):
            self.again()

    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizers.SGD(0.25), "mse")
    x, y = np.ones((2, 1)), np.ones((2, 1))
    with pytest.raises(RuntimeError, match="a model at rest, got one that is being trained"):
        model.fit(x, y, callbacks=[AtBatch()], verbose=0)
    assert model.get_weights()[0] == 0.5  # whole, and at rest again
    history = model.fit(x, y, epochs=2, callbacks=[AtEpoch()], verbose=0)
    assert history.history["loss"] == [0.25, 0.015625]  # each other update was the callback's
    assert model.optimizer.iterations.numpy() == 5


# ---- what is shown -----------------------------------------------------------------------------


def small_fit(**options) -> None:
    model = logits()
    model.compile("sgd", "mse", metrics=["accuracy"])
    x = np.random.default_rng(0).normal(size=(10, 5))
    model.fit(x, x[:, :3], batch_size=4, epochs=2, **options)
    model.evaluate(x, x[:, :3], **{k: v for k, v in options.items() if k == "verbose"})


@pytest.mark.parametrize("verbose", ["auto", 0])
def test_fit_is_quiet_when_told_so_or_where_there_is_no_terminal(capfd, verbose):
    small_fit(verbose=verbose)
    assert capfd.readouterr() == ("", "")


class Slow(callbacks.Callback):
    """Batches that take long enough for the bar to show each of them."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.12)


EPOCH = r"Epoch {}/2 - \d+\.\d s - accuracy: \d\.\d{{4}} - loss: \d+\.\d{{4}}"
EVALUATED = r"10 samples in \d+\.\d\d s - accuracy: \d\.\d{4} - loss: \d+\.\d{4}"


def assert_lines(lines: list[str], *patterns: str) -> None:
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_verbose_2_prints_a_line_per_epoch(capfd):
    small_fit(verbose=2)
    out, err = capfd.readouterr()
    assert "\r" not in out + err
    assert_lines((out + err).split("\n"), EPOCH.format(1), EPOCH.format(2), EVALUATED, "")


def test_verbose_1_shows_the_bar_wherever_it_goes(capfd):
    small_fit(verbose=1, callbacks=[Slow()])
    text = "".join(capfd.readouterr())
    for epoch in (1, 2):
        for step in range(4):
            assert f"\rEpoch {epoch}/2 {step}/3 " in text
    assert_lines(left_on_screen(text), EPOCH.format(1), EPOCH.format(2), EVALUATED)


@pytest.mark.parametrize("verbose", [3, "loud", None, -1])
def test_an_unknown_verbose_is_an_error(verbose):
    with pytest.raises(ValueError, match="verbose"):
        small_fit(verbose=verbose)


ON_A_TERMINAL = """if True:
    import time
    import numpy as np
    import convkit
    from convkit import layers
    class Slow(convkit.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(0.12)
    model = convkit.Sequential([layers.Input((5,)), layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    x = np.random.default_rng(0).random((70, 5))
    model.fit(x, x[:, :3], batch_size=16, epochs=2, validation_split=0.3, callbacks=[Slow()])
"""


def shown_on_terminal(
    code: str, folder: os.PathLike, rows: int, columns: int, stdout: int | None = None
) -> str:
    """All that Python writes to a terminal of this size; stdout: None for the terminal too."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        stderr=child,
        stdout=child if stdout is None else stdout,
    ) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # Linux: the other side was closed
                break
            if not part:
                break
            shown += part
    os.close(parent)
    text = shown.decode()
    assert process.returncode == 0, text
    return text


def left_on_screen(text: str) -> list[str]:
    """The lines that remain where a carriage return goes back over what was written."""
    lines = []
    for written in text.replace("\r\n", "\n").split("\n"):
        line = ""
        for part in written.split("\r"):
            line = part + line[len(part) :]
        lines.append(line.rstrip())
    assert lines.pop() == ""  # all ends with a new line
    return lines


@pytest.mark.parametrize(
    ("rows", "columns", "stdout", "width"),
    [
        (24, 80, None, 80),
        (50, 160, None, 160),
        (0, 0, None, 80),
        (24, 62, subprocess.DEVNULL, 62),
        (24, 160, subprocess.DEVNULL, 160),
    ],
    ids=["narrow", "wide", "of no known size", "narrow, output piped", "wide, output piped"],
)
def test_a_terminal_sees_step_time_loss_metrics_and_validation(
    tmp_path, rows, columns, stdout, width
):
    text = shown_on_terminal(ON_A_TERMINAL, tmp_path, rows, columns, stdout)
    drawn = [part for part in re.split(r"[\r\n]+", text) if re.match(r"Epoch \d/2 \d/4 ", part)]
    assert {len(bar) for bar in drawn} == {width}
    scores = r"accuracy: \d\.\d{4} - loss: \d+\.\d{4}"
    for epoch in (1, 2):
        assert any(bar.startswith(f"Epoch {epoch}/2 0/4 ") for bar in drawn)
        for step in (1, 2, 3, 4):
            wanted = rf"Epoch {epoch}/2 {step}/4 \S+ +\d\d:\d\d<\d\d:\d\d, {scores}"
            assert any(re.fullmatch(wanted, bar) for bar in drawn), drawn
    pattern = EPOCH.replace(r"\d{{4}}", r"\d{{4}} \(val \d\.\d{{4}}\)")
    assert_lines(left_on_screen(text), *(pattern.format(n) for n in (1, 2)))
    assert max(len(line) for line in left_on_screen(text)) <= 80


# ---- evaluate, train_on_batch, metrics ---------------------------------------------------------


def test_evaluate_gives_the_loss_or_a_list_or_a_dictionary():
    model, x, y = counter(5)
    loss = (1 + 4 + 16 + 64 + 256) / 5
    assert model.evaluate(x, y) == loss
    assert model.evaluate(x, y, return_dict=True) == {"loss": loss}
    model.compile("sgd", "mse", metrics=["mae", "mse"])
    assert model.evaluate(x, y, batch_size=2) == [loss, 31 / 5, loss]
    assert model.evaluate(x, y, return_dict=True) == {"loss": loss, "mae": 31 / 5, "mse": loss}


def test_evaluate_changes_nothing(rng):
    model = Sequential([Input((5,)), layers.Dense(4), layers.Dropout(0.5), layers.Dense(CLASSES)])
    model.compile("adam", "mse")
    x, y = rng.normal(size=(9, 5)), rng.normal(size=(9, CLASSES))
    model.fit(x, y, verbose=0)
    before = [w.tobytes() for w in model.get_weights()]
    values = [model.evaluate(x, y, batch_size=batch) for batch in (9, 4, 1)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)
    assert [w.tobytes() for w in model.get_weights()] == before
    expected = float(np.mean((model.predict(x) - y) ** 2))
    assert values[0] == pytest.approx(expected, rel=1e-5)


def test_train_on_batch_gives_what_was_before_the_update_and_updates(float64):
    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizers.SGD(0.25), "mse", metrics=["mae"])
    x, y = np.ones((2, 1)), np.ones((2, 1))
    assert model.train_on_batch(x, y) == [1.0, 1.0]
    assert model.get_weights()[0] == 0.5
    assert model.train_on_batch(x, y) == [0.25, 0.5]
    assert model.get_weights()[0] == 0.75
    expected = {"loss": 0.0625, "mae": 0.25}
    assert model.train_on_batch(x, y, return_dict=True) == expected
    assert model.optimizer.iterations.numpy() == 3


@pytest.mark.parametrize(
    ("units", "loss", "y", "expected"),
    [
        (1, "binary_crossentropy", [[1], [0], [1], [1]], 3 / 4),
        (1, "binary_crossentropy", [1, 0, 1, 1], 3 / 4),
        (2, "categorical_crossentropy", [[0, 1], [1, 0], [0, 1], [0, 1]], 3 / 4),
        (2, "sparse_categorical_crossentropy", [1, 0, 1, 1], 3 / 4),
        (2, "sparse_categorical_crossentropy", [[1], [0], [1], [1]], 3 / 4),
    ],
    ids=["binary", "binary flat", "categorical", "sparse", "sparse column"],
)
@pytest.mark.parametrize("name", ["accuracy", "acc"])
def test_accuracy_picks_binary_categorical_or_sparse(units, loss, y, expected, name):
    model = Sequential([Input((1,)), layers.Dense(units, "sigmoid" if units == 1 else "softmax")])
    weight = [[[1.0]], [0.0]] if units == 1 else [[[-1.0, 1.0]], [0.0, 0.0]]
    model.set_weights(weight)
    model.compile("sgd", loss, metrics=[name])
    x = np.array([[1.0], [-1.0], [-1.0], [1.0]])  # the third is wrong
    assert model.evaluate(x, np.array(y), return_dict=True)[name] == expected


def test_accuracy_per_pixel_counts_pixels(rng):
    model = Sequential([Input((2, 3, 2)), layers.Activation("softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = rng.normal(size=(5, 2, 3, 2))
    y = rng.integers(0, 2, (5, 2, 3))
    loss, accuracy = model.evaluate(x, y, batch_size=2)
    assert accuracy == pytest.approx(np.mean(x.argmax(-1) == y))
    p = reference.softmax(x)
    right = np.take_along_axis(p, y[..., None], axis=-1)
    assert loss == pytest.approx(-np.mean(np.log(right)), rel=1e-5)


def test_running_logs_weigh_a_smaller_last_batch_by_its_samples():
    model, x, y = counter(5)
    model.compile(optimizers.SGD(0.0), "mse", metrics=["mae"])
    history = model.fit(x, y, batch_size=4, verbose=0).history
    assert history["mae"] == [31 / 5]


def test_a_loss_of_ones_own_is_trained_with(float64):
    def doubled(y_true, y_pred):
        loss = ops.mean_squared_error(y_true, y_pred)
        return ops.add(loss, loss)

    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizers.SGD(0.25), doubled)
    assert model.train_on_batch(np.ones((2, 1)), np.ones((2, 1))) == 2.0
    assert model.get_weights()[0] == 1.0


# ---- what comes in -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "bool", "int8", "int64", "uint16", "float16", "float64"])
def test_samples_of_any_real_dtype_train_as_float32_does(rng, kind):
    x = rng.integers(0, 2, (12, 5)).astype(kind)
    y = rng.integers(0, CLASSES, 12)
    results = []
    for given in (x, x.astype(np.float32)):
        convkit.utils.set_random_seed(0)
        model = logits()
        model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(given, y, batch_size=5, verbose=0, validation_data=(given, y))
        weights = [w.tobytes() for w in model.get_weights()]
        results.append((history.history, weights, model.predict(given).tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", ["uint8", "int32", "int64", "float32", "float64", "bool", ">i4"])
def test_labels_of_any_whole_kind_are_taken(rng, kind):
    model = logits()
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = rng.normal(size=(12, 5)), rng.integers(0, 2, 12)
    assert model.evaluate(x, y.astype(kind)) == model.evaluate(x, y)
    assert model.evaluate(x, y.tolist()) == model.evaluate(x, y)


def test_arrays_of_any_layout_are_taken_and_left_alone(rng):
    model = per_pixel()
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = rng.normal(size=(6, 4, 5, 2))
    y = rng.integers(0, CLASSES, (6, 4, 10))
    expected = model.evaluate(x, y)
    frozen = x.copy()
    frozen.flags.writeable = False
    for given in (frozen, np.asfortranarray(x), x.astype(">f8"), x[::-1][::-1]):
        assert model.evaluate(given, y) == expected
        model.fit(given, y, verbose=0, epochs=1, batch_size=4)
        model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        expected = model.evaluate(x, y)
    assert frozen.tobytes() == x.tobytes()


def test_nan_in_samples_is_told_and_crashes_nothing(rng):
    model = Sequential(
        [
            Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(CLASSES, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = rng.normal(size=(6, 6, 6, 1))
    x[2, 3, 3, 0] = np.nan
    y = rng.integers(0, CLASSES, 6)
    p = model.predict(x)
    assert np.isnan(p[2]).all()
    assert np.isfinite(np.delete(p, 2, axis=0)).all()
    history = model.fit(x, y, epochs=2, batch_size=2, verbose=0).history
    assert np.isnan(history["loss"]).all()


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0, 2**40], [0.5, 1], [np.nan, 1]])
@pytest.mark.parametrize("use", ["fit", "evaluate", "train_on_batch"])
def test_labels_out_of_range_are_an_error(labels, use):
    model = logits()
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [w.tobytes() for w in model.get_weights()]
    with pytest.raises(ValueError, match=f"{use}: expected y"):
        getattr(model, use)(np.zeros((2, 5)), np.array(labels))
    assert [w.tobytes() for w in model.get_weights()] == before


def mismatches() -> list:
    x, y = np.zeros((4, 5)), np.zeros((4, CLASSES))
    return [
        (np.zeros((4, 6)), y, r"x of shape \(N, 5\), got \(4, 6\)"),
        (np.zeros(5), y, r"x of shape \(N, 5\), got \(5,\)"),
        (x, y[:3], r"as many rows as x \(4\), got 3"),
        (x, np.zeros((4, 2)), r"\(4, 2\)|\(None, 2\)"),
        (x, np.zeros(4), "mean_squared_error"),
        (x, np.zeros(4, int), "to_categorical"),
        (x.astype(complex), y, "x to hold real numbers, got dtype complex128"),
        (np.array([["a"] * 5] * 4), y, "x to hold real numbers"),
        (3.0, y, "x"),
    ]


@pytest.mark.parametrize("case", range(len(mismatches())))
@pytest.mark.parametrize("use", ["fit", "evaluate", "train_on_batch"])
def test_arrays_that_do_not_fit_are_an_error(case, use):
    x, y, message = mismatches()[case]
    model = logits()
    model.compile("sgd", "mse")
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(model, use)(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size to be at least 1"),
        ({"batch_size": 2.5}, "batch_size to be an integer"),
        ({"batch_size": True}, "batch_size to be an integer"),
        ({"epochs": -1}, "epochs"),
        ({"validation_data": 3}, "validation_data"),
        ({"callbacks": ["x"]}, "callbacks"),
        ({"validation_freq": 0}, "validation_freq"),
        ({"validation_split": 0.5, "validation_batch_size": -1}, "validation_batch_size"),
        ({"validation_split": 0.5, "validation_batch_size": 0}, "validation_batch_size"),
    ],
)
def test_options_that_make_no_sense_are_an_error(options, message):
    model, x, y = counter(4)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(x, y, **options)


def test_no_samples_are_an_error_in_fit_and_train_on_batch():
    model, x, y = counter(4)
    for use in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match="at least one sample"):
            use(x[:0], y[:0])


def test_a_model_that_was_not_compiled_says_so():
    model = logits()
    for use in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match="compile"):
            use(np.zeros((1, 5)), np.zeros((1, CLASSES)))
    model.compile("sgd")
    with pytest.raises(ValueError, match="loss"):
        model.fit(np.zeros((1, 5)), np.zeros((1, CLASSES)))
    assert model.predict(np.zeros((1, 5))).shape == (1, CLASSES)


def test_frozen_layers_stay_as_they_are(rng):
    model = logits()
    x, y = rng.normal(size=(9, 5)), rng.normal(size=(9, CLASSES))
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, False, True, True]
    model.layers[0].trainable = True
    model.fit(x, y, verbose=0)
    assert not np.array_equal(model.get_weights()[0], after[0])


def test_a_model_without_anything_to_train_is_evaluated(rng):
    model = logits()
    model.trainable = False
    model.compile("adam", "mse")
    x, y = rng.normal(size=(9, 5)), rng.normal(size=(9, CLASSES))
    before = [w.tobytes() for w in model.get_weights()]
    history = model.fit(x, y, verbose=0).history
    assert history["loss"] == [pytest.approx(model.evaluate(x, y))]
    assert [w.tobytes() for w in model.get_weights()] == before


def test_set_random_seed_seeds_everything_that_draws():
    for seed in (0, 2**32 - 1, np.int64(5)):
        draws = []
        for _ in range(2):
            convkit.utils.set_random_seed(seed)
            weight = convkit.initializers.GlorotUniform()((3, 3)).tobytes()
            draws.append((random.random(), np.random.random(), weight))  # noqa: NPY002
        assert draws[0] == draws[1]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", None])
def test_a_seed_out_of_range_is_an_error(seed):
    with pytest.raises((ValueError, TypeError), match="set_random_seed: expected"):
        convkit.utils.set_random_seed(seed)


# ---- Ctrl-C ------------------------------------------------------------------------------------

INTERRUPTED = """if True:
    import os, signal, threading, time, json
    import numpy as np
    import convkit
    model = convkit.models.lenet()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x = rng.random((60000, 28, 28, 1), dtype=np.float32)
    y = rng.integers(0, 10, 60000)
    model.fit(x[:64], y[:64], verbose=0)
    done = int(model.optimizer.iterations.numpy()[0])
    waits, whole = [], True
    for batch in (32, 128, 1024):
        sent = []
        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        timer = threading.Timer(0.25, interrupt)
        timer.start()
        try:
            model.fit(x, y, batch_size=batch, epochs=1000, verbose=0)
        except KeyboardInterrupt:
            waits.append(time.perf_counter() - sent[0])
        steps = int(model.optimizer.iterations.numpy()[0])
        whole &= steps > done
        done = steps
        whole &= all(np.isfinite(w).all() for w in model.get_weights())
    history = model.fit(x[:500], y[:500], batch_size=100, epochs=2, verbose=0)
    whole &= int(model.optimizer.iterations.numpy()[0]) == done + 10
    whole &= bool(np.isfinite(history.history["loss"]).all())
    print(json.dumps({"waits": waits, "whole": bool(whole)}))
"""


def test_ctrl_c_stops_fit_within_200_ms_and_the_model_trains_on(tmp_path):
    result = json.loads(output_of(INTERRUPTED, tmp_path))
    assert len(result["waits"]) == 3
    assert result["whole"]
    # The best of three batch sizes: other processes may keep this one waiting.
    assert min(result["waits"]) < 0.2, result["waits"]


# ---- the same bits -----------------------------------------------------------------------------


def trained_hash(seed: int) -> str:
    convkit.utils.set_random_seed(seed)
    model = Sequential(
        [
            Input((16, 16, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(40, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 16, 16, 1), dtype=np.float32), rng.integers(0, 10, 300)
    history = model.fit(x, y, batch_size=128, epochs=2, validation_split=0.2, verbose=0)
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    digest.update(repr(history.history).encode())
    return digest.hexdigest()


def test_a_seed_gives_the_same_bits_whatever_the_number_of_threads(threads):
    found = set()
    for count in (1, 2, 3, 1):
        threads(count)
        found.add(trained_hash(7))
    assert len(found) == 1
    assert trained_hash(8) not in found


def test_a_seed_gives_the_same_bits_in_another_process(tmp_path):
    code = """if True:
        import hashlib
        import convkit
        convkit.utils.set_random_seed(3)
        (x, y), _ = convkit.datasets.digits.load_data()
        model = convkit.Sequential([
            convkit.layers.Conv2D(8, 3, activation="relu", input_shape=(8, 8, 1)),
            convkit.layers.Flatten(),
            convkit.layers.Dropout(0.5),
            convkit.layers.Dense(10, activation="softmax"),
        ])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x.reshape(-1, 8, 8, 1), y, batch_size=100, verbose=0)
        print(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
    """
    found = {output_of(code, tmp_path, OMP_NUM_THREADS=str(n)) for n in (1, 2, 3)}
    assert len(found) == 1


def test_a_loss_that_does_not_look_at_the_targets_trains_too():
    model = Sequential([Input((2,)), layers.Dense(2)])
    model.compile("sgd", lambda y_true, y_pred: ops.mean_squared_error(y_pred, y_pred))
    history = model.fit(np.ones((5, 2)), np.ones((5, 2)), verbose=0)
    assert history.history["loss"] == [0.0]


def test_a_metric_on_other_targets_than_the_loss_is_refused():
    model = Sequential([Input((2,)), layers.Dense(3, activation="softmax")])
    with pytest.raises(ValueError, match="a metric on labels, as the loss takes, got mse"):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["mse"])


def test_a_softmax_over_another_axis_is_not_taken_for_logits():
    model = Sequential([Input((5, 1)), layers.Softmax(axis=1)])
    model.compile("sgd", "categorical_crossentropy")
    x, y = np.random.default_rng(0).random((4, 5, 1)), np.ones((4, 5, 1))
    expected = losses.CategoricalCrossentropy()(y.astype("f"), model.predict(x))
    assert model.evaluate(x, y) == pytest.approx(expected, abs=1e-9)
