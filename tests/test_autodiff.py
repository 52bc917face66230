"""Gradients for loops of one's own, and layers that compute in NumPy or CuPy."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import DEVICES

import convkit
from convkit import device, layers, losses, metrics, models, ops, optimizers, registered
from convkit.layers import ArrayLayer
from convkit.models import Model, Sequential, load_model, value_and_grad

CLASSES = 3
RNG = np.random.default_rng(8)
POINTS = RNG.normal(size=(20, 5))
LABELS = RNG.integers(0, CLASSES, 20)
WEIGHTS = RNG.uniform(0.2, 2, 20)

emulated = pytest.mark.skipif("cuda_emulated" not in DEVICES, reason="no emulated device here")


@pytest.fixture
def float64():
    before = convkit.config.floatx()
    convkit.config.set_floatx("float64")
    yield
    convkit.config.set_floatx(before)


def network(*inside: layers.Layer, units: int = CLASSES, **options: Any) -> Sequential:
    return Sequential(
        [
            layers.Input((5,)),
            layers.Dense(6, activation="tanh"),
            *inside,
            layers.Dense(units, **options),
        ]
    )


def states(model) -> list[np.ndarray]:
    """Copies of all that a call of the step may change but for the trainable weights."""
    changing = [*model.non_trainable_weights, *model.states]
    return [variable.numpy() for variable in changing]


def put_back(model, before) -> None:
    for variable, value in zip([*model.non_trainable_weights, *model.states], before, strict=True):
        variable.assign(value)


def assert_slopes(model, step, x, y, sample_weight=None, tolerance=1e-6) -> None:
    """The gradients are the slopes of the loss, each along a few directions."""
    before = states(model)

    def loss() -> float:
        put_back(model, before)  # the same dropout
        return step(x, y, sample_weight)[0]

    put_back(model, before)
    _, gradients = step(x, y, sample_weight)
    assert len(gradients) == len(model.trainable_weights)
    for variable, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient.shape == variable.shape and str(gradient.dtype) == variable.dtype
        value = variable.numpy()
        for _ in range(2):
            direction = RNG.normal(size=variable.shape)
            around = []
            for sign in (1, -1):
                variable.assign(value + sign * 1e-6 * direction)
                around.append(loss())
            variable.assign(value)
            slope = (around[0] - around[1]) / 2e-6
            expected = np.sum(gradient * direction)
            assert abs(slope - expected) <= tolerance * (1 + abs(expected)), variable.name


# ---- value_and_grad ------------------------------------------------------------------------------

HOT = np.eye(CLASSES)[LABELS]
SIGNS = np.where(RNG.uniform(size=(20, CLASSES)) < 0.5, -1.0, 1.0)


def quartic(y_true, y_pred):
    return ops.mean(ops.square(ops.square(ops.subtract(y_true, y_pred))), axis=-1)


@pytest.mark.parametrize(
    ("loss", "y", "activation"),
    [
        ("mse", HOT, None),
        ("mae", HOT, None),
        ("categorical_crossentropy", HOT, "softmax"),
        ("sparse_categorical_crossentropy", LABELS, "softmax"),
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS, None),
        (losses.CategoricalCrossentropy(label_smoothing=0.2), HOT, "softmax"),
        ("binary_crossentropy", HOT, "sigmoid"),
        ("hinge", SIGNS, None),
        (losses.Huber(0.5), HOT, None),
        ("kl_divergence", 0.9 * HOT + 0.1, "softmax"),
        ("cosine_similarity", HOT, None),
        (quartic, HOT, "sigmoid"),
    ],
)
def test_gradients_are_slopes(float64, loss, y, activation):
    model = network(activation=activation)
    assert_slopes(model, value_and_grad(model, loss), POINTS, y)
    assert_slopes(model, value_and_grad(model, loss), POINTS, y, WEIGHTS)


def test_the_loss_is_that_of_evaluate_and_gradients_need_no_compile():
    model = network(activation="softmax")
    step = value_and_grad(model, "sparse_categorical_crossentropy")
    loss, gradients = step(POINTS, LABELS)
    assert isinstance(loss, float)
    assert all(isinstance(gradient, np.ndarray) for gradient in gradients)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert loss == pytest.approx(model.evaluate(POINTS, LABELS, verbose=0), rel=1e-6)
    weighted, _ = step(POINTS, LABELS, WEIGHTS)
    expected = model.evaluate(POINTS, LABELS, sample_weight=WEIGHTS, verbose=0)
    assert weighted == pytest.approx(expected, rel=1e-6)


class Penalised(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight("scale", input_shape[1:], "ones", regularizer="l1")

    def call(self, x):
        y = ops.multiply(x, self.scale)
        self.add_loss(ops.square(y))
        return y


def test_penalties_and_added_losses_are_in_both(float64):
    model = Sequential(
        [
            layers.Input((5,)),
            layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1"),
            Penalised(),
            layers.Dense(CLASSES, bias_regularizer="l1_l2", bias_initializer="ones"),
        ]
    )
    step = value_and_grad(model, "mse")
    assert_slopes(model, step, POINTS, HOT)
    model.compile("sgd", "mse")
    assert step(POINTS, HOT)[0] == pytest.approx(model.evaluate(POINTS, HOT, verbose=0), rel=1e-12)


class OfWeights(layers.Layer):
    """An op of a weight alone beside one of x: exp(scale) x + 2 scale."""

    def build(self, input_shape):
        self.scale = self.add_weight("scale", input_shape[1:], "glorot_uniform")

    def call(self, x):
        return ops.add(ops.multiply(x, ops.exp(self.scale)), ops.multiply(self.scale, 2.0))


def test_ops_of_weights_alone_have_slopes_and_follow_the_weights(float64):
    model = network(OfWeights())
    assert_slopes(model, value_and_grad(model, "mse"), POINTS, HOT)
    layer = next(one for one in model.layers if isinstance(one, OfWeights))
    part = Model(model.inputs, model.symbol_of(layer))
    before = part.predict(POINTS)
    layer.set_weights([np.full_like(layer.scale.numpy(), 0.25)])
    assert not np.allclose(part.predict(POINTS), before)
    x = RNG.normal(size=(3, *layer.scale.shape))
    np.testing.assert_allclose(layer(x), np.exp(0.25) * x + 0.5)


class Operators(layers.Layer):
    """Written with operators alone."""

    def build(self, input_shape):
        self.scale = self.add_weight("scale", input_shape[1:], "glorot_uniform")

    def call(self, x):
        y = self.scale * x + x * 0.5 - (1.0 - x) / 4.0
        return -(y**2) / (2.0 + x**2) + np.arange(x.shape[-1], dtype=np.float64) * x


def squares(y_true, y_pred):
    return (y_true - y_pred) ** 2


def test_operators_are_ops(float64):
    model = network(Operators())
    assert_slopes(model, value_and_grad(model, squares), POINTS, HOT)
    layer = next(one for one in model.layers if isinstance(one, Operators))
    part = Model(model.inputs, model.symbol_of(layer))
    before = Model(model.inputs, model.symbol_of(model.layers[-3])).predict(POINTS)
    np.testing.assert_allclose(part.predict(POINTS), layer(before), rtol=1e-12)


def test_numpy_and_powers_of_symbols_say_what_there_is():
    x = layers.Input((5,))
    with pytest.raises(TypeError, match=r"numpy\.sin: expected arrays, .* convkit\.ops take"):
        np.sin(x)
    with pytest.raises(TypeError, match=r"numpy\.mean: expected arrays, .* convkit\.ops take"):
        np.mean(x)
    with pytest.raises(TypeError, match="to the power of 2, got 3"):
        x**3


def test_numpy_makes_no_constant_of_a_weight():
    class Constant(layers.Layer):
        def build(self, input_shape):
            self.scale = self.add_weight("scale", input_shape[1:], "ones")

        def call(self, x):
            return ops.multiply(x, np.exp(self.scale))

    with pytest.raises(TypeError, match=r"scale: expected a function of convkit\.ops .* constant"):
        Sequential([layers.Input((5,)), Constant()])


def several() -> Model:
    a, b = layers.Input((5,), name="a"), layers.Input((2,), name="b")
    shared = layers.Dense(4, activation="tanh")
    both = layers.Concatenate()([shared(a), layers.Dense(3)(b)])
    kind = layers.Dense(CLASSES, activation="softmax", name="kind")(both)
    size = layers.Dense(1, name="size")(layers.Add()([shared(a), layers.Dense(4)(both)]))
    return Model({"a": a, "b": b}, {"kind": kind, "size": size})


def test_several_inputs_and_outputs(float64):
    model = several()
    x = {"a": POINTS, "b": POINTS[:, :2]}
    y = {"kind": LABELS, "size": POINTS[:, :1]}
    step = value_and_grad(model, {"kind": "sparse_categorical_crossentropy", "size": "mse"})
    assert_slopes(model, step, x, y)
    assert_slopes(model, step, x, y, {"size": WEIGHTS})
    listed = value_and_grad(model, ["sparse_categorical_crossentropy", "mse"])
    assert listed([POINTS, POINTS[:, :2]], [LABELS, POINTS[:, :1]])[0] == step(x, y)[0]
    alone = value_and_grad(model, {"kind": "sparse_categorical_crossentropy"})
    loss, gradients = alone(x, {"kind": LABELS})
    names = [variable.name for variable in model.trainable_weights]
    assert not gradients[names.index("size/kernel")].any()
    assert gradients[names.index("kind/kernel")].any()
    assert loss < step(x, y)[0]


def test_random_layers_move_on_and_slopes_hold(float64):
    model = network(layers.Dropout(0.5), layers.GaussianNoise(0.3))
    step = value_and_grad(model, "mse")
    assert_slopes(model, step, POINTS, HOT)
    assert len({step(POINTS, HOT)[0] for _ in range(4)}) == 4


def test_running_means_move_on_and_slopes_hold(float64):
    norm = layers.BatchNormalization(momentum=0.5)
    model = network(norm)
    step = value_and_grad(model, "mse")
    assert_slopes(model, step, POINTS, HOT, tolerance=1e-5)
    model.predict(POINTS)  # with means that the next steps change
    before = model.predict(POINTS)
    for _ in range(3):
        mean = norm.moving_mean.numpy()
        step(POINTS, HOT)
        assert (norm.moving_mean.numpy() != mean).all()
    assert (model.predict(POINTS) != before).any()


def test_images_and_all_that_layers_do(float64):
    model = Sequential(
        [
            layers.Input((7, 6, 2)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(3, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(4, 3, padding="same"),
            layers.LayerNormalization(),
            layers.MaxPooling2D(2),
            layers.Conv2DTranspose(2, 2, strides=2),
            layers.PReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    x = RNG.integers(0, 256, (6, 7, 6, 2)).astype(np.uint8)
    step = value_and_grad(model, "sparse_categorical_crossentropy")
    assert_slopes(model, step, x, LABELS[:6], tolerance=1e-5)


# Where a step goes depth-first, and where it does not.
@pytest.mark.parametrize("batch", [4, 64])
@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.1),
        lambda: optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01, global_clipnorm=0.5),
        lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2),
        lambda: optimizers.RMSprop(convkit.schedules.ExponentialDecay(0.1, 2, 0.5)),
    ],
)
def test_a_loop_is_fit_bit_for_bit(make, batch):
    rest = 3 if batch == 4 else 0  # which `fit` would go through depth-first, too
    x = RNG.integers(0, 256, (5 * batch + rest, 12, 12, 1)).astype(np.uint8)
    y = RNG.integers(0, CLASSES, len(x))

    def made() -> Sequential:
        convkit.utils.set_random_seed(3)
        return Sequential(
            [
                layers.Input((12, 12, 1)),
                layers.Rescaling(1 / 255),
                layers.Conv2D(4, 5, activation="relu", kernel_regularizer="l2"),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dropout(0.25),
                layers.Dense(CLASSES, activation="softmax", kernel_constraint="max_norm"),
            ]
        )

    fitted, own, loss = made(), made(), "sparse_categorical_crossentropy"
    fitted.compile(make(), loss)
    history = fitted.fit(x, y, batch_size=batch, epochs=2, shuffle=False, verbose=0).history
    step, optimizer = value_and_grad(own, loss), make()
    for epoch in range(2):
        total = 0.0
        for i in range(0, len(x), batch):
            rows = slice(i, i + batch)
            value, gradients = step(x[rows], y[rows])
            optimizer.apply(gradients, own.trainable_weights)
            total += value * len(y[rows])
        assert total / len(x) == pytest.approx(history["loss"][epoch], rel=1e-6)
    optimizer.finalize_variable_values(own.trainable_weights)
    for one, other in zip(fitted.get_weights(), own.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(fitted.states, own.states, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_steps_follow_what_is_trainable_and_how_the_model_is_made():
    model = network()
    step = value_and_grad(model, "mse")
    assert len(step(POINTS, HOT)[1]) == 4
    model.layers[0].trainable = False
    assert len(step(POINTS, HOT)[1]) == 2
    model.layers[0].trainable = True
    assert len(step(POINTS, HOT)[1]) == 4
    before = step(POINTS, HOT)[0]
    model.add(layers.ReLU())  # with the same weights
    assert step(POINTS, HOT)[0] != before
    assert step(POINTS[:3].astype(np.float32), HOT[:3])[0] > 0  # other dtypes and numbers of rows
    unbuilt = Sequential([layers.Dense(CLASSES)])
    assert len(value_and_grad(unbuilt, "mse")(POINTS, HOT)[1]) == 2


def test_gradients_are_the_callers(float64):
    model = network()
    step = value_and_grad(model, "mse")
    _, first = step(POINTS, HOT)
    kept = [gradient.copy() for gradient in first]
    step(2 * POINTS, HOT)
    for one, other in zip(first, kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_that_are_no_numbers_stay_so():
    model = network()
    loss, gradients = value_and_grad(model, "mse")(np.full((2, 5), np.nan), HOT[:2])
    assert np.isnan(loss)
    assert all(np.isnan(gradient).all() for gradient in gradients)
    loss, gradients = value_and_grad(model, "mse")(POINTS[:2], np.full((2, CLASSES), np.inf))
    assert loss == np.inf
    assert np.isinf(gradients[-1]).all()


def test_what_value_and_grad_refuses():
    model = network()
    with pytest.raises(TypeError, match="value_and_grad: expected a model, got <Dense"):
        value_and_grad(layers.Dense(3), "mse")
    step = value_and_grad(model, "mse")
    for x, y, error, text in (
        (POINTS[:0], HOT[:0], ValueError, "value_and_grad: expected at least one sample"),
        (POINTS, HOT[:3], ValueError, "value_and_grad: expected .*y"),
        (POINTS[:, :3], HOT, ValueError, "value_and_grad: expected x of shape"),
        (POINTS, None, ValueError, "value_and_grad: expected y"),
    ):
        with pytest.raises(error, match=text):
            step(x, y)
    with pytest.raises(ValueError, match="value_and_grad: expected a loss"):
        value_and_grad(model, None)(POINTS, HOT)
    with pytest.raises(ValueError, match=r"losses\.get: expected loss to be one of"):
        value_and_grad(model, "nothing")(POINTS, HOT)
    model.trainable = False
    with pytest.raises(ValueError, match="value_and_grad: expected weights that can be trained"):
        step(POINTS, HOT)


def test_threads_wait_for_each_other():
    model = network()
    step = value_and_grad(model, "mse")
    expected = [step(POINTS[i : i + 5], HOT[i : i + 5]) for i in range(0, 20, 5)]
    wrong = []

    def work(part: int) -> None:
        rows = slice(5 * part, 5 * part + 5)
        for _ in range(30):
            loss, gradients = step(POINTS[rows], HOT[rows])
            same = all(map(np.array_equal, gradients, expected[part][1]))
            if loss != expected[part][0] or not same:
                wrong.append(part)

    workers = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@emulated
def test_gradients_on_a_gpu():
    with device.stand_in(fake_cupy, "cuda_emulated"):
        model = network(layers.BatchNormalization(), activation="softmax")
        step = value_and_grad(model, "sparse_categorical_crossentropy")
        before = states(model)
        expected, slopes = step(POINTS, LABELS)
        model.to("cuda")
        put_back(model, before)
        loss, gradients = step(POINTS, LABELS)
        assert loss == pytest.approx(expected, rel=1e-5)
        for one, other in zip(gradients, slopes, strict=True):
            assert isinstance(one, fake_cupy.ndarray)
            np.testing.assert_allclose(one.get(), other, rtol=1e-4, atol=1e-6)
        optimizer = optimizers.Adam(0.1)
        model.predict(POINTS)
        there = fake_cupy.asarray(POINTS.astype(np.float32))
        for _ in range(2):
            shown = model.predict(POINTS)
            _, gradients = step(there, LABELS)
            optimizer.apply(gradients, model.trainable_weights)
            changed = model.predict(POINTS)  # of weights into which batch norm is folded anew
            assert (shown != changed).any()
        model.to("cpu")
        np.testing.assert_allclose(model.predict(POINTS), changed, rtol=1e-4, atol=1e-6)
        assert isinstance(step(POINTS, LABELS)[1][0], np.ndarray)


# ---- layers in NumPy -----------------------------------------------------------------------------


def host(x):
    """NumPy's array of either; CuPy's stand-in computes nothing itself."""
    return x if isinstance(x, np.ndarray) else x.get()


def like(values, x):
    """An array where x is."""
    return values if isinstance(x, np.ndarray) else fake_cupy.asarray(values)


class Cube(ArrayLayer):
    def forward(self, x):
        return like(host(x) ** 3, x)

    def backward(self, dy, x, y):
        return like(3 * host(x) ** 2 * host(dy), x)


class Double(ArrayLayer):
    """Exact, and so the same bits as the op."""

    def forward(self, x):
        return like(host(x) * 2, x)

    def backward(self, dy, x, y):
        return like(host(dy) * 2, x)


class Mixed(ArrayLayer):
    """x @ kernel + bias of another size, the bias without a gradient."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", (input_shape[-1], self.units))
        self.bias = self.add_weight("bias", (self.units,), "ones")

    def forward(self, x, kernel, bias):
        return like(host(x) @ host(kernel) + host(bias), x)

    def backward(self, dy, x, y, kernel, bias):
        dx = host(dy) @ host(kernel).T
        return like(dx, x), like(host(x).T @ host(dy), x), None

    def compute_output_shape(self, input_shape):
        return (None, self.units)


class Product(ArrayLayer):
    """Of two inputs."""

    def forward(self, x):
        a, b = x
        return like(host(a) * host(b), a)

    def backward(self, dy, x, y):
        a, b = x
        return [like(host(dy) * host(b), a), like(host(dy) * host(a), a)]


class Doubled(layers.Layer):
    """`Double` made of an op."""

    def call(self, x):
        return ops.rescale(x, 2.0)


def test_layers_in_numpy_have_slopes(float64):
    for model in (
        network(Cube()),
        network(Mixed(), Cube()),
        Sequential([layers.Input((5,)), Mixed()]),
    ):
        targets = RNG.normal(size=(20, *model.output_shape[1:]))
        step = value_and_grad(model, "mse")
        if len(model.weights) == 4:
            assert_slopes(model, step, POINTS, targets)
        else:  # but for the bias, to which no gradient is given
            for layer in model.layers:
                if isinstance(layer, Mixed):
                    layer.bias.trainable = False
            assert_slopes(model, step, POINTS, targets)


def test_a_gradient_that_is_none_is_zero():
    model = Sequential([layers.Input((5,)), Mixed()])
    model.layers[0].bias.assign(np.full(4, np.inf))
    loss, (_, bias) = value_and_grad(model, "mae")(POINTS, np.zeros((20, 4)))
    assert loss == np.inf
    np.testing.assert_array_equal(bias, np.zeros(4))


def test_several_inputs_in_numpy(float64):
    a, b = layers.Input((5,), name="a"), layers.Input((5,), name="b")
    shared = layers.Dense(3, activation="tanh")
    model = Model([a, b], Product()([shared(a), layers.Dense(3)(b)]))
    step = value_and_grad(model, "mse")
    assert_slopes(model, step, [POINTS, POINTS[::-1]], HOT)
    alone = Model(a, Product()([shared(a), shared(a)]))  # one thing twice
    assert_slopes(alone, value_and_grad(alone, "mse"), POINTS, HOT)


def test_on_arrays_a_layer_computes_at_once():
    x = POINTS.astype(np.float32)
    np.testing.assert_array_equal(Cube()(x), x**3)
    np.testing.assert_array_equal(Product()([x, x]), x * x)
    mixed = Mixed(2)
    np.testing.assert_array_equal(mixed(x), x @ mixed.kernel.numpy() + 1)
    assert mixed.compute_output_shape((None, 5)) == (None, 2)
    assert Product().compute_output_shape([(None, 5), (None, 5)]) == (None, 5)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch", [3, 20])
def test_fit_is_that_of_the_same_layer_made_of_ops(float64, shuffle, batch):
    results = []
    for layer in (Double, Doubled):
        convkit.utils.set_random_seed(4)
        model = network(layer(), layers.Dropout(0.3), activation="softmax")
        optimizer = optimizers.Adam(0.05, use_ema=True)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(
            POINTS,
            LABELS,
            batch_size=batch,
            epochs=3,
            shuffle=shuffle,
            verbose=0,
            validation_split=0.3,
            sample_weight=WEIGHTS,
        )
        scores = model.evaluate(POINTS, LABELS, batch_size=7, verbose=0)
        values = [*model.get_weights(), *history.history.values(), scores, model.predict(POINTS)]
        results.append((list(history.history), values))
    assert results[0][0] == results[1][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        # Natively, steps are fused that are single ones here: the same to rounding.
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shuffle", [False, True])
def test_samples_come_in_the_order_of_native_programs(shuffle):
    orders = []
    for layer in (Double, Doubled):
        convkit.utils.set_random_seed(6)
        model = Sequential([layers.Input((1,)), layer()])
        model.add(layers.Dense(1, use_bias=False, kernel_initializer="ones"))
        model.compile(optimizers.SGD(0.0), "mae")
        sums = []
        watch = convkit.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, s=sums: s.append(logs["loss"] * 3 * (batch + 1))
        )
        # Of powers of 2: a batch's sum tells which samples it had.
        x = 2.0 ** np.arange(18)[:, None]
        model.fit(x, 0 * x, batch_size=3, epochs=3, shuffle=shuffle, verbose=0, callbacks=watch)
        orders.append(np.diff(np.round(sums).reshape(3, 6), prepend=0))
    np.testing.assert_array_equal(*orders)
    assert np.array_equal(orders[0][0], orders[0][1]) is not shuffle


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.1, momentum=0.9, clipnorm=0.5),
        lambda: optimizers.SGD(convkit.schedules.CosineDecay(0.1, 5), global_clipnorm=0.5),
        lambda: optimizers.AdamW(0.01, clipvalue=0.1, use_ema=True, ema_overwrite_frequency=3),
        *(lambda cls=cls: cls() for cls in optimizers.NAMES.values()),
    ],
)
def test_all_that_training_does_is_done_from_python(float64, make):
    results = []
    for layer in (Double, Doubled):
        convkit.utils.set_random_seed(4)
        shared = layers.Dense(6, kernel_regularizer="l2", kernel_constraint="max_norm")
        a = layers.Input((5,))
        hidden = layers.Add()([shared(a), shared(layers.GaussianNoise(0.2)(layer()(a)))])
        hidden = layers.BatchNormalization()(layers.Dense(4, activity_regularizer="l1")(hidden))
        model = Model(a, layers.Dense(2, activation="sigmoid")(hidden))
        chosen = [metrics.AUC(), metrics.F1Score("macro"), "mae", metrics.ConfusionMatrix()]
        model.compile(make(), losses.Huber(0.3), metrics=chosen)
        y = (POINTS[:, :2] > 0).astype(float)
        history = model.fit(
            POINTS, y, batch_size=6, epochs=3, verbose=0, validation_data=(POINTS, y)
        )
        results.append([*model.get_weights(), *history.history.values(), model.predict(POINTS)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-10)


def test_streams_bars_and_callbacks(capfd):
    seen = []
    watch = convkit.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append(b))
    model = network(Cube())
    model.compile("sgd", "mse")
    parts = [(POINTS[i : i + 8], HOT[i : i + 8]) for i in range(0, 20, 8)]
    model.fit(iter(parts), verbose=0, callbacks=watch, validation_data=iter(parts))
    model.fit(POINTS, HOT, batch_size=8, verbose=1, callbacks=watch, steps_per_epoch=2)
    assert seen == [0, 1, 2, 0, 1]
    assert "Epoch 1/1" in capfd.readouterr().err
    assert model.train_on_batch(POINTS, HOT) > model.train_on_batch(POINTS, HOT)


def test_inference_and_compiled():
    model = network(layers.BatchNormalization(), Cube(), layers.Dropout(0.5))
    x = POINTS.astype(np.float32)
    expected = x
    for layer in model.layers:
        expected = layer(expected)
    for rows in (1, 7, 20):
        np.testing.assert_allclose(model.predict(x[:rows]), expected[:rows], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(
            model.predict(x[:rows], batch_size=3), model.predict(x[:rows])
        )
    assert model.predict(x[:0]).shape == (0, CLASSES)
    function = model.compiled(batch_size=8)
    out = np.empty((5, CLASSES), np.float32)
    np.testing.assert_array_equal(function(x[:5]), model.predict(x[:5]))
    np.testing.assert_array_equal(function(POINTS[:5]), model.predict(POINTS[:5]))
    np.testing.assert_array_equal(function(x[::4]), model.predict(x[::4]))
    with pytest.raises(ValueError, match="compiled: expected x of shape"):
        function(x[:5, :2])
    assert function(x[:5], out) is out
    np.testing.assert_array_equal(out, model.predict(x[:5]))
    large = model.compiled(batch_size=64)
    np.testing.assert_array_equal(large(x), model.predict(x))
    part = Model(model.inputs, model.symbol_of(model.layers[2]))
    np.testing.assert_allclose(part.predict(x), (model.layers[1](model.layers[0](x))) ** 3, 1e-5)


def test_compiled_is_for_many_threads():
    model = network(Cube())
    x = POINTS.astype(np.float32)
    function = model.compiled(batch_size=4)
    expected = model.predict(x)
    wrong = []

    def work(at: int) -> None:
        for _ in range(50):
            if not np.array_equal(function(x[at : at + 4]), expected[at : at + 4]):
                wrong.append(at)

    workers = [threading.Thread(target=work, args=(4 * i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_what_has_no_plan_says_so():
    model = network(Cube())
    model.compile("sgd", "mse")
    text = "expected a model made of ops alone, got one with a layer that computes in Python"
    with pytest.raises(ValueError, match=f"profile: {text}"):
        convkit.profile(model, POINTS, HOT)
    with pytest.raises(ValueError, match=f"summary: {text}"):
        model.summary(plan=True)
    model.summary(lambda shown: None)


class Wrong(ArrayLayer):
    def __init__(self, forward, backward, weights=0, **kwargs):
        super().__init__(**kwargs)
        self.functions = forward, backward
        self.count = weights

    def build(self, input_shape):
        for i in range(self.count):
            self.add_weight(f"w{i}", (2,))

    def forward(self, x, *weights):
        return self.functions[0](x)

    def backward(self, dy, x, y, *weights):
        return self.functions[1](dy)


def same(x):
    return x


@pytest.mark.parametrize(
    ("layer", "error", "text"),
    [
        (lambda: Wrong(lambda x: None, same), TypeError, "to return arrays, got NoneType"),
        (lambda: Wrong(lambda x: 3.0, same), TypeError, "to return arrays, got float"),
        (lambda: Wrong(lambda x: x[:, :2], same), ValueError, r"of shape \(20, 6\), got \(20, 2\)"),
        (lambda: Wrong(lambda x: x[:3], same), ValueError, r"of shape \(20, 6\), got \(3, 6\)"),
        (lambda: Wrong(same, lambda dy: dy[0]), ValueError, r"of shape \(20, 6\), got \(6,\)"),
        (lambda: Wrong(same, lambda dy: "no"), TypeError, "to return arrays, got str"),
        (
            lambda: Wrong(same, same, 1),
            ValueError,
            r"backward to return 2 gradients \(of x and each",
        ),
        (lambda: Wrong(same, lambda dy: (dy,), 1), ValueError, "2 gradients .*, got 1"),
        (lambda: Wrong(same, lambda dy: (dy, dy, dy), 1), ValueError, "2 gradients .*, got 3"),
        (
            lambda: Wrong(same, lambda dy: (dy, dy), 1),
            ValueError,
            r"of shape \(2,\), got \(20, 6\)",
        ),
        (lambda: Wrong(lambda x: 1 / 0, same), ZeroDivisionError, "division by zero"),
        (ArrayLayer, TypeError, "a subclass of ArrayLayer must define forward"),
        (
            lambda: type("Half", (ArrayLayer,), {"forward": lambda self, x: x})(),
            TypeError,
            "Half: a subclass of ArrayLayer must define backward",
        ),
    ],
)
def test_wrong_results_are_told(layer, error, text):
    model = network(layer())
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(error, match=text):
        model.fit(POINTS, HOT, verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_of_a_list_are_a_list():
    class One(Product):
        def backward(self, dy, x, y):
            return x[0]

    a = layers.Input((5,))
    model = Model(a, One()([layers.Dense(3)(a), layers.Dense(3)(a)]))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="expected backward to return a list of 2 gradients for x"):
        model.fit(POINTS, HOT, verbose=0)


def test_results_of_other_dtypes_and_orders_are_taken():
    class Loose(ArrayLayer):
        def forward(self, x):
            return np.asfortranarray(x.astype(np.float64) * 2)

        def backward(self, dy, x, y):
            return (dy.astype(np.float16) * 2).T.copy().T

    x = np.ones((4, 5), np.float32)
    model = Sequential([layers.Input((5,)), layers.Dense(6, kernel_initializer="ones"), Loose()])
    assert model.predict(x).dtype == np.float32
    loss, gradients = value_and_grad(model, "mae")(x, np.zeros((4, 6)))
    assert loss == 10
    np.testing.assert_allclose(gradients[1], np.full(6, 2 / 6), rtol=1e-3)


def test_layers_in_numpy_are_saved_and_loaded(tmp_path):
    before = dict(registered._things)
    path = tmp_path / "model.safetensors"
    try:
        model = network(Mixed(3, name="mixed"), Cube())
        model.compile("adam", "mse")
        model.fit(POINTS, HOT, verbose=0)
        model.save(path)
        with pytest.raises(ValueError, match=r"'Mixed'; if it is one of your own, register it"):
            load_model(path)
        models.register(Mixed)
        models.register(Cube)
        loaded = load_model(path)
        for one in (model, loaded):
            one.fit(POINTS, HOT, shuffle=False, verbose=0)
        np.testing.assert_array_equal(loaded.predict(POINTS), model.predict(POINTS))
    finally:
        registered._things.clear()
        registered._things.update(before)


@emulated
def test_layers_compute_on_a_gpu():
    results = []
    with device.stand_in(fake_cupy, "cuda_emulated"):
        for where in ("cpu", "cuda"):
            convkit.utils.set_random_seed(4)
            model = network(Double(), Mixed(7), Cube(), activation="softmax")
            seen = []
            cube = model.layers[3]
            forward = cube.forward
            cube.forward = lambda x, f=forward, s=seen: s.append(type(x).__module__) or f(x)
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
            model.fit(
                POINTS,
                LABELS,
                batch_size=6,
                epochs=2,
                verbose=0,
                device=where,
                validation_split=0.2,
            )
            model.fit(POINTS, LABELS, batch_size=6, shuffle=False, verbose=0)
            assert set(seen) == {"numpy" if where == "cpu" else "fake_cupy"}
            x = POINTS.astype(np.float32)
            if where == "cuda":
                there = fake_cupy.asarray(x)
                np.testing.assert_array_equal(model.predict(there).get(), model.predict(x))
                np.testing.assert_array_equal(cube(there).get(), x**3)
                function = model.compiled(batch_size=4)
                np.testing.assert_array_equal(function(x[:4]), model.predict(x)[:4])
            scores = model.evaluate(x, LABELS, verbose=0)
            results.append([*model.get_weights(), model.predict(x), np.array(scores)])
            if where == "cuda":
                cube.forward = lambda x: x.get()
                with pytest.raises(TypeError, match="to return arrays on the GPU, got NumPy's"):
                    model.evaluate(x, LABELS, verbose=0)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-4)


@emulated
def test_weights_that_moved_are_one_sentence():
    with device.stand_in(fake_cupy, "cuda_emulated"):
        model = network(Cube())
        function = model.compiled()
        model.to("cuda")
        with pytest.raises(RuntimeError, match="expected"):
            function(POINTS[:1].astype(np.float32))
        other = Model(model.inputs, model.outputs)  # on the host, with the same weights
        shown = other.predict(POINTS)
        np.testing.assert_allclose(model.predict(POINTS), shown, rtol=1e-5, atol=1e-5)


def test_an_interrupt_comes_between_two_updates():
    class Interrupts(Double):
        def backward(self, dy, x, y):
            os.kill(os.getpid(), signal.SIGINT)
            return super().backward(dy, x, y)

    model = network(Interrupts())
    optimizer = optimizers.SGD(0.1)
    model.compile(optimizer, "mse")
    with pytest.raises(KeyboardInterrupt):
        model.fit(POINTS, HOT, batch_size=5, verbose=0)
    assert optimizer.iterations.numpy() == 1  # that update was made to its end
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model.layers[1].backward = lambda dy, x, y: 2 * dy
    model.fit(POINTS, HOT, batch_size=5, verbose=0)
    assert optimizer.iterations.numpy() == 5
