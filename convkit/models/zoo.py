"""Networks by name."""

from __future__ import annotations

from convkit import geometry, layers
from convkit.models.model import Sequential


def lenet(variant: str = "modern", classes: int = 10) -> Sequential:
    """LeNet for digits, not compiled.

    Args:
        variant:
            "modern": the one of courses: 28 x 28, convolutions of 6 and 16 5 x 5 filters with ReLU,
            max pooling, dense layers of 120, 84 and `classes` (61,706 parameters).
            "1998": LeNet-5 as in LeCun et al., "Gradient-based learning applied to document
            recognition", 1998, in today's reading: 32 x 32, tanh, average pooling, all maps
            connected, softmax in place of radial basis functions (61,706 parameters).
            "caffe": Caffe's LeNet: 20 and 50 filters, a dense layer of 500 (431,080 parameters).
        classes: how many outputs.

    Returns:
        A built `Sequential` that takes (N, 28, 28, 1), or (N, 32, 32, 1) for "1998".
    """
    geometry.choice("lenet", "variant", variant, ("modern", "1998", "caffe"))
    if variant == "1998":
        return Sequential(
            [
                layers.Input((32, 32, 1)),
                layers.Conv2D(6, 5, activation="tanh"),
                layers.AveragePooling2D(2),
                layers.Conv2D(16, 5, activation="tanh"),
                layers.AveragePooling2D(2),
                layers.Conv2D(120, 5, activation="tanh"),
                layers.Flatten(),
                layers.Dense(84, activation="tanh"),
                layers.Dense(classes, activation="softmax"),
            ],
            name="lenet_1998",
        )
    if variant == "caffe":
        return Sequential(
            [
                layers.Input((28, 28, 1)),
                layers.Conv2D(20, 5),
                layers.MaxPooling2D(2),
                layers.Conv2D(50, 5),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(500, activation="relu"),
                layers.Dense(classes, activation="softmax"),
            ],
            name="lenet_caffe",
        )
    return Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(classes, activation="softmax"),
        ],
        name="lenet",
    )
