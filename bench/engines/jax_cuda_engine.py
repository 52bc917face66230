"""JAX on a GPU; a whole epoch is one compiled `lax.scan`, convolutions are cuDNN's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from network import Network

from engines import jax_engine

_last: Any = None  # what the device was asked for last: JAX waits for arrays alone


def set_up(threads: int, place: str) -> None:
    # JAX's default on a GPU is TF32.
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.devices("cpu" if place == "emulated" else "cuda")  # RuntimeError where there are none


def version() -> str:
    return f"{jax_engine.version()} ({jax.devices()[0].platform})"


def place(array: np.ndarray) -> Any:
    return jax.device_put(array)


def fetch(array: Any) -> np.ndarray:
    return np.asarray(array)


def finish() -> None:
    jax.block_until_ready(_last)


# Its data and state are on the device from the beginning.
trainer = partial(jax_engine.trainer, as_products=False)


def predictor(network: Network) -> Callable[[Any], Any]:
    compiled = jax_engine.compiled_predictor(network)

    def predict(x: Any) -> Any:
        global _last
        _last = compiled(x)
        return _last

    return predict
