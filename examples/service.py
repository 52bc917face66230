"""A service: an image in, probabilities out, in microseconds.

`model.compiled()` is a function of arrays with almost no Python in it. It takes the image as it is,
bytes, and several threads may call it at the same time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import convkit
from convkit import layers

REQUESTS = 10_000
THREADS = 4


def main() -> int:
    (x_train, y_train), (x_test, y_test) = convkit.datasets.digits.load_data()
    x_train, x_test = x_train[..., np.newaxis], x_test[..., np.newaxis]
    classify = train(x_train, y_train).compiled(batch_size=1)

    # A batch of one image each, as a request would bring it.
    requests = [x_test[i % len(x_test)][np.newaxis] for i in range(REQUESTS)]
    for image, label in zip(requests[:5], y_test, strict=False):
        probabilities = classify(image)[0]
        guess = probabilities.argmax()
        print(f"a {label}: {guess} with {probabilities[guess]:.1%}")

    answers, seconds = serve(classify, requests)
    typical, slow = np.quantile(seconds, (0.5, 0.99)) * 1e6
    print(f"{REQUESTS:,} images, one by one: {typical:.1f} µs typically, 99% within {slow:.1f} µs")

    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(classify, requests))
    same = np.array_equal(answers, together)
    print(f"{THREADS} threads at once: {'the same' if same else 'other'} answers")
    return 0 if same else 1


def train(x: np.ndarray, y: np.ndarray) -> convkit.Sequential:
    """A small network that takes bytes; a real service would call `load_weights`."""
    convkit.utils.set_random_seed(0)
    model = convkit.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=20, verbose=0)
    return model


def serve(
    classify: Callable[[np.ndarray], np.ndarray], requests: list[np.ndarray]
) -> tuple[list[np.ndarray], list[float]]:
    """The answers, and the seconds that each took."""
    answers, seconds = [], []
    for image in requests:
        start = time.perf_counter()
        answers.append(classify(image))
        seconds.append(time.perf_counter() - start)
    return answers, seconds


if __name__ == "__main__":
    sys.exit(main())
