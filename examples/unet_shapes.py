"""A U-Net outlines discs and squares in images that this program draws.

For each pixel the network says what it belongs to: nothing, a disc or a square. What was seen on
the way down meets what comes up by concatenations, or by adders (--merge add). With --plot FILE
some images, their masks and the answers are drawn (needs matplotlib).
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import convkit

NAMES = ("nothing", "disc", "square")
COLOURS = ("#20303c", "#e69f00", "#56b4e9")
SHOWN = 8


def main() -> int:
    arguments = parse()
    x_train, y_train = draw(arguments.images, arguments.size, seed=0)
    x_test, y_test = draw(max(SHOWN, arguments.images // 10), arguments.size, seed=1)

    convkit.utils.set_random_seed(arguments.seed)
    model = convkit.models.unet(
        classes=len(NAMES),
        input_shape=(arguments.size, arguments.size, 1),
        filters=arguments.filters,
        depth=2,
        upsampling=arguments.upsampling,
        merge=arguments.merge,
    )
    print(f"U-Net with {model.count_params():,} parameters, merging by {arguments.merge}")
    # Most pixels are nothing, so that accuracy says little.
    iou = convkit.metrics.MeanIoU(num_classes=len(NAMES), sparse_y_pred=False, name="mean_iou")
    model.compile(convkit.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=[iou])
    model.fit(x_train, y_train, batch_size=8, epochs=arguments.epochs)

    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"mean intersection over union of {len(x_test)} test images: {scores['mean_iou']:.3f}")
    if arguments.plot:
        answers = model.predict(x_test[:SHOWN]).argmax(axis=-1)
        plot(x_test[:SHOWN], y_test[:SHOWN], answers, arguments.plot)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--merge", choices=("concatenate", "add"), default="concatenate")
    parser.add_argument("--upsampling", choices=("bilinear", "nearest"), default="bilinear")
    parser.add_argument("--images", type=int, default=500, help="to train on")
    parser.add_argument("--size", type=int, default=48, help="pixels, a multiple of 4")
    parser.add_argument("--filters", type=int, default=8, help="of the first level")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="draw images, masks and answers into this")
    return parser.parse_args()


def draw(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, size, size, 1) and masks (count, size, size) of one to three shapes each.

    Later shapes lie over earlier ones.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    images = np.zeros((count, size, size, 1), np.float32)
    masks = np.zeros((count, size, size), np.int32)
    for image, mask in zip(images, masks, strict=True):
        for shade in random.permutation([0.4, 0.7, 1.0])[: random.integers(1, 4)]:
            kind = random.integers(1, len(NAMES))
            row, column = random.integers(size // 6, size - size // 6, 2)
            radius = random.uniform(size / 9, size / 5)
            if NAMES[kind] == "disc":
                inside = np.hypot(rows - row, columns - column) <= radius
            else:
                inside = np.maximum(np.abs(rows - row), np.abs(columns - column)) <= radius
            image[inside] = shade
            mask[inside] = kind
    images += random.normal(0, 0.1, images.shape)
    return images, masks


def plot(images: np.ndarray, masks: np.ndarray, answers: np.ndarray, file: str) -> None:
    """A row of images, one of masks and one of answers."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(1.5 * len(images), 5.2), layout="constrained")
    axes = figure.subplots(3, len(images), squeeze=False)
    colours = ListedColormap(COLOURS)
    for column, parts in enumerate(zip(images[..., 0], masks, answers, strict=True)):
        axes[0, column].imshow(parts[0], cmap="gray", vmin=-0.2, vmax=1.2)
        for row in (1, 2):
            axes[row, column].imshow(parts[row], cmap=colours, vmin=0, vmax=len(NAMES) - 1)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
    for ax, name in zip(axes[:, 0], ("image", "mask", "answer"), strict=True):
        ax.set_ylabel(name)
    handles = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, NAMES, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(NAMES), frameon=False)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
