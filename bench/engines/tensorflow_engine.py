"""TensorFlow; a whole epoch is one `tf.function`, and Adam its fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from network import (
    Add,
    BatchNorm,
    Branch,
    Concatenate,
    Conv,
    Dense,
    Depthwise,
    Flatten,
    GlobalPool,
    Network,
    Pool,
    Upsample,
)
from op_cases import Case

ACTIVATIONS = {"relu": tf.nn.relu, "tanh": tf.tanh}
LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7


def set_up(threads: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.random.set_seed(0)


def version() -> str:
    return f"tensorflow {tf.__version__}"


def _logits(
    network: Network, weights: list[Any], x: tf.Tensor, averages: list[Any], training: bool
) -> tf.Tensor:
    """`averages`: a mean and a variance for each normalisation, which training brings forward."""
    values, moments = iter(weights), iter(averages)
    outputs: list[tf.Tensor] = []
    for layer in network.layers:
        match layer:
            case Conv(_, size, padding, _, stride, bias):
                x = tf.nn.conv2d(x, next(values), stride, _padding(size, padding, stride))
                x = tf.nn.bias_add(x, next(values)) if bias else x
            case Depthwise(size, stride):
                zeros = _padding(size, "same", stride)
                x = tf.nn.depthwise_conv2d(x, next(values), [1, stride, stride, 1], zeros)
            case BatchNorm():
                mean, variance = next(moments), next(moments)
                x, *found = tf.compat.v1.nn.fused_batch_norm(
                    x,
                    next(values),
                    next(values),
                    None if training else mean,
                    None if training else variance,
                    layer.EPSILON,
                    is_training=training,
                )
                if training:
                    for average, new in zip((mean, variance), found, strict=True):
                        average.assign_add((1 - layer.MOMENTUM) * (new - average))
            case Pool(size, "max"):
                x = tf.nn.max_pool2d(x, size, size, "VALID")
            case Pool(size):
                x = tf.nn.avg_pool2d(x, size, size, "VALID")
            case GlobalPool():
                x = tf.reduce_mean(x, (1, 2))
            case Upsample(size):
                x = _upsample2d(x, size, "nearest")
            case Concatenate(other):
                x = tf.concat((x, outputs[other]), -1)
            case Add(other):
                x = x + outputs[other]
            case Branch(other):
                x = outputs[other]
            case Flatten():
                x = tf.reshape(x, (-1, np.prod(x.shape[1:])))
            case Dense():
                x = tf.nn.bias_add(x @ next(values), next(values))
        activation = getattr(layer, "activation", None)
        if activation:
            x = ACTIVATIONS[activation](x)
        outputs.append(x)
    return x


def _moments(network: Network) -> list[Any]:
    """Those that a normalisation has before training."""
    return [
        tf.Variable(made)
        for layer, shape in zip(network.layers, network.shapes(), strict=False)
        if isinstance(layer, BatchNorm)
        for made in (tf.zeros(shape[-1]), tf.ones(shape[-1]))
    ]


def _losses(network: Network, logits: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss of each answer, and how many answers are right."""
    if network.per_pixel:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
        right = (logits > 0) == (target > 0.5)
    else:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
        right = tf.argmax(logits, 1, tf.int32) == target
    return losses, tf.math.count_nonzero(right, dtype=tf.int32)


def trainer(
    network: Network, x: np.ndarray, targets: np.ndarray, batch_size: int
) -> Callable[[], tuple[float, float]]:
    images, wanted = tf.constant(x), tf.constant(targets)
    samples, whole = len(x), len(x) // batch_size * batch_size
    weights = [tf.Variable(array) for array in network.weights()]
    m = [tf.Variable(tf.zeros_like(array)) for array in weights]
    v = [tf.Variable(tf.zeros_like(array)) for array in weights]
    powers = [tf.Variable(BETA_1), tf.Variable(BETA_2)]
    averages = _moments(network)

    def step(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch, target = tf.gather(images, index), tf.gather(wanted, index)
        with tf.GradientTape() as tape:
            logits = _logits(network, weights, batch, averages, training=True)
            losses, right = _losses(network, logits, target)
            loss = tf.reduce_mean(losses)
        for variable, a, b, gradient in zip(
            weights, m, v, tape.gradient(loss, weights), strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=a.handle,
                v=b.handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=LEARNING_RATE,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=EPSILON,
                grad=gradient,
            )
        powers[0].assign(powers[0] * BETA_1)
        powers[1].assign(powers[1] * BETA_2)
        return tf.reduce_sum(losses), right

    @tf.function
    def run() -> tuple[tf.Tensor, tf.Tensor]:
        order = tf.random.shuffle(tf.range(samples))
        total, hits = tf.constant(0.0), tf.constant(0)
        for start in tf.range(0, whole, batch_size):
            loss, right = step(tf.ensure_shape(order[start : start + batch_size], (batch_size,)))
            total += loss
            hits += right
        if whole < samples:
            loss, right = step(order[whole:])
            total += loss
            hits += right
        return total, hits

    def epoch() -> tuple[float, float]:
        total, hits = run()
        answers = samples * network.targets
        return float(total) / answers, int(hits) / answers

    return epoch


def predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    weights = [tf.constant(array) for array in network.weights()]
    chances = tf.sigmoid if network.per_pixel else tf.nn.softmax
    moments = _moments(network)

    @tf.function
    def run(x: tf.Tensor) -> tf.Tensor:
        return chances(_logits(network, weights, x, moments, training=False))

    return lambda x: run(tf.constant(x)).numpy()


def operation(case: Case, arrays: list[np.ndarray]) -> Callable[[], Any]:
    inputs = [tf.constant(array) for array in arrays]
    op = partial(OPS[case.op], **case.arguments)
    if not case.backward:
        return partial(tf.function(op), *inputs)
    first = 1 if case.names[1] == "target" else 0

    def gradients(dy: tf.Tensor, *inputs: tf.Tensor) -> list[tf.Tensor]:
        wanted = list(inputs[first:])
        with tf.GradientTape() as tape:
            tape.watch(wanted)
            y = op(*inputs)
        return tape.gradient(y, wanted, dy)

    return partial(tf.function(gradients), *inputs)


def _conv2d(
    x: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    padding: str | int,
    strides: int = 1,
    activation: str | None = None,
    groups: int = 1,
) -> tf.Tensor:
    """Groups follow from the kernel's channels."""
    zeros = _padding(kernel.shape[0], padding, strides)
    y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides, zeros), bias)
    return tf.nn.relu(y) if activation else y


def _padding(size: int, padding: str | int, stride: int) -> Any:
    """For TensorFlow, which means by "same" half a kernel on each side at stride 1 alone."""
    if padding == "valid" or (padding == "same" and stride == 1):
        return padding.upper()
    zeros = [size // 2 if padding == "same" else padding] * 2
    return [[0, 0], zeros, zeros, [0, 0]]


def _depthwise_conv2d(
    x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, padding: str, activation: str | None = None
) -> tf.Tensor:
    y = tf.nn.bias_add(tf.nn.depthwise_conv2d(x, kernel, [1] * 4, padding.upper()), bias)
    return tf.nn.relu(y) if activation else y


def _dense(
    x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, activation: str | None = None
) -> tf.Tensor:
    y = tf.nn.bias_add(x @ kernel, bias)
    return tf.nn.relu(y) if activation else y


def _upsample2d(x: tf.Tensor, size: int, interpolation: str) -> tf.Tensor:
    return tf.image.resize(x, (x.shape[1] * size, x.shape[2] * size), interpolation)


def _shares(prediction: tf.Tensor) -> tf.Tensor:
    return prediction / tf.reduce_sum(prediction, -1, keepdims=True)


def _categorical_crossentropy(
    target: tf.Tensor, prediction: tf.Tensor, from_logits: bool = False
) -> tf.Tensor:
    if from_logits:
        return tf.nn.softmax_cross_entropy_with_logits(target, prediction)
    return -tf.reduce_sum(target * tf.math.log(_shares(prediction)), -1)


def _sparse_categorical_crossentropy(
    target: tf.Tensor, prediction: tf.Tensor, from_logits: bool = False
) -> tf.Tensor:
    if from_logits:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(target, prediction)
    return -tf.math.log(tf.gather(_shares(prediction), target, batch_dims=1))


def _binary_crossentropy(
    target: tf.Tensor, prediction: tf.Tensor, from_logits: bool = False
) -> tf.Tensor:
    if from_logits:
        loss = tf.nn.sigmoid_cross_entropy_with_logits(target, prediction)
    else:
        loss = -(target * tf.math.log(prediction) + (1 - target) * tf.math.log1p(-prediction))
    return tf.reduce_mean(loss, -1)


OPS: dict[str, Callable[..., tf.Tensor]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "dense": _dense,
    "max_pool2d": lambda x, pool_size, strides=None: tf.nn.max_pool2d(
        x, pool_size, strides or pool_size, "VALID"
    ),
    "avg_pool2d": lambda x, pool_size, strides=None: tf.nn.avg_pool2d(
        x, pool_size, strides or pool_size, "VALID"
    ),
    "upsample2d": _upsample2d,
    "rescale": lambda x, scale, offset: x * scale + offset,
    "relu": tf.nn.relu,
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.2),
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "exp": tf.exp,
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
    "add": tf.add,
    "concatenate": lambda a, b: tf.concat((a, b), -1),
    "categorical_crossentropy": _categorical_crossentropy,
    "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
    "binary_crossentropy": _binary_crossentropy,
    "mean_squared_error": lambda target, prediction: tf.reduce_mean(
        tf.math.squared_difference(prediction, target), -1
    ),
    "mean_absolute_error": lambda target, prediction: tf.reduce_mean(
        tf.abs(prediction - target), -1
    ),
}
