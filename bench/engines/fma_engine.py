"""What the processor could do at best, on every thread at once: multiply-adds (`fma.c`, compiled
when it is needed) and the copy of an array."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("fma.c")
FLAGS = ("-O3", "-funroll-loops", "-ffp-contract=fast", "-shared", "-fPIC")
FOR = {"native": ("-march=native",), "avx2": ("-mavx2", "-mfma")}
TURNS = 4_000_000  # ten milliseconds or so, against which the start of threads is nothing
PART = 32768  # bytes: of smaller copies the calls would be measured
COPIED = 64 << 20  # bytes of one measurement and thread
COPIES = 3
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


class Copy:
    """Measures copies between two arrays, each thread its own part."""

    def __init__(self, most: int) -> None:
        """`most`: bytes that a copy moves, reading and writing together."""
        self._from, self._to = (np.ones(most // 2 + PART, np.uint8) for _ in range(2))
        self._pool = ThreadPoolExecutor(_threads)

    def measure(self, size: int) -> float:
        """Seconds of a copy that reads and writes `size` bytes together, at best."""
        part = size // 2 // _threads
        if part < PART:
            return math.nan
        return min(
            size / sum(self._pool.map(partial(self._speed, part), range(_threads)))
            for _ in range(COPIES)
        )

    def _speed(self, part: int, thread: int) -> float:
        """Bytes a second of one thread; ctypes releases the lock."""
        source, goal = (a.ctypes.data + thread * part for a in (self._from, self._to))
        times = max(1, COPIED // part)
        ctypes.memmove(goal, source, part)
        start = time.perf_counter()
        for _ in range(times):
            ctypes.memmove(goal, source, part)
        return 2 * part * times / (time.perf_counter() - start)
