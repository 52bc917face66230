"""What the networks are trained on: MNIST from CONVKIT_DATA, else random images of its size."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np

SAMPLES = 60_000


def training_data(
    input_shape: tuple[int, int, int], classes: int, samples: int = SAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Images (samples, *input_shape) float32 in 0 .. 1 and labels (samples,) int32.

    MNIST is used if CONVKIT_DATA names a folder with `mnist/` in it and the network takes grey
    images of ten classes; a network with a larger input gets them with a border of zeros.
    """
    folder = _folder()
    if folder and input_shape[2] == 1 and input_shape[0] >= 28 and classes == 10:
        images, labels = _mnist(folder, samples)
        top, left = (input_shape[0] - 28) // 2, (input_shape[1] - 28) // 2
        x = np.zeros((len(images), *input_shape), np.float32)
        x[:, top : top + 28, left : left + 28, 0] = images / np.float32(255)
        return x, labels
    return random_data(input_shape, classes, samples)


def _folder() -> Path | None:
    """Where MNIST lies, if it does."""
    folder = Path(os.environ.get("CONVKIT_DATA", "")) / "mnist"
    return folder if os.environ.get("CONVKIT_DATA") and folder.is_dir() else None


def describe_data() -> str:
    """One line for the head of a table."""
    return "MNIST" if _folder() else "random images, 10 % wrong labels"


def random_data(
    input_shape: tuple[int, int, int], classes: int, samples: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A noisy pattern per class, with every tenth label wrong.

    Learnable, so that the gradients stay in the range of real ones, but never perfectly: a loss of
    exact zero would fill the optimizer's state with denormals, which are slow in some engines.
    """
    rng = np.random.default_rng(seed)
    patterns = rng.random((classes, *input_shape), np.float32)
    labels = rng.integers(0, classes, samples, dtype=np.int32)
    x = rng.random((samples, *input_shape), np.float32)
    x *= 0.7
    x += 0.3 * patterns[labels]
    wrong = np.arange(0, samples, 10)
    labels[wrong] = rng.integers(0, classes, len(wrong), dtype=np.int32)
    return x, labels


def _mnist(folder: Path, samples: int) -> tuple[np.ndarray, np.ndarray]:
    images = _idx(folder / "train-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    labels = _idx(folder / "train-labels-idx1-ubyte", 8)
    return images[:samples], labels[:samples].astype(np.int32)


def _idx(path: Path, header: int) -> np.ndarray:
    packed = path.with_name(path.name + ".gz")
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    return np.frombuffer(content, np.uint8, offset=header)
