"""What the networks are trained on: MNIST from CONVKIT_DATA, else random images of its size."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from network import Network

WRONG = 10  # one target in so many is not what the image shows
INK = 0.5  # pixels above are to be found by the networks that answer for each pixel


def training_data(network: Network, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (samples, *input_shape) float32 in 0 .. 1, and their targets.

    Targets are labels (samples,) int32, or for a network that answers for each pixel a mask
    (samples, *output_shape) float32 of 0 and 1: the image's ink, with noise.

    MNIST is used if CONVKIT_DATA names a folder with `mnist/` in it and the network takes grey
    images; a network with a larger input gets them with a border of zeros.
    """
    if not _takes_mnist(network):
        return random_data(network, samples)
    images = mnist_images("train", samples)
    top, left = ((network.input_shape[axis] - 28) // 2 for axis in (0, 1))
    x = np.zeros((len(images), *network.input_shape), np.float32)
    np.divide(images, np.float32(255), out=x[:, top : top + 28, left : left + 28, 0])
    return x, _mask(x) if network.per_pixel else mnist_labels("train", samples)


def describe_data(network: Network) -> str:
    """A few words for the head of a table."""
    return "MNIST" if _takes_mnist(network) else "random images"


def _takes_mnist(network: Network) -> bool:
    height, width, channels = network.input_shape
    return bool(_folder()) and channels == 1 and min(height, width) >= 28


def _folder() -> Path | None:
    """Where MNIST lies, if it does."""
    folder = Path(os.environ.get("CONVKIT_DATA", "")) / "mnist"
    return folder if os.environ.get("CONVKIT_DATA") and folder.is_dir() else None


def random_data(network: Network, samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy pattern per class, with every tenth label wrong; or a mask of noisy pixels.

    Learnable, so that the gradients stay in the range of real ones, but never perfectly: a loss of
    exact zero would fill the optimizer's state with denormals, which are slow in some engines.
    """
    rng = np.random.default_rng(seed)
    x = rng.random((samples, *network.input_shape), np.float32)
    if network.per_pixel:
        return x, _mask(x)
    classes = network.output_shape[-1]
    patterns = rng.random((classes, *network.input_shape), np.float32)
    labels = rng.integers(0, classes, samples, dtype=np.int32)
    x *= 0.7
    x += 0.3 * patterns[labels]
    wrong = np.arange(0, samples, WRONG)
    labels[wrong] = rng.integers(0, classes, len(wrong), dtype=np.int32)
    return x, labels


def _mask(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """1 where the first channel holds ink, with one pixel in ten turned over."""
    mask = x[..., :1] > INK
    mask ^= np.random.default_rng(seed).random(mask.shape, np.float32) < 1 / WRONG
    return mask.astype(np.float32)


def mnist_images(part: str, samples: int | None = None) -> np.ndarray:
    """(samples, 28, 28) uint8; `part` is "train" or "t10k"; None: all."""
    return _idx(f"{part}-images-idx3-ubyte", 16).reshape(-1, 28, 28)[:samples]


def mnist_labels(part: str, samples: int | None = None) -> np.ndarray:
    """(samples,) int32."""
    return _idx(f"{part}-labels-idx1-ubyte", 8)[:samples].astype(np.int32)


def _idx(name: str, header: int) -> np.ndarray:
    folder = _folder()
    if folder is None:
        raise FileNotFoundError("CONVKIT_DATA: expected a folder with mnist/ in it")
    packed = folder / f"{name}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else None
    return np.frombuffer(content or (folder / name).read_bytes(), np.uint8, offset=header)
