"""Objects made again from configurations: only of classes that convkit knows or was told of."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Thing = TypeVar("Thing", bound=Callable[..., Any])
_things: dict[str, Any] = {}
_lent: ContextVar[Mapping[str, Any] | None] = ContextVar("_lent", default=None)
# Modules that make configurations, in the order in which a class's name is looked up.
ROOMS = ("layers", "models", "initializers", "regularizers", "constraints", "schedules")


def register(thing: Thing) -> Thing:
    """Lets files name a class (of layers, losses, …) or a function of one's own.

    Use it as a decorator, before a model that has one is loaded:

        >>> @convkit.models.register
        ... class Scale(layers.Layer): ...

    Raises:
        ValueError: another class or function of that name was registered, or is convkit's.
    """
    name = getattr(thing, "__name__", "<lambda>")
    if name == "<lambda>":
        raise TypeError(f"register: expected a class or a function with a name, got {thing!r}")
    if _is_convkits(name):
        raise ValueError(f"register: expected a new name, got {name}, which is one of convkit's")
    other = _things.get(name)
    if other is not None and (other.__module__, other.__qualname__) != (
        thing.__module__,
        thing.__qualname__,
    ):
        raise ValueError(f"register: expected a new name, got {name}, which is {other!r}")
    _things[name] = thing
    return thing


def _is_convkits(name: str) -> bool:
    """Whether files name something of convkit's so."""
    for room in (*ROOMS, "losses", "metrics", "optimizers", "activations"):
        module = importlib.import_module(f"convkit.{room}")
        thing = getattr(module, name, None)
        if name in getattr(module, "NAMES", ()) or (
            isinstance(thing, type) and hasattr(thing, "from_config")
        ):
            return True
    return False


@contextmanager
def lent(things: Mapping[str, Any]) -> Iterator[None]:
    """While these are known by their names besides what is registered, in this thread."""
    token = _lent.set(things)
    try:
        yield
    finally:
        _lent.reset(token)


def found(name: str, *rooms: str) -> Any:
    """The class or function of this name: a registered one, or one of convkit's modules.

    Raises:
        ValueError: there is none; the message says how to register one.
    """
    thing = function(name)
    if thing is not None:
        return thing
    for room in rooms or ROOMS:
        module = importlib.import_module(f"convkit.{room}")
        if name in getattr(module, "__all__", vars(module)):
            return getattr(module, name)
    raise ValueError(
        f"load: expected a class of convkit, got {name!r}; if it is one of your own, register it "
        "first: put @convkit.models.register above its definition and import it"
    )


def made(description: Any, *rooms: str) -> Any:
    """What `configuration.plain` described: objects are made, all else stays as it is."""
    if isinstance(description, dict):
        if set(description) == {"class_name", "config"}:
            cls = found(description["class_name"], *rooms)
            if not isinstance(cls, type) or not hasattr(cls, "from_config"):
                raise ValueError(
                    f"load: expected a class with from_config, got {description['class_name']!r}"
                )
            return cls.from_config(description["config"])
        return {key: made(value, *rooms) for key, value in description.items()}
    if isinstance(description, (list, tuple)):
        return type(description)(made(value, *rooms) for value in description)
    return description


def named(op: str, what: str, name: str, names: Mapping[str, Any]) -> Any:
    """The thing of this name among convkit's, or a registered one.

    Args:
        op, what: of which function and argument messages speak.
        names: convkit's.
    """
    if name in names:
        return names[name]
    thing = function(name)
    if thing is None:
        known = ", ".join(map(repr, names))
        raise ValueError(
            f"{op}: expected {what} to be one of {known}, or one of your own that was registered "
            f"(@convkit.models.register), got {name!r}"
        )
    return thing


def function(name: str) -> Any:
    """A registered class or function, or None."""
    return (_lent.get() or {}).get(name) or _things.get(name)
