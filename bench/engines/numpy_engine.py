"""Plain NumPy: the baseline of the ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy_baseline
from op_cases import Case


def set_up(threads: int) -> None:
    """The product of matrices takes its threads from OMP_NUM_THREADS, which the driver sets."""


def version() -> str:
    return f"numpy {np.__version__}"


def operation(case: Case, arrays: list[np.ndarray]) -> Callable[[], Any]:
    return case.bind(numpy_baseline, arrays)
