"""Layers that stand in several of the models inside a model: in configurations they have a number.

They are described in each place, and made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from convkit import configuration, registered

# While a model is described: the numbers of such layers, by their ids.
_numbers: ContextVar[dict[int, int] | None] = ContextVar("_numbers", default=None)
# While a model is made: the layers, by their numbers.
_made: ContextVar[dict[int, Any] | None] = ContextVar("_made", default=None)


@contextmanager
def describing(model: Any) -> Iterator[None]:
    """While a model, with all models inside, is described."""
    if _numbers.get() is not None:
        yield
        return
    counts: Counter[int] = Counter()
    _count(model, counts)
    several = [key for key, count in counts.items() if count > 1]
    token = _numbers.set({key: number for number, key in enumerate(several)})
    try:
        yield
    finally:
        _numbers.reset(token)


def _count(model: Any, counts: Counter[int]) -> None:
    """Counts the models in which layers stand; what is inside a shared model counts once."""
    for layer in model.layers:
        counts[id(layer)] += 1
        if counts[id(layer)] == 1 and hasattr(layer, "layers"):
            _count(layer, counts)


def described(layer: Any) -> dict[str, Any]:
    """A layer's description, with its number if it has one."""
    number = (_numbers.get() or {}).get(id(layer))
    found = configuration.described(layer)
    return found if number is None else {**found, "shared": number}


@contextmanager
def making() -> Iterator[None]:
    """While a model, with all models inside, is made."""
    if _made.get() is not None:
        yield
        return
    token = _made.set({})
    try:
        yield
    finally:
        _made.reset(token)


def made(description: dict[str, Any], *rooms: str) -> Any:
    """The layer of a description: a new one, or for a number that was there the same."""
    known = _made.get()
    if "shared" not in description or known is None:
        return registered.made(description, *rooms)
    number = description["shared"]
    if number not in known:
        plain = {key: value for key, value in description.items() if key != "shared"}
        known[number] = registered.made(plain, *rooms)
    return known[number]
