"""The networks of `convkit.models`: how many parameters they have, gradients against PyTorch where
it is installed, both schedules, devices."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from networks import SMALL, UNETS, batch, made

import convkit
from convkit import datasets, initializers, layers, models, optimizers, utils
from convkit.layers import Input
from convkit.models import Model, Sequential

# ---- counts of parameters ------------------------------------------------------------------------

# What can be trained, and the running means and variances besides.
COUNTS: dict[str, tuple[Callable[[], Model], int, int]] = {
    "lenet": (lambda: models.lenet(), 61_706, 0),
    "lenet_1998": (lambda: models.lenet("1998"), 61_706, 0),
    "lenet_caffe": (lambda: models.lenet("caffe"), 431_080, 0),
    "mlp": (lambda: models.mlp(), 784 * 128 + 128 + 128 * 10 + 10, 0),
    "mlp_deep": (lambda: models.mlp((300, 100), dropout=0.5), 266_610, 0),  # LeCun et al., 1998
    "alexnet": (lambda: models.alexnet(), 60_965_224, 0),
    "vgg11": (lambda: models.vgg(11), 132_863_336, 0),
    "vgg16": (lambda: models.vgg(16), 138_357_544, 0),
    "resnet18": (lambda: models.resnet(18), 11_689_512, 2 * 4_800),
    "resnet34": (lambda: models.resnet(34), 21_797_672, 2 * 8_512),
    "mobilenet": (lambda: models.mobilenet(), 4_231_976, 21_888),  # as Keras counts them
    "mobilenet_half": (lambda: models.mobilenet(0.5), 1_331_592, 10_944),
    "mobilenet_quarter": (lambda: models.mobilenet(0.25), 470_072, 5_472),
}


@pytest.fixture
def cheap_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros, as a hundred million random numbers take their time."""
    monkeypatch.setattr(
        initializers.VarianceScaling, "draw", lambda self, _, shape: np.zeros(shape, np.float32)
    )


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.usefixtures("cheap_weights")
def test_networks_have_the_published_numbers_of_parameters(name):
    make, trainable, running = COUNTS[name]
    model = make()
    assert sum(v.value.size for v in model.trainable_weights) == trainable
    assert sum(v.value.size for v in model.non_trainable_weights) == running
    assert model.count_params() == trainable + running


def unet_parameters(size_of_up: int, channels: int, classes: int) -> int:
    """Of the paper's U-Net, with convolutions of this size on the way up (9 is 3 x 3)."""

    def conv(inputs: int, outputs: int, size: int = 9) -> int:
        return size * inputs * outputs + outputs

    widths = [channels, 64, 128, 256, 512, 1024]
    count = sum(conv(a, b) + conv(b, b) for a, b in pairwise(widths))
    for width in (512, 256, 128, 64):
        count += conv(2 * width, width, size_of_up) + conv(2 * width, width) + conv(width, width)
    return count + conv(64, classes, 1)


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 2)])
@pytest.mark.usefixtures("cheap_weights")
def test_a_unet_has_the_published_number_but_for_its_way_up(channels, classes):
    """Published is the one with transposed convolutions by 2 x 2. Up-sampling has no weights, and
    the convolution behind it, which takes their place, is 3 x 3."""
    assert unet_parameters(4, 1, 1) == 31_030_593
    model = models.unet(1 if classes == 1 else classes, (32, 32, channels))
    assert model.count_params() == unet_parameters(9, channels, classes)


# ---- small ones ----------------------------------------------------------------------------------

each_small = pytest.mark.parametrize("name", SMALL)


def assert_close(found: Any, expected: Any, bound: float) -> None:
    """By the norm of all values together."""
    for one, other in zip(found, expected, strict=True):
        assert np.linalg.norm(one - other) <= bound * np.linalg.norm(other)


# ---- PyTorch -------------------------------------------------------------------------------------


class Torch:
    """PyTorch's copies of a model's weights, layer by layer in the model's order."""

    def __init__(self, torch: Any, model: Model) -> None:
        self.torch, self.functional = torch, torch.nn.functional
        self.tensors = {
            v.name: torch.tensor(v.numpy(), requires_grad=v.trainable) for v in model.weights
        }
        self.layers = iter([layer for layer in model.layers if layer.weights])

    def next(self, kind: type) -> list[Any]:
        layer = next(self.layers)
        assert isinstance(layer, kind)
        return [self.tensors[v.name] for v in layer.weights]

    def conv(self, x: Any, stride: int = 1, padding: Any = 0, kind: type = layers.Conv2D) -> Any:
        kernel, *bias = self.next(kind)
        groups = 1
        if kind is layers.DepthwiseConv2D:
            groups = kernel.shape[2]
            kernel = kernel.permute(0, 1, 3, 2)
        filters = kernel.permute(3, 2, 0, 1)
        b = bias[0] if bias else None
        return self.functional.conv2d(x, filters, b, stride, padding, groups=groups)

    def norm(self, x: Any, epsilon: float) -> Any:
        gamma, beta, _, _ = self.next(layers.BatchNormalization)
        return self.functional.batch_norm(x, None, None, gamma, beta, True, eps=epsilon)

    def dense(self, x: Any) -> Any:
        kernel, bias = self.next(layers.Dense)
        return x @ kernel + bias


def torch_resnet18(t: Torch, x: Any) -> Any:
    def part(x: Any, stride: int = 1, padding: int = 1) -> Any:
        return t.norm(t.conv(x, stride, padding), 1e-5)

    x = part(x).relu()
    for stride in (1, 1, 2, 1, 2, 1, 2, 1):
        short = x if stride == 1 else part(x, 2, 0)
        x = (short + part(part(x, stride).relu())).relu()
    return t.dense(x.mean((2, 3)))


def torch_mobilenet(t: Torch, x: Any) -> Any:
    def same(x: Any, stride: int) -> Any:
        """Padded below and to the right where the stride is 2, as "same" is for even sizes."""
        return t.functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))

    x = t.norm(t.conv(same(x, 2), 2), 1e-3).relu()
    for stride in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):
        x = t.norm(t.conv(same(x, stride), stride, kind=layers.DepthwiseConv2D), 1e-3).relu()
        x = t.norm(t.conv(x), 1e-3).relu()
    return t.dense(x.mean((2, 3)))


def torch_unet(t: Torch, x: Any, merge: str, upsampling: str, batch_norm: bool) -> Any:
    def conv(x: Any) -> Any:
        x = t.conv(x, padding=1)
        return (t.norm(x, 1e-3) if batch_norm else x).relu()

    levels = []
    for _ in range(2):
        levels.append(conv(conv(x)))
        x = t.functional.max_pool2d(levels[-1], 2)
    x = conv(conv(x))
    for level in reversed(levels):
        corners = {} if upsampling == "nearest" else {"align_corners": False}
        x = conv(t.functional.interpolate(x, scale_factor=2, mode=upsampling, **corners))
        x = x + level if merge == "add" else t.torch.cat([level, x], 1)
        x = conv(conv(x))
    return t.conv(x)


@each_small
def test_gradients_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    model = made(name, "float64")
    x, y = batch(model, 5)
    t = Torch(torch, model)
    images = torch.tensor(x).permute(0, 3, 1, 2)
    if name in UNETS:
        logits = torch_unet(t, images, **UNETS[name])
    else:
        logits = {"resnet18": torch_resnet18, "mobilenet": torch_mobilenet}[name](t, images)
    assert next(t.layers, None) is None
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(y))
    expected.backward()
    loss, gradients = convkit.value_and_grad(model, "sparse_categorical_crossentropy")(x, y)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    right = [t.tensors[v.name].grad.numpy() for v in model.trainable_weights]
    assert_close(gradients, right, 1e-9)


# ---- training ------------------------------------------------------------------------------------


def trained(model: Model, rows: int = 40, **options: Any) -> list[np.ndarray]:
    """The weights and losses after two steps, the second with fewer samples."""
    model.compile(optimizers.SGD(0.001, momentum=0.5), "sparse_categorical_crossentropy")
    x, y = batch(model, rows)
    history = model.fit(x, y, batch_size=24, shuffle=False, verbose=0, **options).history
    return [*model.get_weights(), np.array(history["loss"])]


def tiled(model: Model) -> tuple[int, int]:
    """How many steps of the training program run on tiles, and how many do not."""
    (step,) = (p for key, p in model._programs.items() if key[0][0] == "train")
    count = sum(planned.tiled for planned in step.program.steps)
    return count, len(step.program.steps) - count


@each_small
def test_both_schedules_train_the_same(name, monkeypatch):
    found = []
    for depth_first in (False, True):
        monkeypatch.setattr(Model, "_depth_first", lambda *_, tiled=depth_first, **__: tiled)
        model = made(name, "float64")
        found.append(trained(model))
        count, others = tiled(model)
        coupled = name not in UNETS or UNETS[name]["batch_norm"]  # breadth-first in any case
        assert bool(count) == (depth_first and not coupled)
        if depth_first and not coupled:
            assert others <= 2 * len(model.trainable_weights)  # updates alone
    assert_close(found[0], found[1], 1e-9)


@each_small
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_networks_train_anywhere(name, dtype, place):
    right = trained(made(name, dtype))
    found = trained(made(name, dtype), device=None if place is None else "cuda")
    assert_close(found, right, 1e-10 if dtype == "float64" else 1e-3)


def test_a_small_resnet_learns_digits():
    (x, y), (x_test, y_test) = datasets.digits.load_data()
    utils.set_random_seed(1)
    network = models.resnet(18, 10, (32, 32, 1), filters=4)
    model = Sequential(
        [Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.UpSampling2D(4), network]
    )
    model.compile(optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[..., np.newaxis], y, batch_size=32, epochs=2, verbose=0)
    _, accuracy = model.evaluate(x_test[..., np.newaxis], y_test, verbose=0)
    assert accuracy > 0.8
