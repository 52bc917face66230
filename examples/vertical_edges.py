"""A convolution finds a vertical edge: bright on the left, dark on the right, 3 × 3 kernel.

With --plot FILE the image, the kernel and the result are drawn too (needs matplotlib).
"""

from __future__ import annotations

import argparse

import numpy as np

from convkit import ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE", help="draw the three arrays into this picture")
    arguments = parser.parse_args()

    image = np.zeros((6, 6), np.float32)
    image[:, :3] = 10
    kernel = np.tile(np.array([1, 0, -1], np.float32), (3, 1))
    # Operations work on batches of images with channels: here one image with one channel.
    edges = ops.conv2d(image[np.newaxis, :, :, np.newaxis], kernel[:, :, np.newaxis, np.newaxis])
    panels = {"image": image, "kernel": kernel, "edges": edges[0, :, :, 0]}

    for title, array in panels.items():
        print(f"{title} {array.shape[0]} x {array.shape[1]}")
        for row in array:
            print("  " + " ".join(f"{value:3g}" for value in row))
    if arguments.plot:
        plot(panels, arguments.plot)


def plot(panels: dict[str, np.ndarray], file: str) -> None:
    """Draw the arrays side by side as grey images with their numbers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.7), layout="constrained")
    for axes, (title, array) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        middle = (array.min() + array.max()) / 2
        axes.imshow(array, cmap="gray")
        axes.set(title=title, xticks=[], yticks=[])
        for (row, column), value in np.ndenumerate(array):
            colour = "black" if value > middle else "white"
            axes.text(column, row, f"{value:g}", ha="center", va="center", color=colour)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
