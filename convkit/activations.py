"""Activations by name, as layers take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convkit import registered
from convkit.ops import activation as _ops
from convkit.ops import elementwise as _elementwise

relu = _ops.relu
leaky_relu = _ops.leaky_relu
sigmoid = _ops.sigmoid
tanh = _ops.tanh
exponential = _ops.exp
softmax = _ops.softmax
log_softmax = _ops.log_softmax
elu = _elementwise.elu
selu = _elementwise.selu
softplus = _elementwise.softplus
softsign = _elementwise.softsign
silu = swish = _elementwise.silu
gelu = _elementwise.gelu
hard_sigmoid = _elementwise.hard_sigmoid
hard_silu = hard_swish = _elementwise.hard_swish
relu6 = _elementwise.relu6
mish = _elementwise.mish


def linear(x: Any) -> Any:
    """x as it is."""
    return x


NAMES: dict[str, Callable[[Any], Any]] = {
    "linear": linear,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "exponential": exponential,
    "exp": exponential,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "elu": elu,
    "selu": selu,
    "softplus": softplus,
    "softsign": softsign,
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "relu6": relu6,
    "mish": mish,
}


def get(identifier: Any) -> Callable[[Any], Any]:
    """An activation from its name (also that of a registered function), a function made of
    `convkit.ops`, or None (linear)."""
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        return registered.named("activations.get", "activation", identifier, NAMES)  # type: ignore[no-any-return]
    if callable(identifier):
        return identifier  # type: ignore[no-any-return]
    raise TypeError(f"activations.get: expected a name or a function, got {identifier!r}")
