"""Settings of the process: threads, the default dtype, and how products are formed."""

from __future__ import annotations

from convkit import _core
from convkit.geometry import choice, fail, integer

# More than any machine has; OpenMP ends the process where it cannot start as many as asked for.
MOST_THREADS = 1024

PRECISIONS = ("float32", "tf32", "bf16", "direct")

_floatx = "float32"


def set_num_threads(threads: int) -> None:
    """Sets how many threads kernels and programs use at most. Results do not depend on it.

    Args:
        threads: 1 .. 1024.
    """
    number = integer("set_num_threads", "threads", threads, 1)
    if number > MOST_THREADS:
        raise fail("set_num_threads", f"threads to be at most {MOST_THREADS}", number)
    _core.set_num_threads(number)


def get_num_threads() -> int:
    """How many threads kernels and programs use at most.

    At first the least of the processors that the process may use, its control group's quota, and
    OMP_NUM_THREADS.
    """
    return int(_core.get_num_threads())


def floatx() -> str:
    """The dtype of new layers: "float32", unless set otherwise."""
    return _floatx


def set_floatx(dtype: str) -> None:
    """Sets the dtype of new layers: "float32" or "float64"."""
    global _floatx
    _floatx = choice("set_floatx", "dtype", dtype, ("float32", "float64"))


def set_precision(precision: str) -> None:
    """Sets how convolutions and dense layers multiply.

    Args:
        precision: "float32": as they are, the default. On a processor, convolutions may save
            multiplications by transforms, within a bound of the error that
            `docs/architecture.md` states; what is not finite then reaches a few more outputs.
            "direct": all products themselves are added up, in float64 too. "tf32", on a GPU:
            float32 factors are rounded to 10 bits of fraction; "bf16": to 7 bits, as bfloat16.
            Tensor cores multiply these, several times as fast. Sums are float32 in each case. On a
            processor "tf32" and "bf16" are as "float32", on a GPU "direct" is.
    """
    _core.set_precision(choice("set_precision", "precision", precision, PRECISIONS))


def get_precision() -> str:
    """How convolutions and dense layers multiply: see `set_precision`."""
    return _core.get_precision()
