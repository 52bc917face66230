"""What the planner makes of a graph, and that results stay what they were."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import convkit
from convkit import _core, layers, ops, planner
from convkit.graph import Symbol, Variable
from convkit.models import Model, Sequential
from convkit.models.steps import Evaluation, Prediction, TrainingStep
from convkit.program import Program


def conv_pool_dense() -> Model:
    return Sequential(
        [
            layers.Conv2D(6, 5, padding="same", activation="relu", input_shape=(13, 13, 1)),
            layers.MaxPooling2D(2),
            layers.Conv2D(17, 3, activation="tanh"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(21, activation="sigmoid"),
            layers.Dense(5, activation="softmax"),
        ]
    )


def pool_without_activation() -> Model:
    return Sequential(
        [
            layers.Conv2D(4, 3, input_shape=(11, 9, 2)),
            layers.MaxPooling2D((2, 3)),
            layers.Conv2D(3, 2, strides=2, padding="same", activation="leaky_relu"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def overlapping_and_average_pools() -> Model:
    return Sequential(
        [
            layers.Conv2D(5, 3, groups=1, dilation_rate=2, input_shape=(12, 12, 3)),
            layers.Activation("relu"),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.Conv2D(10, 3, groups=5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def graph_with_joins() -> Model:
    x = layers.Input((8, 8, 3))
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    pooled = layers.MaxPooling2D(2)(a)
    b = layers.Conv2D(4, 3, padding="same")(pooled)
    up = layers.UpSampling2D(2, interpolation="bilinear")(layers.Add()([b, pooled]))
    joined = layers.Concatenate()([layers.UpSampling2D(2)(pooled), up, a])
    y = layers.Dense(5, activation="softmax")(layers.Flatten()(joined))
    return Model(x, y)


def shared_layer() -> Model:
    x = layers.Input((6, 6, 2))
    conv = layers.Conv2D(2, 3, padding="same", activation="relu")
    y = layers.Dense(5, activation="softmax")(layers.Flatten()(conv(conv(x))))
    return Model(x, y)


def dropout_mlp() -> Model:
    return Sequential(
        [
            layers.Flatten(input_shape=(5, 5, 1)),
            layers.Dense(18, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(7),
            layers.Dropout(0.2),
            layers.Dense(5, activation="softmax"),
        ]
    )


def wide_mlp() -> Model:
    """Of weights so large that several tiles are taken at once."""
    return Sequential(
        [
            layers.Flatten(input_shape=(5, 5, 1)),
            layers.Dense(370, activation="relu"),
            layers.Dense(370, activation="relu"),
            layers.Dense(5, activation="softmax"),
        ]
    )


def rescaled_pixels() -> Model:
    return Sequential(
        [
            layers.Rescaling(1 / 127.5, offset=-1, input_shape=(9, 9, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Rescaling(0.5, 0.25),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


MODELS = [
    conv_pool_dense,
    pool_without_activation,
    overlapping_and_average_pools,
    graph_with_joins,
    shared_layer,
    dropout_mlp,
    wide_mlp,
    rescaled_pixels,
]


def data(model: Model, n: int, sparse: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    x = rng.integers(0, 256, (n, *model.input_shape[1:])).astype(np.uint8)
    labels = rng.integers(0, model.output_shape[-1], n)
    return x, labels if sparse else np.eye(model.output_shape[-1])[labels]


def trained(
    make: object,
    depth_first: bool,
    n: int = 50,
    batch: int = 32,
    dtype: str = "float32",
    loss: object = "sparse_categorical_crossentropy",
    optimizer: object = "adam",
    pixels: bool = False,
) -> tuple[list[np.ndarray], dict[str, float], TrainingStep]:
    """Weights and logs after two epochs, from the same start."""
    convkit.utils.set_random_seed(3)
    convkit.config.set_floatx(dtype)
    try:
        model = make()  # type: ignore[operator]
    finally:
        convkit.config.set_floatx("float32")
    model.compile(optimizer, loss, metrics=["accuracy"])
    x, y = data(model, n, sparse=model.loss.sparse)
    arrays = model._arrays("fit", x if pixels else x / np.float32(255), y)
    step = TrainingStep(model, arrays, model.optimizer, depth_first)
    order = np.random.default_rng(1).permutation(n)
    for _ in range(2):
        step.scores.reset()
        with step.on(arrays, order):
            step.program.run(0, n, batch)
    return [v.numpy() for v in model.weights], step.scores.logs(), step


def test_the_schedule_follows_the_batch_and_the_working_set():
    def schedules(size: int, training: bool) -> list[int]:
        """The sizes of a batch up to 40 that run depth-first."""
        layers = [
            convkit.layers.Conv2D(16, 3, input_shape=(size, size, 3)),
            convkit.layers.Flatten(),
            convkit.layers.Dense(10, activation="softmax"),
        ]
        model = convkit.Sequential([convkit.Sequential(layers)])
        model.build((None, size, size, 3))
        x = np.zeros((40, size, size, 3), np.float32)
        y = None
        if training:
            model.compile("sgd", "sparse_categorical_crossentropy")
            y = np.zeros(40, np.int32)
        tiled = []
        for batch in range(1, 41):
            steps = model._program_for_profile(x, y, batch)[1].steps
            if any(step.tiled for step in steps):
                tiled.append(batch)
        return tiled

    assert schedules(12, training=True) == list(range(6, 41))
    assert schedules(12, training=False) == list(range(11, 41))
    assert schedules(96, training=True) == schedules(96, training=False) == list(range(24, 41))


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("batch", [1, 16, 20, 50])
def test_training_depth_first_is_training(make, batch):
    expected, logs, _ = trained(make, False, batch=batch, dtype="float64")
    weights, tiled_logs, step = trained(make, True, batch=batch, dtype="float64")
    assert any(one.tiled for one in step.program.steps)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert tiled_logs == pytest.approx(logs, abs=1e-10)


@pytest.mark.parametrize("make", MODELS)
def test_training_depth_first_in_float32(make):
    # Plain descent: Adam would blow up the rounding of gradients that are almost zero.
    expected, logs, _ = trained(make, False, optimizer="sgd")
    weights, tiled_logs, _ = trained(make, True, optimizer="sgd")
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
    assert tiled_logs == pytest.approx(logs, abs=1e-5)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy", "mse", "mae"])
def test_every_loss_runs_depth_first(loss):
    expected, logs, _ = trained(conv_pool_dense, False, loss=loss, dtype="float64")
    weights, tiled_logs, step = trained(conv_pool_dense, True, loss=loss, dtype="float64")
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert tiled_logs == pytest.approx(logs, abs=1e-10)
    behind = [one.kernel for one in step.program.steps if not one.tiled]
    assert not any("backward" in kernel for kernel in behind)


@pytest.mark.parametrize("make", MODELS)
def test_bits_do_not_depend_on_threads(make):
    def digest(threads: int) -> str:
        _core.set_num_threads(threads)
        weights, _, _ = trained(make, True, n=200, batch=150)
        return hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()

    before = _core.get_num_threads()
    try:
        assert len({digest(threads) for threads in (1, 2, 3, 7)}) == 1
    finally:
        _core.set_num_threads(before)


@pytest.mark.parametrize("make", MODELS)
def test_evaluation_depth_first(make):
    convkit.utils.set_random_seed(4)
    model = make()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = data(model, 37)
    arrays = model._arrays("evaluate", x / np.float32(255), y)
    logs = [Evaluation(model, arrays, depth_first).run(arrays, 20) for depth_first in (False, True)]
    assert logs[1] == pytest.approx(logs[0], abs=1e-4)


# ---- rules ---------------------------------------------------------------------------------------


def kernels(make: object, depth_first: bool = True) -> list[str]:
    return [one.kernel for one in trained(make, depth_first)[2].program.steps]


def test_convolution_activation_and_pooling_become_one():
    found = kernels(conv_pool_dense)
    assert found.count("tile_conv2d") == 2
    assert found.count("tile_unpool2d") == 2
    assert not {"activation", "max_pool2d", "max_pool2d_backward"} & set(found)
    assert found.count("activation_backward") == 1  # of the dense layer


def test_pooling_joins_a_convolution_without_activation():
    found = kernels(pool_without_activation)
    assert found.count("tile_unpool2d") == 1
    assert "max_pool2d" not in found


def test_overlapping_pools_stay_on_their_own():
    found = kernels(overlapping_and_average_pools)
    assert "tile_unpool2d" not in found
    assert {"max_pool2d", "avg_pool2d", "max_pool2d_backward", "avg_pool2d_backward"} <= set(found)


def test_what_is_read_elsewhere_is_not_fused_away():
    found = kernels(graph_with_joins)  # the pooled value's convolution is joined later on
    assert "tile_unpool2d" not in found
    assert "max_pool2d" in found


def test_breadth_first_training_pools_on_its_own():
    """Only the kernel for tiles notes where a maximum was."""
    found = kernels(conv_pool_dense, False)
    assert not any(kernel.startswith("tile_") for kernel in found)
    assert found.count("fused_conv2d") == 2 and found.count("fused_dense") == 1
    assert found.count("max_pool2d") == found.count("max_pool2d_backward") == 2
    assert "activation" not in found and found.count("activation_backward") == 3
    assert found.count("dense") == 1  # the one before the softmax


def test_what_is_not_fused_is_the_graph_as_recorded():
    found = kernels(pool_without_activation, False)
    assert found.count("conv2d") == found.count("fused_conv2d") == 1
    assert {"max_pool2d", "max_pool2d_backward", "dense"} <= set(found)


def predicting(model: Model) -> list:
    """The steps of inference, breadth-first."""
    x = np.zeros((1, *model.input_shape[1:]), model.dtype)
    return Prediction(model, [x], False).program.steps


def test_one_image_meets_a_kernel_for_each_layer():
    steps = predicting(convkit.models.lenet())
    names = ["fused_conv2d", "fused_conv2d", "fused_dense", "fused_dense", "dense", "softmax"]
    assert [step.kernel for step in steps] == names
    assert [(step.spec.pool_height, step.spec.pool_width) for step in steps[:2]] == [(2, 2)] * 2
    assert [step.spec.activation for step in steps[:4]] == [0] * 4
    assert [len(step.nodes) for step in steps] == [3, 3, 2, 2, 1, 1]


def test_a_pool_of_any_size_joins_a_convolution():
    steps = predicting(pool_without_activation())
    names = ["fused_conv2d", "fused_conv2d", "dense", "softmax"]
    assert [step.kernel for step in steps] == names
    first, second = (step.spec for step in steps[:2])
    assert (first.activation, first.pool_height, first.pool_width) == (-1, 2, 3)
    assert (second.activation, second.slope, second.pool_height) == (1, pytest.approx(0.2), 1)


def test_other_pools_stay_on_their_own():
    names = [step.kernel for step in predicting(overlapping_and_average_pools())]
    assert names[:4] == ["fused_conv2d", "max_pool2d", "fused_conv2d", "avg_pool2d"]


def test_a_value_that_is_read_twice_is_pooled_on_its_own():
    names = [step.kernel for step in predicting(graph_with_joins())]
    assert names.count("fused_conv2d") == names.count("max_pool2d") == names.count("conv2d") == 1


def test_an_activation_after_a_pooling_stays_on_its_own():
    model = Sequential(
        [
            layers.Conv2D(4, 3, input_shape=(8, 8, 1)),
            layers.MaxPooling2D(2),
            layers.Activation("relu"),
        ]
    )
    assert [step.kernel for step in predicting(model)] == ["fused_conv2d", "activation"]


@pytest.mark.parametrize("wanted", ["convolution", "activation"])
def test_a_result_is_not_fused_away(wanted):
    x = Symbol((None, 6, 6, 1), "float32", place="fed")
    kernel = Variable(np.ones((3, 3, 1, 2), np.float32), "kernel")
    z = ops.conv2d(x, kernel)
    activated = ops.relu(z)
    y = ops.max_pool2d(activated, 2)
    results = [z if wanted == "convolution" else activated, y]
    found = [step.kernel for step in Program("float32", results=results).steps]
    if wanted == "convolution":
        assert found == ["conv2d", "activation", "max_pool2d"]
    else:
        assert found == ["fused_conv2d", "max_pool2d"]


@pytest.mark.parametrize("make", [convkit.models.lenet, *MODELS])
@pytest.mark.parametrize("n", [1, 3])
def test_fusion_breadth_first_changes_no_prediction(monkeypatch, make, n):
    model = make()
    x = data(model, n)[0].astype(model.dtype)
    (fused,) = Prediction(model, [x], False).run([x], n)
    monkeypatch.setattr(planner, "_fuse_rows", lambda steps, wanted: steps)
    (single,) = Prediction(model, [x], False).run([x], n)
    np.testing.assert_allclose(single, fused, rtol=1e-6, atol=1e-7)


def test_updates_stand_at_the_end():
    found = kernels(conv_pool_dense)
    assert set(found[-8:]) == {"adam"}


def test_scores_leave_the_tiles_and_nothing_else():
    for loss in ("sparse_categorical_crossentropy", "categorical_crossentropy", "mse"):
        _, _, step = trained(conv_pool_dense, True, loss=loss)
        moved = [one for one in step.program.steps if one.kernel == "untile"]
        assert [one.outputs[0].shape for one in moved] == [(None,), (None,)]
        behind = {one.kernel for one in step.program.steps if not one.tiled}
        assert behind == {"accumulate", "next_step", "adam"}


@pytest.mark.parametrize("depth_first", [False, True])
def test_rescaling_is_done_while_gathering(depth_first):
    _, _, step = trained(rescaled_pixels, depth_first, pixels=True)
    found = step.program.steps
    gather = next(one for one in found if one.kernel in ("gather", "tile_gather"))
    assert (gather.spec.scale, gather.spec.offset) == (1 / 127.5, -1)
    assert gather.inputs[0].dtype == "uint8"
    # The one inside the network, and its gradient.
    inside = [one.spec for one in found if one.kernel == "rescale"]
    assert [(spec.scale, spec.offset) for spec in inside] == [(0.5, 0.25), (0.5, 0)]


@pytest.mark.parametrize("depth_first", [False, True])
def test_what_is_rescaled_while_gathering_is_what_was_rescaled_before(depth_first):
    def without() -> Model:
        made = rescaled_pixels()
        return Sequential([layers.Input((9, 9, 1)), *made.layers[-4:]])

    weights, logs, _ = trained(rescaled_pixels, depth_first, dtype="float64", pixels=True)
    convkit.utils.set_random_seed(3)
    convkit.config.set_floatx("float64")
    try:
        model = without()
    finally:
        convkit.config.set_floatx("float32")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = data(model, 50)
    arrays = model._arrays("fit", x / 127.5 - 1, y)
    step = TrainingStep(model, arrays, model.optimizer, depth_first)
    order = np.random.default_rng(1).permutation(50)
    for _ in range(2):
        step.scores.reset()
        with step.on(arrays, order):
            step.program.run(0, 50, 32)
    for variable, found in zip(model.weights, weights, strict=True):
        np.testing.assert_allclose(found, variable.numpy(), rtol=0, atol=1e-9)
    assert logs == pytest.approx(step.scores.logs(), abs=1e-10)


def test_prediction_rescales_while_gathering_too():
    model = rescaled_pixels()
    x = data(model, 5)[0]
    kernels = [one.kernel for one in Prediction(model, [x], True).program.steps]
    assert kernels.count("rescale") == 1
    right = model.predict(x.astype(np.float32))
    np.testing.assert_allclose(model.predict(x), right, rtol=1e-6)


def test_what_is_read_besides_the_rescaling_is_gathered_as_it_is():
    def twice() -> Model:
        x = layers.Input((5,))
        y = layers.Concatenate()([x, layers.Rescaling(2)(x)])
        return Model(x, layers.Dense(5, activation="softmax")(y))

    for depth_first in (False, True):
        assert "rescale" in kernels(twice, depth_first)


def clipped_loss(y_true: object, y_pred: object) -> object:
    """A function of one's own: of the probabilities, where the named loss takes the logits."""
    return ops.categorical_crossentropy(y_true, y_pred)


FUSED_LOSSES = [
    ("sparse_categorical_crossentropy", "sparse_softmax_crossentropy"),
    ("categorical_crossentropy", "softmax_crossentropy"),
    (clipped_loss, "softmax_crossentropy"),
]


@pytest.mark.parametrize(("loss", "kernel"), FUSED_LOSSES)
def test_softmax_and_crossentropy_become_one(loss, kernel):
    expected, logs, step = trained(conv_pool_dense, False, loss=loss, dtype="float64")
    apart = [one.kernel for one in step.program.steps]
    weights, fused_logs, step = trained(conv_pool_dense, True, loss=loss, dtype="float64")
    found = [one.kernel for one in step.program.steps]
    assert found.count(kernel) == found.count(f"{kernel}_backward") == 1
    assert "softmax" in apart
    assert not [name for name in found if name.startswith("softmax") and "cross" not in name]
    assert not [name for name in found if "categorical_crossentropy" in name]
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert fused_logs == pytest.approx(logs, abs=1e-10)


def test_two_softmaxes_share_no_loss():
    def logits() -> Model:
        return Sequential([layers.Dense(5, input_shape=(7,))])

    def loss(y_true: object, z: object) -> object:
        apart = ops.mean_squared_error(ops.softmax(z), ops.rescale(ops.softmax(z), 2, 1))
        return ops.add(ops.categorical_crossentropy(y_true, z, from_logits=True), apart)

    expected, logs, _ = trained(logits, False, loss=loss, dtype="float64")
    weights, fused_logs, step = trained(logits, True, loss=loss, dtype="float64")
    found = [one.kernel for one in step.program.steps]
    assert found.count("softmax") == found.count("softmax_crossentropy") == 1
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert fused_logs == pytest.approx(logs, abs=1e-10)


def test_the_softmax_of_another_axis_stays_on_its_own():
    def across() -> Model:
        x = layers.Input((6, 5))
        y = layers.Softmax(axis=1)(layers.Dense(5)(x))
        return Model(x, y)

    def target_free(y_true: object, y_pred: object) -> object:
        return ops.categorical_crossentropy(y_pred, y_pred)  # asks for both gradients

    model = across()
    model.compile("sgd", "categorical_crossentropy")
    rng = np.random.default_rng(0)
    arrays = model._arrays("fit", rng.normal(size=(20, 6, 5)), rng.uniform(size=(20, 6, 5)))
    step = TrainingStep(model, arrays, model.optimizer, True)
    assert "softmax" in [one.kernel for one in step.program.steps]

    found = [
        one.kernel for one in trained(conv_pool_dense, True, loss=target_free)[2].program.steps
    ]
    assert "softmax_backward" in found
    assert "softmax_crossentropy" not in found


# ---- the process around a program ----------------------------------------------------------------


def test_subnormal_numbers_of_the_process_stay():
    tiny = np.float32(1e-40)
    trained(conv_pool_dense, True)
    assert np.array([tiny]) * np.float32(0.5) > 0


def test_memory_of_tiles_does_not_grow_with_the_batch():
    _, _, step = trained(conv_pool_dense, True)
    native = step.program.native
    assert 0 < native.tile_bytes() < 1 << 20
    assert native.arena_bytes(1 << 20) < 100 << 20  # losses, scores, and no image
    assert native.sum_bytes(1 << 20) == native.sum_bytes(1 << 14)
