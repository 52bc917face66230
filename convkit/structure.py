"""Nests: one thing, a list or a dictionary of things, as models take and return them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def flatten(nest: Any) -> list[Any]:
    """The things of a nest in order: of a dictionary in that of its keys' insertion."""
    if isinstance(nest, dict):
        return [leaf for part in nest.values() for leaf in flatten(part)]
    if isinstance(nest, (list, tuple)):
        return [leaf for part in nest for leaf in flatten(part)]
    return [nest]


def pack(nest: Any, leaves: Iterable[Any]) -> Any:
    """The leaves, in order, as a nest of the same form."""
    return _pack(nest, iter(leaves))


def _pack(nest: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(nest, dict):
        return {key: _pack(part, leaves) for key, part in nest.items()}
    if isinstance(nest, (list, tuple)):
        return [_pack(part, leaves) for part in nest]
    return next(leaves)


def mapped(function: Callable[[Any], Any], nest: Any) -> Any:
    """The nest with the function's results in place of its things."""
    return pack(nest, [function(leaf) for leaf in flatten(nest)])
