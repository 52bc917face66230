"""Numbers that layers hold besides their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit import device
from convkit.graph import Symbol, Variable


def beside(x: Any, variable: Variable) -> Any:
    """A variable as a kernel takes it together with x: its symbol, or its array where x is."""
    if isinstance(x, Symbol):
        return variable.symbol
    variable.to(None if isinstance(x, np.ndarray) else device.device_of(x))
    return variable.value
