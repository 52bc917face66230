"""The networks that `convkit train` knows by name, as it trains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from convkit import layers
from convkit.models import Model, zoo
from convkit.structure import mapped

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    """What a network takes.

    Attributes:
        make: a function of an image's shape and the number of classes.
        shape: of the images, if it takes no others.
        least: height and width that images must have at least.
    """

    make: Callable[[Shape, int], Model]
    shape: Shape | None = None
    least: int = 1


NETWORKS = {
    "lenet": Network(lambda shape, classes: zoo.lenet("modern", classes), (28, 28, 1)),
    "lenet_1998": Network(lambda shape, classes: zoo.lenet("1998", classes), (32, 32, 1)),
    "lenet_caffe": Network(lambda shape, classes: zoo.lenet("caffe", classes), (28, 28, 1)),
    "mlp": Network(lambda shape, classes: zoo.mlp((128,), classes, shape)),
    "alexnet": Network(lambda shape, classes: zoo.alexnet(classes, shape), least=67),
    "vgg11": Network(lambda shape, classes: zoo.vgg(11, classes, shape), least=32),
    "vgg16": Network(lambda shape, classes: zoo.vgg(16, classes, shape), least=32),
    "resnet18": Network(lambda shape, classes: zoo.resnet(18, classes, shape)),
    "resnet34": Network(lambda shape, classes: zoo.resnet(34, classes, shape)),
    "mobilenet": Network(lambda shape, classes: zoo.mobilenet(1.0, classes, shape), least=32),
}


def make(name: str, shape: Shape, classes: int, augment: Sequence[str] = ()) -> Model:
    """An untrained network for images of 0 to 255.

    Args:
        name: a key of NETWORKS.
        shape: of an image.
        classes: how many outputs.
        augment: how images are changed at random while it trains: keys of AUGMENTATIONS.
    """
    network = NETWORKS[name].make(shape, classes)
    inputs = x = layers.Input(shape, name="image")
    for kind in augment:
        x = AUGMENTATIONS[kind](shape[2] == 1)(x)
    # Inputs on both sides of zero train better (LeCun et al., Efficient BackProp, 1998).
    x = layers.Rescaling(2 / 255, -1)(x)
    # The network's layers are called anew, so that they are those of one model, not of one inside.
    values = {id(network.inputs): x}
    for call in network._calls:
        y = call.layer(mapped(lambda symbol: values[id(symbol)], call.inputs))
        values[id(call.outputs)] = y
    return Model(inputs, y, name=network.name)


def _edges(grey: bool) -> dict[str, Any]:
    """What comes in at an image's edges: paper around a drawing, more of the same around a photo.

    Drawings are light on dark.
    """
    return {"fill_mode": "constant", "fill_value": 0.0} if grey else {"fill_mode": "reflect"}


AUGMENTATIONS: dict[str, Callable[[bool], layers.Layer]] = {
    "flip": lambda grey: layers.RandomFlip("horizontal"),
    "shift": lambda grey: layers.RandomTranslation(0.1, 0.1, **_edges(grey)),
    "rotate": lambda grey: layers.RandomRotation(0.04, **_edges(grey)),
    "zoom": lambda grey: layers.RandomZoom(0.1, **_edges(grey)),
    "contrast": lambda grey: layers.RandomContrast(0.2, value_range=(0, 255)),
}
# What is left to us: digits do not stay digits when they are mirrored.
AUGMENT_GREY, AUGMENT_COLOUR = ("shift", "rotate", "zoom"), ("flip", "shift")
