"""Small networks that more than one test file uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from convkit import config, models, utils
from convkit.models import Model

CLASSES = 4


@contextmanager
def floats(dtype: str) -> Iterator[None]:
    config.set_floatx(dtype)
    try:
        yield
    finally:
        config.set_floatx("float32")


UNETS = {
    f"unet_{merge}_{upsampling}{'_norm' * norm}": {
        "merge": merge,
        "upsampling": upsampling,
        "batch_norm": norm,
    }
    for merge in ("add", "concatenate")
    for upsampling in ("nearest", "bilinear")
    for norm in (False, True)
}
SMALL: dict[str, Callable[[], Model]] = {
    "resnet18": lambda: models.resnet(18, CLASSES, (32, 32, 3), filters=3),
    "mobilenet": lambda: models.mobilenet(0.1, CLASSES, (32, 32, 3)),
    **{
        name: lambda options=options: models.unet(CLASSES, (12, 16, 3), 3, 2, **options)
        for name, options in UNETS.items()
    },
}


def made(name: str, dtype: str) -> Model:
    """One of the small ones, with weights that leave nothing out: no zeros, no ones."""
    with floats(dtype):
        utils.set_random_seed(3)
        model = SMALL[name]()
    rng = np.random.default_rng(4)
    for variable in model.weights:
        kind = variable.name.rpartition("/")[2]
        if kind in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif kind in ("beta", "bias", "moving_mean"):
            variable.assign(rng.uniform(-0.5, 0.5, variable.shape))
    return model


def batch(model: Model, rows: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Images, and a label for each of what the model tells apart."""
    rng = np.random.default_rng(seed)
    x = rng.random((rows, *model.input_shape[1:])).astype(model.dtype)
    return x, rng.integers(0, CLASSES, (rows, *model.output_shape[1:-1]))
