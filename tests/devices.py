"""Devices that can run kernels here: a GPU, and the CUDA kernels compiled for the host."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from convkit import _core


def _emulated() -> Path | None:
    """The emulated library: where CONVKIT_EMULATED says, or beside the module."""
    if given := os.environ.get("CONVKIT_EMULATED"):
        return Path(given)  # one that was asked for must be there
    beside = Path(_core.__file__).with_name("_cuda_emulated.so")
    return beside if beside.is_file() else None


def _load() -> tuple[list[str], str]:
    names = [] if EMULATED is None else [_core.load_device(str(EMULATED))]
    try:
        return [*names, _core.load_device()], ""
    except RuntimeError as error:
        return names, str(error)


EMULATED = _emulated()
DEVICES, NO_GPU = _load()  # names of backends, and why "cuda" is none of them


def emulator() -> ctypes.CDLL:
    """The functions of csrc/cuda/emulator.h that are for tests."""
    library = ctypes.CDLL(str(EMULATED))
    for name in ("emulator_fail_allocation", "emulator_fail_kernel"):
        getattr(library, name).argtypes = [ctypes.c_int64]
    library.emulator_set.argtypes = [ctypes.c_char_p, ctypes.c_int64]
    library.emulator_set_order.argtypes = [ctypes.c_char_p]
    library.emulator_leaks.restype = ctypes.c_char_p
    for name in ("allocated_bytes", "launched_kernels", "run_kernels"):
        getattr(library, f"emulator_{name}").restype = ctypes.c_int64
    return library
