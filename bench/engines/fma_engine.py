"""The processor's peak: `fma.c`, compiled when it is needed, on every thread at once."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = Path(__file__).with_name("fma.c")
FLAGS = ("-O3", "-funroll-loops", "-ffp-contract=fast", "-shared", "-fPIC")
FOR = {"native": ("-march=native",), "avx2": ("-mavx2", "-mfma")}
TURNS = 4_000_000  # ten milliseconds or so, against which the start of threads is nothing
COMPILERS = (os.environ.get("CC", ""), "cc", "gcc", "clang")

_threads = 1


def set_up(threads: int) -> None:
    global _threads
    _threads = threads


def version() -> str:
    return "peak of multiply-adds measured"


class Peak:
    """Measures multiply-adds a second with one instruction set, all threads together."""

    def __init__(self, isa: str) -> None:
        compiler = next((name for name in COMPILERS if name and shutil.which(name)), None)
        if compiler is None:
            raise RuntimeError("no C compiler; give the peak by --peak")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "fma.so"
            command = [compiler, *FLAGS, *FOR[isa], str(SOURCE), "-o", str(library)]
            subprocess.run(command, check=True)
            code = ctypes.CDLL(str(library))
        self._chains = code.chains
        self._chains.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float]
        self._chains.restype = ctypes.c_float
        self._each = code.multiply_adds()
        self._pool = ThreadPoolExecutor(_threads)

    def measure(self) -> float:
        """Multiply-adds a second; ctypes releases the lock, so the threads run side by side.

        Each thread's time is its own, on a processor: waiting for other programs does not count.
        """
        return sum(self._pool.map(self._speed, range(_threads)))

    def _speed(self, _: int) -> float:
        start = time.thread_time()
        self._chains(TURNS, 0.5, 1.0)
        return TURNS * self._each / (time.thread_time() - start)
