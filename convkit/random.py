"""The process's source of random numbers: initial weights, shuffles, dropout.

Everything is drawn on the host from one Philox generator: initial weights themselves, and a seed
for each epoch's order and each dropout layer, of which every element follows by its place. So a
seed gives the same bits whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

_generator: np.random.Generator | None = None
_own: ContextVar[np.random.Generator | None] = ContextVar("_own", default=None)


def seed(value: int | None) -> None:
    """Starts the generator anew; None: from the operating system's entropy."""
    global _generator
    _generator = np.random.Generator(np.random.Philox(value))


@contextmanager
def seeded(value: int) -> Iterator[None]:
    """While this thread draws from a generator of its own, and leaves the process's as it is."""
    token = _own.set(np.random.Generator(np.random.Philox(value)))
    try:
        yield
    finally:
        _own.reset(token)


def generator() -> np.random.Generator:
    """The generator that everything draws from."""
    own = _own.get()
    if own is not None:
        return own
    if _generator is None:
        seed(None)
    assert _generator is not None
    return _generator


def draw_seed() -> int:
    """A seed for a generator of its own, drawn from the process's."""
    return int(generator().integers(2**62))


def state() -> dict[str, Any]:
    """Where the generator is, made of what JSON holds."""
    found: dict[str, Any] = _listed(dict(generator().bit_generator.state))
    return found


def restore(value: dict[str, Any]) -> None:
    """Has the generator go on from what `state` gave."""
    given = dict(value)
    given["state"] = {key: np.array(part, np.uint64) for key, part in value["state"].items()}
    given["buffer"] = np.array(value["buffer"], np.uint64)
    generator().bit_generator.state = given


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
