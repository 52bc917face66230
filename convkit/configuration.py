"""Configurations: the arguments with which an object was made, as plain values that JSON holds.

They follow from the constructor's signature and from attributes of the same names, so that a class
need not say its arguments twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any, Self

import numpy as np


def config_of(made: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of an object's constructor, in their order, with the values it keeps.

    Where the constructor passes `**kwargs` on, those of the next class's constructor follow.

    Args:
        made: an object that keeps each argument as an attribute of the same name.
        leave_out: names of arguments that are not wanted.

    Returns:
        Names and values; those that have a configuration of their own are
        {"class_name": ..., "config": ...}, functions their names.

    Raises:
        TypeError: an argument is not kept, or has a value that JSON does not hold.
    """
    return {
        name: plain(_kept(made, name), f"{type(made).__name__}: {name}")
        for name in _arguments(type(made))
        if name not in leave_out
    }


def described(made: Any) -> dict[str, Any]:
    """An object with a configuration as {"class_name": ..., "config": ...}."""
    return {"class_name": type(made).__name__, "config": made.get_config()}


def plain(value: Any, what: str) -> Any:
    """A value of a configuration, made of what JSON holds; tuples stay tuples.

    Args:
        what: what it is called in messages.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return type(value)(plain(item, what) for item in value)
    if isinstance(value, dict):
        return {str(key): plain(item, what) for key, item in value.items()}
    if hasattr(value, "get_config") and not isinstance(value, type):
        return described(value)
    if getattr(value, "__name__", "<lambda>") != "<lambda>":
        return value.__name__
    raise TypeError(f"{what}: expected a value that can be written down, got {value!r}")


class Configured:
    """A class whose objects can be made again from their configuration."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as `from_config` takes them."""
        return config_of(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """An object like the one whose `get_config` gave this."""
        return cls(**config)


def _arguments(cls: type) -> list[str]:
    """Names of the arguments that the constructor of a class takes."""
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        names += [p.name for p in parameters if p.kind not in kinds and p.name not in names]
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return names


def _kept(made: Any, name: str) -> Any:
    try:
        return getattr(made, name)
    except AttributeError:
        raise TypeError(
            f"{type(made).__name__}: expected its argument {name} to be kept as an attribute of "
            "that name, or a get_config of its own"
        ) from None
