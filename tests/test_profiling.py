"""Plans and profiles: what they say, and that what they look at stays as it was; a program's
memory over many steps; and its arithmetic, which takes subnormal numbers for zero."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from processes import output_of

import convkit
from convkit import Model, Sequential, callbacks, layers, ops, plot, profiling

LOSSES = [
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
]


def convolutional(dtype: str = "float32") -> Model:
    return Sequential(
        [
            layers.Conv2D(4, 3, activation="relu", input_shape=(8, 8, 1), dtype=dtype, name="c"),
            layers.MaxPooling2D(2, dtype=dtype, name="p"),
            layers.Flatten(dtype=dtype),
            layers.Dropout(0.3, dtype=dtype, name="drop"),
            layers.Dense(3, activation="softmax", dtype=dtype, name="d"),
        ]
    )


def joined(dtype: str = "float32") -> Model:
    x = layers.Input((8, 8, 1), dtype=dtype)
    a = layers.Conv2D(3, 3, padding="same", dtype=dtype, name="a")(x)
    b = layers.Conv2D(3, 1, activation="tanh", dtype=dtype, name="b")(a)
    both = layers.Concatenate(dtype=dtype)([a, layers.Add(dtype=dtype, name="sum")([a, b])])
    flat = layers.Flatten(dtype=dtype)(both)
    return Model(x, layers.Dense(3, activation="sigmoid", dtype=dtype, name="d")(flat))


def data(n: int = 40, loss: str = LOSSES[2]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 3, n)
    x = rng.integers(0, 256, (n, 8, 8, 1)).astype(np.uint8)
    return x, labels if loss.startswith("sparse") else np.eye(3, dtype=np.float32)[labels]


def compiled(make: Callable[..., Model] = convolutional, dtype: str = "float32") -> Model:
    model = make(dtype)
    model.compile("adam", LOSSES[2], metrics=["accuracy"])
    return model


def plan_of(model: Model, **arguments: Any) -> str:
    """What summary prints below the table of layers."""
    said: list[str] = []
    model.summary(said.append, plan=True, **arguments)
    return said[0].split("\n\n", 1)[1]


def row_of(result: profiling.Profile, layer: str, kernel: str) -> profiling.Row:
    (row,) = (row for row in result.rows if (row.layer, row.kernel) == (layer, kernel))
    return row


def profiled(model: Model, *arguments: Any, **options: Any) -> profiling.Profile:
    return convkit.profile(model, *arguments, seconds=0, print_fn=None, **options)


# ---- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [convolutional, joined])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plan_of_every_model_loss_and_dtype(make, loss, dtype):
    model = make(dtype)
    assert "forward pass, batches of 128" in plan_of(model)
    model.compile("sgd", loss, metrics=["accuracy", "mse"] if "sparse" not in loss else None)
    before = plan_of(model, batch_size=64)
    assert "training step, batches of 64" in before
    assert "KB per thread for its tile" in before
    model.fit(*data(loss=loss), verbose=0)
    assert plan_of(model, batch_size=64) == before


def test_a_plan_without_a_loss_is_that_of_a_forward_pass():
    model = convolutional()
    model.compile("sgd")
    assert "forward pass" in plan_of(model)


def test_a_plan_depends_on_the_batch():
    model = compiled()
    assert "depth-first" in plan_of(model, batch_size=16)
    assert "depth-first" not in plan_of(model, batch_size=1)
    with pytest.raises(ValueError, match="batch_size"):
        model.summary(plan=True, batch_size=0)


def test_a_plan_says_what_each_kernel_is_for():
    lines = [line.split() for line in plan_of(compiled()).splitlines()]
    names = [" ".join(line) for line in lines]
    for expected in (
        "data gather depth-first 520",
        "c + p conv2d + relu + max_pool2d depth-first 1,296",
        "d dense depth-first 108 156",
        "d softmax + sparse_crossentropy depth-first 32",
        "metrics sparse_accuracy depth-first 20",
        "loss sparse_crossentropy backward depth-first 32",
        "p + c max_pool2d + relu backward depth-first",
        "c conv2d backward, kernel depth-first 1,296",
        "metrics accumulate, accuracy breadth-first 4",
        "loss accumulate, loss breadth-first 4",
        "optimizer next_step breadth-first",
        "drop next_step breadth-first",
        "c adam, kernel update",
        "d adam, bias update",
    ):
        assert any(name.startswith(expected) for name in names), expected


def test_what_belongs_to_losses_and_metrics_of_one_s_own():
    class Custom(convkit.metrics.Metric):
        name = "custom"

        def call(self, y_true, y_pred):
            return ops.mean_absolute_error(y_true, ops.relu(y_pred))

    def loss(y_true, y_pred):
        return ops.mean_squared_error(y_true, ops.tanh(y_pred))

    model = joined()
    model.compile("sgd", loss, metrics=[Custom()])
    result = profiled(model, *data(loss="mse"))
    kernels = {(row.layer, row.kernel) for row in result.rows}
    assert {
        ("loss", "tanh"),
        ("loss", "tanh backward"),
        ("loss", "mean_squared_error"),
        ("metrics", "relu"),
        ("metrics", "mean_absolute_error"),
        ("metrics", "accumulate, custom"),
        ("a", "add"),  # of the gradients of a value that is read twice
        ("sum", "add"),
    } <= kernels


def of_every_layer() -> Model:
    """Layers of every kind, one after the other."""
    y = x = layers.Input((12, 12, 3), name="x")
    shared = layers.Rescaling(1 / 255, name="scaled")
    for layer in (
        shared,
        layers.Normalization(mean=0.5, variance=0.1),
        layers.RandomFlip(),
        layers.RandomContrast(0.2),
        layers.RandomRotation(0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomZoom(0.1),
        layers.RandomCrop(10, 10, name="cropped"),
        layers.GaussianNoise(0.1),
        layers.ZeroPadding2D(1, name="padded"),
        layers.Conv2D(6, 3, padding="same", use_bias=False, name="c"),
        layers.BatchNormalization(name="norm"),
        layers.PReLU(shared_axes=[1, 2], name="prelu"),
        layers.SpatialDropout2D(0.2),
        layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
        layers.SiLU(name="silu"),
        layers.SeparableConv2D(8, 3, padding="same", name="separable"),
        layers.GELU(),
        layers.MaxPooling2D(2),
        layers.Conv2DTranspose(6, 2, strides=2, name="up"),
        layers.ELU(),
        layers.AveragePooling2D(2),
        layers.UpSampling2D(2),
        layers.Cropping2D(1),
        layers.Hardswish(),
        layers.LeakyReLU(),
        layers.Activation("mish"),
    ):
        y = layer(y)
    other = layers.LayerNormalization(name="rows")(y)
    for join in (
        layers.Add(),
        layers.Multiply(name="product"),
        layers.Average(),
        layers.Maximum(),
        layers.Minimum(),
        layers.Subtract(),
    ):
        y = join([y, other])
    y = layers.Permute((2, 3, 1))(layers.Permute((3, 1, 2), name="order")(y))
    y = layers.ReLU(name="relu")(y)
    y = layers.Concatenate()(
        [layers.GlobalAveragePooling2D(name="mean")(y), layers.GlobalMaxPooling2D(name="max")(y)]
    )
    y = layers.Reshape((24,))(layers.Flatten()(layers.RepeatVector(2, name="twice")(y)))
    y = layers.Dense(3, kernel_regularizer="l2", kernel_constraint="max_norm", name="d")(
        layers.Dropout(0.1, name="drop")(y)
    )
    return Model(x, layers.Softmax()(y))


def test_a_plan_of_every_layer():
    model = of_every_layer()
    known = {getattr(layers, name) for name in layers.__all__}
    known -= {layers.Layer, layers.ArrayLayer, layers.Input}
    assert known == {type(layer) for layer in model.layers}
    model.compile(
        convkit.optimizers.RMSprop(
            convkit.schedules.ExponentialDecay(1e-3, 10, 0.9),
            weight_decay=1e-4,
            global_clipnorm=1.0,
            use_ema=True,
        ),
        convkit.losses.CategoricalFocalCrossentropy(),
        metrics=["accuracy"],
    )
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (32, 12, 12, 3)).astype(np.uint8)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 32)]
    result = profiled(model, x, y)
    assert {
        ("scaled", "gather + rescale"),
        ("cropped", "random_transform"),
        ("padded", "pad2d"),
        ("norm", "batch_norm"),
        ("norm", "batch_norm backward"),
        ("norm", "moving_average, moving_variance"),
        ("norm", "weight_decay, gamma"),
        ("norm", "rmsprop, beta"),
        ("norm", "sgd, beta average"),
        ("prelu", "prelu backward"),
        ("silu", "silu backward"),
        ("depthwise", "depthwise_conv2d"),
        ("depthwise", "depthwise_conv2d backward, kernel"),
        ("separable", "depthwise_conv2d"),
        ("separable", "conv2d backward, input"),
        ("up", "conv2d_transpose"),
        ("up", "bias"),
        ("up", "conv2d_transpose backward, input"),
        ("up", "conv2d_transpose backward, kernel"),
        ("up", "bias backward"),
        ("rows", "layer_norm backward"),
        ("product", "multiply backward"),
        ("order", "permute backward"),
        ("mean", "mean backward"),
        ("max", "max backward"),
        ("twice", "repeat"),
        ("twice", "sum backward"),
        ("drop", "dropout backward"),
        ("d", "penalty, kernel"),
        ("d", "regularize"),
        ("d", "clip by norm"),
        ("d", "constrain, kernel"),
        ("loss", "focal_crossentropy backward"),
        ("optimizer", "sum of squares"),
        ("rmsprop", "from table, learning_rate"),
    } <= {(row.layer, row.kernel) for row in result.rows}
    of_transposed = [row for row in result.rows if row.kernel.startswith("conv2d_transpose")]
    assert len(of_transposed) == 3
    assert all(row.multiply_adds == 6 * 6 * 8 * 6 * 4 for row in of_transposed)
    assert all(row.share is not None for row in result.rows if row.multiply_adds)
    assert max(map(len, plan_of(model).splitlines())) <= 110
    assert max(map(len, str(result).splitlines())) <= 120
    forward = {(row.layer, row.kernel) for row in profiled(model, x).rows}
    assert ("up", "conv2d_transpose") in forward
    assert ("c", "conv2d") in forward  # with the normalisation in its weights
    assert ("norm", "batch_norm") not in forward


def test_tables_fit_a_terminal():
    name = "a_layer_with_a_name_that_goes_on_and_on"
    model = Sequential(
        [
            layers.Conv2D(4, 3, activation="leaky_relu", name=name, input_shape=(28, 28, 3)),
            layers.MaxPooling2D(2, name=f"{name}_and_on"),
            layers.Flatten(),
            layers.Dense(1000, activation="softmax"),
        ]
    )
    model.compile("adam", LOSSES[2], metrics=["accuracy"])
    x, y = np.zeros((20, 28, 28, 3), np.uint8), np.zeros(20, int)
    said: list[str] = []
    result = convkit.profile(model, x, y, seconds=0, print_fn=said.append)
    assert said == [str(result)]
    rows = tuple(replace(row, seconds=1e-5) for row in result.rows)
    assert max(map(len, str(replace(result, rows=rows)).splitlines())) <= 120
    assert max(map(len, plan_of(model).splitlines())) <= 110
    assert f"{name[:25]}…  conv2d + leaky_relu + max_pool2d  depth-first" in said[0]
    assert result.rows[2].layer == f"{name} + {name}_and_on"


# ---- profiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [convolutional, joined])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_profile_of_a_training_step(make, dtype):
    model = compiled(make, dtype)
    result = profiled(model, *data(), batch_size=32)
    assert result.title == f"{model.name}: training step"
    assert result.batch_size == 32
    assert all(row.seconds is not None and row.seconds >= 0 for row in result.rows)
    assert result.seconds == sum(row.seconds for row in result.rows) > 0
    assert all(row.share is not None for row in result.rows if row.multiply_adds)
    assert result.share > 0
    assert row_of(result, "d", "adam, kernel").schedule == "update"


def test_what_only_moves_is_a_share_of_a_copy():
    norm = layers.BatchNormalization(name="norm", input_shape=(16, 16, 4))
    model = Sequential([norm, layers.Flatten()])
    result = profiled(model, np.zeros((8, 16, 16, 4), np.float32))
    row = row_of(result, "norm", "scale and shift")
    assert not row.multiply_adds
    assert row.share > 0
    assert row.peak_name == "copy"
    assert " copy\n" in str(result)


def test_a_profile_of_a_forward_pass():
    result = profiled(convolutional(), data()[0])
    assert result.title.endswith("forward pass")
    assert result.batch_size == 40
    assert row_of(result, "d", "dense").multiply_adds == 3 * 36
    assert not any("backward" in row.kernel for row in result.rows)


def test_a_profile_builds_a_model():
    model = Sequential([layers.Flatten(), layers.Dense(3)])
    assert profiled(model, data()[0]).rows
    assert model.built


def test_a_profile_leaves_no_trace():
    convkit.utils.set_random_seed(5)
    model = compiled()
    x, y = data()
    model.fit(x, y, verbose=0)
    step = model._training_step(model._arrays("fit", x, y), 32)

    def state() -> list[bytes]:
        variables = [*step.program.variables, *model.weights, *model.optimizer.variables]
        return [v.value.tobytes() for v in variables]

    before, logs = state(), step.scores.logs()
    generator = convkit.random.generator()
    drawn = str(generator.bit_generator.state)
    profiled(model, x, y, batch_size=32)
    profiled(model, x)
    plan_of(model)
    assert state() == before
    assert step.scores.logs() == logs
    assert convkit.random.generator() is generator
    assert str(generator.bit_generator.state) == drawn
    assert not step.program.native.seconds()  # and training is not measured from now on


def test_training_goes_on_after_a_profile_as_without():
    def weights(with_profile: bool) -> list[np.ndarray]:
        convkit.utils.set_random_seed(6)
        model = compiled()
        model.fit(*data(), verbose=0)
        if with_profile:
            profiled(model, *data(), batch_size=32)
        model.fit(*data(), epochs=2, verbose=0)
        return [v.numpy() for v in model.weights]

    for a, b in zip(weights(True), weights(False), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_profile_that_is_interrupted_leaves_no_trace(monkeypatch):
    model = compiled()
    x, y = data()
    model.fit(x, y, verbose=0)
    before = [v.numpy() for v in model.weights]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "median", interrupt)
    with pytest.raises(KeyboardInterrupt):
        profiled(model, x, y)
    for a, b in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(x, y, verbose=0)


def test_profiles_of_what_cannot_be_measured():
    x, y = data()
    with pytest.raises(ValueError, match="at least one sample"):
        profiled(compiled(), x[:0], y[:0])
    with pytest.raises(ValueError, match=r"profile: expected a compiled model"):
        profiled(convolutional(), x, y)
    with pytest.raises(ValueError, match=r"profile: expected x of shape"):
        profiled(compiled(), x[..., 0], y)
    with pytest.raises(ValueError, match="batch_size"):
        profiled(compiled(), x, y, batch_size=0)

    class Inside(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            profiled(self.model, x, y)

    with pytest.raises(RuntimeError, match="being trained"):
        compiled().fit(x, y, verbose=0, callbacks=Inside())


def test_the_peak_is_that_of_the_dtype(backend):
    single, double = (profiling.measure_peak(dtype) for dtype in ("float32", "float64"))
    assert single > double > 1e8


# ---- the picture ---------------------------------------------------------------------------------


def test_the_picture_of_a_profile(tmp_path):
    pytest.importorskip("matplotlib")
    row = profiling.Row("first", "conv2d + relu", "depth-first", 1000, 80, 6e-6, 0.5)
    rows = (
        row,
        replace(row, layer="second", schedule="breadth-first", share=0.004, seconds=3.99e-6),
        replace(row, layer="third", share=None, multiply_adds=0, seconds=6e-9),
        replace(row, layer="fourth", share=None, multiply_adds=0, seconds=4e-9),
    )
    measured = profiling.Profile("net: forward pass", rows, 32, 1, 1, 1, "avx2", 1e9)
    figure = plot.profile(measured, path=tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    (ax,) = figure.axes
    assert [label.get_text().split()[0] for label in ax.get_yticklabels()] == [
        "first",
        "second",
        "2",
    ]
    assert [text.get_text() for text in ax.texts] == ["50% of peak", "<1% of peak"]
    assert [text.get_text() for text in ax.get_legend().texts] == ["depth-first", "breadth-first"]
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, [6, 3.99, 0.01])
    assert "µs per sample: batches of 32, one thread, avx2" in ax.get_xlabel()
    assert figure.get_suptitle() == "net: forward pass: 10 µs a sample, 20% of the arithmetic peak"
    assert plot.profile(measured, title="mine").get_suptitle() == "mine"


def test_the_picture_of_a_measured_model():
    pytest.importorskip("matplotlib")
    figure = plot.profile(profiled(compiled(joined), *data()))
    assert figure.axes[0].patches


def test_a_picture_needs_times():
    plan = replace(profiled(convolutional(), data()[0]), peak=None)
    with pytest.raises(ValueError, match="with times, got a plan without times"):
        plot.profile(plan)
    with pytest.raises(ValueError, match="with times, got 3"):
        plot.profile(3)


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="getrusage counts in kilobytes on Linux alone")
def test_many_steps_take_no_more_memory_than_a_few(tmp_path):
    code = """
import gc, resource, tracemalloc
import numpy as np
import convkit
from convkit import layers

model = convkit.Sequential([
    layers.Conv2D(2, 3, activation="relu", input_shape=(6, 6, 1)), layers.MaxPooling2D(2),
    layers.Flatten(), layers.Dropout(0.2), layers.Dense(3, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
x, y = np.ones((3000 * 8, 6, 6, 1), np.float32), np.zeros(3000 * 8, np.int32)

class EveryBatch(convkit.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass

def work(steps):
    some = slice(0, 8 * steps)
    model.fit(x[some], y[some], batch_size=8, verbose=0)
    model.fit(x[some], y[some], batch_size=8, verbose=0, callbacks=EveryBatch())
    for _ in range(steps // 10):
        model.train_on_batch(x[:8], y[:8])
        model.evaluate(x[:8], y[:8], verbose=0)
        model.predict(x[:8])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

work(3000)
before = peak()
work(3000)
grown = peak() - before
tracemalloc.start()
work(30)
gc.collect()  # the interpreter's free lists count as memory in use
gc.disable()
before = tracemalloc.get_traced_memory()[0]
work(300)
cycles = gc.collect()
print(grown, tracemalloc.get_traced_memory()[0] - before, cycles)
"""
    found = output_of(code, tmp_path, OMP_NUM_THREADS="1").split()
    kilobytes, objects, cycles = map(int, found)
    # What allocators keep: less than 200 bytes for each of the steps in between.
    assert kilobytes < 1024
    assert objects < 8192
    assert cycles < 100


# ---- subnormal numbers ---------------------------------------------------------------------------

TINY = np.float32(1e-40)


def keeps_subnormals() -> bool:
    """Whether this thread's arithmetic knows numbers between zero and the least normal one."""
    return bool((np.array([TINY]) * np.float32(0.5))[0] > 0)


def fading() -> tuple[Model, np.ndarray, np.ndarray]:
    """A model whose activations and gradients are subnormal, and data for it."""
    model = Sequential(
        [layers.Dense(32, use_bias=False, input_shape=(32,)), layers.Dense(32), layers.Dense(1)]
    )
    model.compile(convkit.optimizers.SGD(1e-3), "mse")
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 1e-20))
    return model, np.full((64, 32), 1e-20, np.float32), np.full((64, 1), 1e-20, np.float32)


@pytest.mark.parametrize("batch", [1, 64])
def test_programs_take_subnormal_numbers_for_zero(backend, batch):
    dense = layers.Dense(4, use_bias=False, input_shape=(8,))
    model = Sequential([dense])
    dense.kernel.assign(np.full((8, 4), 1e-30))
    x = np.full((64, 8), 1e-12, np.float32)
    assert keeps_subnormals()
    np.testing.assert_array_equal(model.predict(x, batch_size=batch), 0)
    by_hand = ops.dense(x, dense.kernel.value)
    np.testing.assert_allclose(by_hand, 8e-42, rtol=1e-2)
    assert keeps_subnormals()


def test_all_threads_of_a_program_take_subnormal_numbers_for_zero(threads):
    threads(3)
    dense = layers.Dense(64, use_bias=False, input_shape=(64,))
    model = Sequential([dense])
    dense.kernel.assign(np.full((64, 64), 1e-30))
    x = np.full((20_000, 64), 1e-12, np.float32)
    np.testing.assert_array_equal(model.predict(x, batch_size=20_000), 0)


def test_float64_has_room_for_what_float32_takes_for_zero():
    dense = layers.Dense(4, use_bias=False, input_shape=(8,), dtype="float64")
    model = Sequential([dense])
    dense.kernel.assign(np.full((8, 4), 1e-30))
    np.testing.assert_allclose(model.predict(np.full((3, 8), 1e-12)), 8e-42)


def test_subnormal_numbers_stay_known_around_programs():
    model, x, y = fading()
    seen: list[bool] = []

    class Look(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(keeps_subnormals())

    model.fit(x, y, epochs=2, verbose=0, callbacks=Look())
    model.fit(x, y, epochs=2, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x)
    assert seen == [True] * 4
    assert keeps_subnormals()


def test_subnormal_numbers_stay_known_after_an_exception():
    model, x, y = fading()

    class Fail(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise LookupError

    with pytest.raises(LookupError):
        model.fit(x, y, verbose=0, callbacks=Fail())
    assert keeps_subnormals()


@contextmanager
def alarm(seconds: float, handler: Callable[..., None]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts")
def test_subnormal_numbers_stay_known_in_and_after_an_interrupt():
    model, x, y = fading()
    arrays = model._arrays("fit", x, y)
    step = model._training_step(arrays, 1)
    order = np.zeros(2_000_000, np.int64)  # far more steps than there is time for
    seen: list[bool] = []

    def interrupt(*_: object) -> None:
        seen.append(keeps_subnormals())
        raise KeyboardInterrupt

    with step.on(arrays, order), alarm(0.1, interrupt), pytest.raises(KeyboardInterrupt):
        step.program.run(0, len(order), 1)
    assert seen == [True]
    assert keeps_subnormals()


@pytest.mark.parametrize("count", [1, 3])
def test_subnormal_numbers_stay_known_in_threads(count, threads):
    threads(count)
    seen: list[bool] = []

    def work() -> None:
        model, x, y = fading()
        model.fit(np.repeat(x, 50, axis=0), np.repeat(y, 50, axis=0), batch_size=3200, verbose=0)
        seen.append(keeps_subnormals())

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == [True, True]
    assert keeps_subnormals()
    # Threads that worked for a program work for ops again, in the mode of their caller.
    x, weights = np.full((4096, 64), 1e-12, np.float32), np.full((64, 64), 1e-30, np.float32)
    assert (ops.dense(x, weights) > 0).all()
