"""A small ResNet learns to tell images of 32 × 32 pixels apart.

The images are CIFAR-10's where the folder that CONVKIT_DATA names holds them (or with --data
cifar10, which downloads them), else shapes that this program draws. The network is that of He et
al., 2016, section 4.2: 6 n + 2 layers, with adders around every two of them. With --plot FILE an
overview of the training is drawn (needs matplotlib).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

import convkit
from convkit import layers, optimizers, schedules

SIZE = 32
SHAPES = ("disc", "ring", "square", "frame", "cross", "triangle")


def main() -> int:
    arguments = parse()
    data = arguments.data
    if data == "auto":
        folder = Path(os.environ.get("CONVKIT_DATA") or "nowhere") / "cifar10"
        data = "cifar10" if folder.is_dir() else "drawn"
    x_train, y_train, x_test, y_test, names = load(data, arguments.images)
    print(f"{len(x_train):,} images to train on, {len(x_test):,} to test with: {', '.join(names)}")

    convkit.utils.set_random_seed(arguments.seed)
    model = resnet(len(names), arguments.blocks, arguments.filters, flip=data == "cifar10")
    print(f"{model.name}: {model.count_params():,} parameters")
    steps = arguments.epochs * -(-len(x_train) // arguments.batch_size)
    rate = schedules.OneCycle(0.01, total_steps=steps)
    model.compile(
        optimizers.AdamW(rate, weight_decay=0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        x_train,
        y_train,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        validation_data=(x_test, y_test),
        validation_batch_size=100,
    )
    _, accuracy = model.evaluate(x_test, y_test, batch_size=100, verbose=0)
    print(f"{accuracy:.1%} of the test images are told right")
    if arguments.plot:
        convkit.plot.overview(
            model, history, x_test, y_test, class_names=names, path=arguments.plot
        )
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("auto", "cifar10", "drawn"), default="auto")
    parser.add_argument("--images", type=int, default=2000, help="at most so many to train on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1, help="n of 6 n + 2 layers")
    parser.add_argument("--filters", type=int, default=16, help="of the first stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="draw the overview into this picture")
    return parser.parse_args()


# ---- the network ---------------------------------------------------------------------------------


def resnet(classes: int, blocks: int, filters: int, flip: bool) -> convkit.Model:
    """Three stages of residual blocks; images go in as bytes.

    Args:
        blocks: in each stage.
        filters: of the first stage; each stage has twice as many as the one before.
        flip: whether an image and its mirror image show the same.
    """
    inputs = layers.Input((SIZE, SIZE, 3))
    x = layers.RandomTranslation(0.1, 0.1)(inputs)
    x = layers.RandomFlip("horizontal")(x) if flip else x
    x = conv_norm(layers.Rescaling(1 / 127.5, offset=-1)(x), filters)
    for stage in range(3):
        for block in range(blocks):
            x = residual(x, filters << stage, strides=2 if stage and not block else 1)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(classes, activation="softmax")(x)
    return convkit.Model(inputs, outputs, name=f"resnet{6 * blocks + 2}")


def residual(x, filters: int, strides: int):
    """Two convolutions, and what went in added to what comes out."""
    y = conv_norm(x, filters, strides=strides)
    y = conv_norm(y, filters, relu=False)
    if strides > 1 or x.shape[-1] != filters:
        x = conv_norm(x, filters, size=1, strides=strides, relu=False)
    return layers.ReLU()(layers.Add()([x, y]))


def conv_norm(x, filters: int, size: int = 3, strides: int = 1, relu: bool = True):
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x) if relu else x


# ---- the images ----------------------------------------------------------------------------------


def load(data: str, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple]:
    """Bytes (N, 32, 32, 3) and labels (N,) to train on and to test with, and the classes' names."""
    if data == "drawn":
        return *draw(most, seed=0), *draw(max(1, most // 5), seed=1), SHAPES
    (x_train, y_train), (x_test, y_test) = convkit.datasets.cifar10.load_data()
    test = max(1, most // 5)
    names = convkit.datasets.cifar10.CLASS_NAMES
    return x_train[:most], y_train[:most, 0], x_test[:test], y_test[:test, 0], names


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Shapes in one colour on another, of any size and place, with noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(SHAPES), size=count)
    images = np.empty((count, SIZE, SIZE, 3))
    for image, label in zip(images, labels, strict=True):
        # Colours that differ in one channel at least by a third of the range.
        ground, ink = random.uniform(0, 255, (2, 3))
        while np.abs(ground - ink).max() < 85:
            ink = random.uniform(0, 255, 3)
        radius = random.uniform(6, 11)
        inside = shape_of(SHAPES[label], *random.uniform(radius, SIZE - radius, 2), radius)
        image[:] = np.where(inside[..., np.newaxis], ink, ground)
    images += random.normal(0, 20, images.shape)
    return images.clip(0, 255).astype(np.uint8), labels


def shape_of(name: str, row: float, column: float, radius: float) -> np.ndarray:
    """Which pixels belong to a shape, (32, 32)."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    down, right = (rows - row) / radius, (columns - column) / radius
    distance = np.hypot(down, right)
    largest = np.maximum(np.abs(down), np.abs(right))
    if name == "disc":
        return distance <= 1
    if name == "ring":
        return (distance <= 1) & (distance > 0.6)
    if name == "square":
        return largest <= 0.85
    if name == "frame":
        return (largest <= 0.85) & (largest > 0.5)
    if name == "cross":
        return (largest <= 1) & (np.minimum(np.abs(down), np.abs(right)) <= 0.3)
    return (np.abs(right) <= (down + 1) / 2) & (down <= 0.85)


if __name__ == "__main__":
    sys.exit(main())
