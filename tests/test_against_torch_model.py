"""Gradients of the whole LeNet against PyTorch's, in float64 and in float32."""

from __future__ import annotations

import numpy as np
import pytest

import convkit
from convkit import config, layers, optimizers
from convkit.models import lenet

torch = pytest.importorskip("torch")
functional = torch.nn.functional

SAMPLES = 32
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "linear": lambda z: z}


def forward(model, x, weights: list):
    """The model's logits by PyTorch, from its layers and PyTorch's copies of its weights."""
    values = iter(weights)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            padding = "same" if layer.padding == "same" else 0
            kernel, bias = next(values), next(values)
            x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=padding)
        elif isinstance(layer, layers.Dense):
            kernel, bias = next(values), next(values)
            x = x @ kernel + bias
        elif isinstance(layer, layers.MaxPooling2D):
            x = functional.max_pool2d(x, 2)
        elif isinstance(layer, layers.AveragePooling2D):
            x = functional.avg_pool2d(x, 2)
        else:
            x = x.permute(0, 2, 3, 1).flatten(1)  # as channels_last flattens
        if layer is model.layers[-1]:
            return x  # the softmax is the loss's
        name = getattr(getattr(layer, "activation", None), "__name__", "linear")
        x = ACTIVATIONS[name](x)
    raise AssertionError("a model without layers")


def gradients_of(model, x, y) -> tuple[float, list[np.ndarray]]:
    """The first step of SGD with momentum leaves the gradient itself in the velocity, negated."""
    optimizer = optimizers.SGD(1.0, momentum=0.5)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    loss = model.train_on_batch(x, y)
    return loss, [-optimizer.slot(v, "velocity").numpy() for v in model.trainable_weights]


@pytest.mark.parametrize("variant", ["modern", "1998", "caffe"])
@pytest.mark.parametrize(("kind", "allowed"), [("float64", 1e-10), ("float32", 1e-5)])
def test_gradients_of_lenet_are_those_of_pytorch(variant, kind, allowed):
    config.set_floatx(kind)
    try:
        convkit.utils.set_random_seed(0)
        model = lenet(variant)
    finally:
        config.set_floatx("float32")
    rng = np.random.default_rng(0)
    x = rng.random((SAMPLES, *model.input_shape[1:])).astype(kind)
    y = rng.integers(0, 10, SAMPLES)
    weights = [torch.tensor(w, requires_grad=True) for w in model.get_weights()]
    logits = forward(model, torch.tensor(x).permute(0, 3, 1, 2), weights)
    loss = functional.cross_entropy(logits, torch.tensor(y))
    loss.backward()
    found_loss, found = gradients_of(model, x, y)
    assert found_loss == pytest.approx(loss.item(), rel=allowed)
    for gradient, weight in zip(found, weights, strict=True):
        expected = weight.grad.numpy()
        error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
        assert error < allowed, (tuple(weight.shape), error)
