"""`convkit info`."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path

import numpy as np

import convkit
from convkit import _core


def run(arguments: argparse.Namespace) -> None:
    """Prints what this installation is, what it runs on, and where it looks for data."""
    rows = [
        ("convkit", convkit.__version__),
        ("installed in", str(Path(convkit.__file__).parent)),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("NumPy", np.__version__),
        ("instruction set", _instruction_set()),
        ("threads", str(convkit.get_num_threads())),
        ("OpenMP runtime", _core.thread_runtime()),
        ("CUDA", _cuda()),
        ("CuPy", _cupy()),
        ("CONVKIT_DATA", _folder(os.environ.get("CONVKIT_DATA"))),
        ("data cache", _folder(_cache())),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _instruction_set() -> str:
    forced = ", forced by CONVKIT_BACKEND" if os.environ.get("CONVKIT_BACKEND") else ""
    return f"{_core.backend_name()} (available: {', '.join(_core.available_backends())}{forced})"


def _cuda() -> str:
    """What GPUs can be used, or the one reason why none can."""
    try:
        devices = _core.describe_device(_core.load_device())
    except RuntimeError as error:
        return str(error).removeprefix("cuda: ")
    return "; ".join(
        f"{name}, compute capability {major}.{minor}, {memory / 2**30:.0f} GiB"
        for name, (major, minor), memory in devices
    )


def _cupy() -> str:
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
        try:
            return f"{importlib.metadata.version(name)} ({name})"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not found"


def _cache() -> str:
    import platformdirs  # what pooch asks, which takes long to import

    return platformdirs.user_cache_dir("convkit")


def _folder(name: str | None) -> str:
    """A folder and which data sets it has."""
    if not name:
        return "not set"
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return f"{folder} (no such folder)"
    found = [s for s in ("mnist", "fashion_mnist") if (folder / s).is_dir()]
    return f"{folder} ({', '.join(found) or 'no data sets'})"
