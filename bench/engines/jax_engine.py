"""JAX on the CPU; a whole epoch is one compiled `lax.scan`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
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

from engines.clock import fastest

Array = jax.Array
LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


def set_up(threads: int) -> None:
    """XLA sizes its thread pool by the processors that the process may use (see worker.py)."""


def version() -> str:
    return f"jax {jax.__version__}"


def _logits(
    network: Network,
    weights: list[Array],
    x: Array,
    conv2d: Callable[..., Array],
    moments: list[Array] | None = None,
) -> tuple[Array, list[Array]]:
    """The logits, and the moments of the batch, a mean and a variance for each normalisation, which
    uses `moments` instead where they are given."""
    values, given = iter(weights), iter(moments or ())
    outputs: list[Array] = []
    found: list[Array] = []
    for layer in network.layers:
        match layer:
            case Conv(_, size, padding, _, stride, bias):
                kernel = next(values)
                zeros = size // 2 if padding == "same" else 0
                x = conv2d(x, kernel, next(values) if bias else 0.0, zeros, stride)
            case Depthwise(size, stride):
                x = _conv2d(
                    x, next(values).swapaxes(2, 3), 0.0, size // 2, stride, groups=x.shape[-1]
                )
            case BatchNorm():
                if moments is None:
                    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
                else:
                    mean, variance = next(given), next(given)
                found += [mean, variance]
                factor = next(values) * lax.rsqrt(variance + layer.EPSILON)
                x = x * factor + (next(values) - mean * factor)
            case Pool(size, "max"):
                x = _max_pool2d(x, size)
            case Pool(size):
                x = _avg_pool2d(x, size)
            case GlobalPool():
                x = x.mean((1, 2))
            case Upsample(size):
                x = _upsample2d(x, size, "nearest")
            case Concatenate(other):
                x = jnp.concatenate((x, outputs[other]), -1)
            case Add(other):
                x = x + outputs[other]
            case Branch(other):
                x = outputs[other]
            case Flatten():
                x = x.reshape(len(x), -1)
            case Dense():
                x = x @ next(values) + next(values)
        activation = getattr(layer, "activation", None)
        if activation:
            x = ACTIVATIONS[activation](x)
        outputs.append(x)
    return x, found


def _moments(network: Network) -> list[Array]:
    """Those that a normalisation has before training."""
    return [
        made
        for layer, shape in zip(network.layers, network.shapes(), strict=False)
        if isinstance(layer, BatchNorm)
        for made in (jnp.zeros(shape[-1]), jnp.ones(shape[-1]))
    ]


def _loss(network: Network, logits: Array, target: Array) -> tuple[Array, Array]:
    """The mean loss, and how many answers are right."""
    if network.per_pixel:
        right = ((logits > 0) == (target > 0.5)).sum()
        return (jax.nn.softplus(logits) - logits * target).mean(), right
    logs = jax.nn.log_softmax(logits)
    right = (logits.argmax(1) == target).sum()
    return -jnp.take_along_axis(logs, target[:, None], 1).mean(), right


def trainer(
    network: Network,
    x: np.ndarray,
    targets: np.ndarray,
    batch_size: int,
    *,
    as_products: bool = True,
) -> Callable[[], tuple[float, float]]:
    """`as_products`: convolutions as products of matrices, or as XLA's own."""
    conv2d = _conv2d_as_product if as_products else _conv2d
    images, wanted = jnp.asarray(x), jnp.asarray(targets)
    weights = [jnp.asarray(array) for array in network.weights()]
    zeros = [jnp.zeros_like(array) for array in weights]
    m, v = zeros, [array.copy() for array in zeros]
    state = (weights, m, v, _moments(network), jnp.zeros((), jnp.int32))
    whole = len(x) // batch_size * batch_size

    def loss(
        weights: list[Array], batch: Array, target: Array
    ) -> tuple[Array, tuple[Array, list[Array]]]:
        logits, moments = _logits(network, weights, batch, conv2d)
        value, right = _loss(network, logits, target)
        return value, (right, moments)

    def step(state: Any, index: Array) -> tuple[Any, tuple[Array, Array]]:
        weights, m, v, averages, count = state
        (value, (right, moments)), gradients = jax.value_and_grad(loss, has_aux=True)(
            weights, images[index], wanted[index]
        )
        count = count + 1
        rate = LEARNING_RATE * jnp.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
        m = [BETA_1 * a + (1 - BETA_1) * g for a, g in zip(m, gradients, strict=True)]
        v = [BETA_2 * a + (1 - BETA_2) * g * g for a, g in zip(v, gradients, strict=True)]
        weights = [
            w - rate * a / (jnp.sqrt(b) + EPSILON) for w, a, b in zip(weights, m, v, strict=True)
        ]
        averages = [
            BatchNorm.MOMENTUM * a + (1 - BatchNorm.MOMENTUM) * b
            for a, b in zip(averages, moments, strict=True)
        ]
        return (weights, m, v, averages, count), (value * len(index), right)

    @partial(jax.jit, donate_argnums=0)
    def run(state: Any, key: Array) -> tuple[Any, Array, Array]:
        order = jax.random.permutation(key, len(images))
        state, (losses, right) = lax.scan(step, state, order[:whole].reshape(-1, batch_size))
        total, hits = losses.sum(), right.sum()
        if whole < len(images):
            state, (last_loss, last_right) = step(state, order[whole:])
            total, hits = total + last_loss, hits + last_right
        return state, total / len(images), hits / (len(images) * network.targets)

    key = jax.random.key(0)

    def epoch() -> tuple[float, float]:
        nonlocal state, key
        key, use = jax.random.split(key)
        state, mean_loss, accuracy = run(state, use)
        return float(mean_loss), float(accuracy)

    return epoch


def predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    compiled = compiled_predictor(network)
    return lambda x: np.asarray(compiled(x))


def compiled_predictor(network: Network) -> Callable[[Array], Array]:
    """From images to probabilities, both JAX's."""
    weights = [jnp.asarray(array) for array in network.weights()]
    moments = _moments(network)
    chances = jax.nn.sigmoid if network.per_pixel else jax.nn.softmax
    return jax.jit(lambda x: chances(_logits(network, weights, x, _conv2d, moments)[0]))


def operation(case: Case, arrays: list[np.ndarray]) -> Callable[[], Any]:
    """Of ops that can be written in two ways the faster one, by a trial."""
    inputs = [jnp.asarray(array) for array in arrays]
    ways = [OPS[case.op], *OTHERS.get(case.op, ())]
    return fastest([_call(case, inputs, partial(way, **case.arguments)) for way in ways])


def _call(case: Case, inputs: list[Array], op: Callable[..., Array]) -> Callable[[], Any]:
    if not case.backward:
        compiled = jax.jit(op)
        return lambda: jax.block_until_ready(compiled(*inputs))
    fixed = 1 if case.names[1] == "target" else 0

    def gradients(dy: Array, *inputs: Array) -> tuple[Array, ...]:
        return jax.vjp(partial(op, *inputs[:fixed]), *inputs[fixed:])[1](dy)

    compiled = jax.jit(gradients)
    return lambda: jax.block_until_ready(compiled(*inputs))


def _conv2d(
    x: Array,
    kernel: Array,
    bias: Array,
    padding: str | int,
    strides: int = 1,
    activation: str | None = None,
    groups: int = 1,
) -> Array:
    y = lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        padding.upper() if isinstance(padding, str) else [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return _finish(y + bias, activation)


def _finish(y: Array, activation: str | None) -> Array:
    return jax.nn.relu(y) if activation else y


def _depthwise_conv2d(x: Array, kernel: Array, bias: Array, padding: str) -> Array:
    return _conv2d(x, kernel.swapaxes(2, 3), bias, padding, groups=x.shape[-1])


def _depthwise_as_sum(x: Array, kernel: Array, bias: Array, padding: str) -> Array:
    """The same as a sum of shifted images, "same" alone."""
    height, width = kernel.shape[:2]
    _, rows, columns, _ = x.shape
    top, left = height // 2, width // 2
    x = jnp.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    places = [(i, j) for i in range(height) for j in range(width)]
    return sum((x[:, i : i + rows, j : j + columns] * kernel[i, j, :, 0] for i, j in places), bias)


def _dense(x: Array, kernel: Array, bias: Array, activation: str | None = None) -> Array:
    return _finish(x @ kernel + bias, activation)


def _conv2d_as_product(
    x: Array,
    kernel: Array,
    bias: Array,
    padding: str | int,
    strides: int = 1,
    activation: str | None = None,
    groups: int = 1,
) -> Array:
    """The same by a product of matrices: inside a loop, XLA's convolutions are slow on the CPU."""
    height, width, _, filters = kernel.shape
    if padding != "valid":
        top, left = (height // 2, width // 2) if padding == "same" else (padding, padding)
        x = jnp.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    windows = jnp.concatenate(
        [
            x[:, i : i + rows : strides, j : j + columns : strides]
            for i in range(height)
            for j in range(width)
        ],
        -1,
    )
    if groups == 1:
        return _finish(windows @ kernel.reshape(-1, filters) + bias, activation)
    taps = height * width
    windows = windows.reshape(*windows.shape[:3], taps, groups, -1)
    kernel = kernel.reshape(taps, -1, groups, filters // groups)
    y = jnp.einsum("nhwtgc,tcgf->nhwgf", windows, kernel)
    return _finish(y.reshape(*y.shape[:3], filters) + bias, activation)


def _windows(x: Array, pool_size: int) -> Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // pool_size, pool_size, width // pool_size, pool_size, channels)


def _max_pool2d(x: Array, pool_size: int, strides: int | None = None) -> Array:
    if strides in (None, pool_size):
        return _windows(x, pool_size).max((2, 4))
    return _over_windows(x, -jnp.inf, lax.max, pool_size, strides)


def _avg_pool2d(x: Array, pool_size: int, strides: int | None = None) -> Array:
    if strides in (None, pool_size):
        return _windows(x, pool_size).mean((2, 4))
    return _over_windows(x, 0.0, lax.add, pool_size, strides) / pool_size**2


def _over_windows(x: Array, start: float, join: Any, pool_size: int, strides: int) -> Array:
    window, steps = (1, pool_size, pool_size, 1), (1, strides, strides, 1)
    return lax.reduce_window(x, start, join, window, steps, "VALID")


def _pool_of_views(
    x: Array, pool_size: int, join: Callable[[Array, Array], Array], strides: int | None = None
) -> Array:
    """Windows joined place by place: strided views, which XLA makes one loop of."""
    step = strides or pool_size
    height, width = ((size - pool_size) // step * step + 1 for size in x.shape[1:3])
    places = [(i, j) for i in range(pool_size) for j in range(pool_size)]
    return reduce(join, (x[:, i : i + height : step, j : j + width : step] for i, j in places))


def _max_pool2d_of_views(x: Array, pool_size: int, strides: int | None = None) -> Array:
    return _pool_of_views(x, pool_size, jnp.maximum, strides)


def _avg_pool2d_of_views(x: Array, pool_size: int, strides: int | None = None) -> Array:
    return _pool_of_views(x, pool_size, jnp.add, strides) / pool_size**2


def _upsample2d(x: Array, size: int, interpolation: str) -> Array:
    n, height, width, channels = x.shape
    if interpolation == "nearest":
        return jnp.repeat(jnp.repeat(x, size, 1), size, 2)
    return jax.image.resize(x, (n, height * size, width * size, channels), "bilinear")


def _shares(prediction: Array) -> Array:
    return prediction / prediction.sum(-1, keepdims=True)


def _categorical_crossentropy(target: Array, prediction: Array, from_logits: bool = False) -> Array:
    logs = jax.nn.log_softmax(prediction) if from_logits else jnp.log(_shares(prediction))
    return -(target * logs).sum(-1)


def _sparse_categorical_crossentropy(
    target: Array, prediction: Array, from_logits: bool = False
) -> Array:
    logs = jax.nn.log_softmax(prediction) if from_logits else jnp.log(_shares(prediction))
    return -jnp.take_along_axis(logs, target[:, None], 1)[:, 0]


def _binary_crossentropy(target: Array, prediction: Array, from_logits: bool = False) -> Array:
    if from_logits:
        loss = jax.nn.softplus(prediction) - prediction * target
    else:
        loss = -(target * jnp.log(prediction) + (1 - target) * jnp.log1p(-prediction))
    return loss.mean(-1)


OPS: dict[str, Callable[..., Array]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "dense": _dense,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "upsample2d": _upsample2d,
    "rescale": lambda x, scale, offset: x * scale + offset,
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "exp": jnp.exp,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "add": jnp.add,
    "concatenate": lambda a, b: jnp.concatenate((a, b), -1),
    "categorical_crossentropy": _categorical_crossentropy,
    "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
    "binary_crossentropy": _binary_crossentropy,
    "mean_squared_error": lambda target, prediction: jnp.square(prediction - target).mean(-1),
    "mean_absolute_error": lambda target, prediction: jnp.abs(prediction - target).mean(-1),
}
OTHERS: dict[str, tuple[Callable[..., Array], ...]] = {
    "conv2d": (_conv2d_as_product,),
    "depthwise_conv2d": (_depthwise_as_sum,),
    "max_pool2d": (_max_pool2d_of_views,),
    "avg_pool2d": (_avg_pool2d_of_views,),
}
