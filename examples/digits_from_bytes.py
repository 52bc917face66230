"""A network takes images as they come from files: uint8, with the rescaling as its first layer.

The images stay bytes in memory, a quarter of what floats would take; they are converted and
rescaled while a batch is read. With --plot FILE the profile of a training step is drawn too (needs
matplotlib).
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import convkit
from convkit import layers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE", help="draw where the time goes into this picture")
    arguments = parser.parse_args()

    (x_train, y_train), (x_test, y_test) = convkit.datasets.digits.load_data()
    x_train, x_test = x_train[..., np.newaxis], x_test[..., np.newaxis]
    print(f"{len(x_train):,} images of {x_train.shape[1:]}, {x_train.dtype}, 0 .. {x_train.max()}")

    convkit.utils.set_random_seed(0)
    model = convkit.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=32, epochs=20, verbose=0)

    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"{accuracy:.1%} of {len(x_test)} test images are read right")
    same = np.array_equal(model.predict(x_test), model.predict(x_test.astype(np.float32)))
    print(f"the same images as floats: {'the same bits' if same else 'other results'}")
    if arguments.plot:
        profile = convkit.profile(model, x_train, y_train, print_fn=None)
        convkit.plot.profile(profile, path=arguments.plot)
    return 0 if accuracy > 0.95 and same else 1


if __name__ == "__main__":
    sys.exit(main())
