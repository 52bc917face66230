"""The emulator of CUDA (csrc/cuda/emulator.h) reports every planted bug, and no correct kernel.

`tests/cuda/planted.cu` holds the cases; it is compiled here, plain and under the sanitizers, and
run once for each case.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CUDA = ROOT / "csrc" / "cuda"
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-g", "-pthread"]
FLAGS += ["-DCONVKIT_EMULATED"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]

PLACE = r"tests/cuda/planted\.cu:\d+"
BLOCK = r"planted, block \(\d, 0, 0\)"
ON_GARBAGE = r"depends on memory that is read before it is written, or beyond its end"
ON_ORDER = r"depends on the order of threads and blocks"

# What is reported for each bug.
BUGS = {
    "barrier_in_place_of_shuffle": rf"waits in __shfl_sync of mask 0xffffffff at {PLACE}, "
    rf"but thread \(7, 0, 0\) waits in __syncthreads at {PLACE}",
    "block_too_deep": r"a block of \(1, 1, 65\) threads",
    "block_too_large": r"a block of \(32, 33, 1\) threads",
    "copy_after_free": r"cudaMemset: its device memory was freed",
    "copy_in_capture": r"cudaErrorStreamCaptureUnsupported: cudaMemcpy while a stream is captured",
    "copy_of_too_much": r"the 20 bytes at \S+ are not within one block of device memory",
    "destroyed_stream": r"there is no such stream",
    "device_overread": ON_GARBAGE,
    "device_overrun": r"device memory was written behind the 28 bytes of allocation 1",
    "device_pointer_in_copy": r"\S+ is device memory where host memory must be",
    "device_underread": ON_GARBAGE,
    "device_underrun": r"device memory was written before the 28 bytes of allocation 1",
    "divergent_barrier": rf"{BLOCK}: divergent barrier: thread \(0, 0, 0\) waits in "
    rf"__syncthreads at {PLACE}, but thread \(32, 0, 0\) waits in __syncthreads at {PLACE}",
    "double_free": r"second: cudaFree: \S+ was freed already",
    "double_free_pinned": r"second: cudaFreeHost: .* was freed already",
    "dynamic_overrun": rf"{BLOCK}: shared memory was written behind the 256 bytes of dynamic",
    "dynamic_without_size": rf"{BLOCK}: shared memory was written behind the 0 bytes of dynamic",
    "error_that_stays": ON_GARBAGE,
    "fill_of_too_much": r"the 16 bytes at \S+ are not within one block of device memory",
    "free_of_host_memory": r"cudaFree: \S+ is not device memory",
    "free_within": r"cudaFree: \S+ does not begin a block of memory",
    "grid_too_high": r"a grid of \(1, 65536, 1\) blocks",
    "host_pointer_in_copy": r"\S+ is host memory where device memory must be",
    "host_pointer_in_kernel": r"argument 0 is a pointer to host memory",
    "host_reads_device_memory": r"",  # ends the process
    "injected_allocation_failure": r"cudaMalloc: a failure that a test asked for",
    "injected_kernel_failure": r"fill: a failure that a test asked for",
    "leak": r"not given back: 12345 bytes of device memory, allocation 1",
    "leak_of_handles": r"not given back: 1 of: stream\n1 of: event",
    "malloc_in_capture": r"cudaErrorStreamCaptureUnsupported: cudaMalloc while a stream is",
    "mask_beyond_block": r"thread \(32, 0, 0\) .* but the block has no lane 16 there",
    "mask_without_caller": rf"thread \(16, 0, 0\): __shfl_down_sync at {PLACE}: the mask "
    r"0x0000ffff does not hold the calling lane 16",
    "misaligned_vector": rf"{BLOCK}, thread \(0, 0, 0\): a vector of 16 bytes at \S+, which is not",
    "missed_barrier": rf"divergent barrier: thread \(0, 0, 0\) waits in __syncthreads at {PLACE}, "
    r"but thread \(48, 0, 0\) has ended",
    "missing_barrier": ON_GARBAGE,
    "missing_barrier_before_write": ON_ORDER,
    "missing_warp_barrier": ON_GARBAGE,
    "null_stream_in_capture": r"cudaErrorStreamCaptureImplicit: the null stream is used while",
    "out_of_memory": r"cudaMalloc: 800 bytes, with 800 of 1000 in use",
    "race_between_blocks": ON_ORDER,
    "read_before_stream_ran": r"wrong result: read before the stream had run",
    "shared_overread": ON_GARBAGE,
    "shared_overrun": rf"shared memory was written behind the 36 bytes of tile \({PLACE}\)",
    "shared_underrun": rf"shared memory was written behind the 32 bytes of before \({PLACE}\)",
    "shuffle_with_ended_lanes": r"waits in __shfl_xor_sync .* but thread \(16, 0, 0\) has ended",
    "stranger_in_capture": r"cudaStreamWaitEvent: the event is not of the capture",
    "stale_workspace": r"wrong result: a NaN",
    "streams_without_event": r"wrong result: the second stream did not wait for the first",
    "synchronise_in_capture": r"cudaStreamSynchronize of a captured stream",
    "too_much_shared_memory": r"232449 bytes of shared memory, of which a block has 232448",
    "too_much_static_memory": rf"65536 bytes of static shared memory with second at {PLACE}",
    "uninitialised_device_memory": r"wrong result: a NaN",
    "uninitialised_shared_memory": ON_GARBAGE,
    "unjoined_capture": r"the stream does not wait for all work that was captured in others",
    "votes_apart": rf"waits in __ballot_sync of mask 0xffffffff at {PLACE}, but thread \(1, 0, 0\)",
    "width_of_shuffle": rf"__shfl_down_sync at {PLACE}: width 12 is not 1, 2, 4, 8, 16 or 32",
}

# What AddressSanitizer sees first, and more exactly.
SEEN_BY_SANITIZER = {
    "device_overread",
    "device_overrun",
    "device_underread",
    "device_underrun",
    "dynamic_overrun",
    "dynamic_without_size",
    "host_reads_device_memory",
    "shared_overread",
    "shared_overrun",
    "shared_underrun",
}

CORRECT = [
    "aligned_vectors",
    "barrier",
    "barriers",
    "blocks",
    "dynamic_shared_memory",
    "events_and_times",
    "fork_and_join",
    "graphs",
    "highest_grid",
    "indices",
    "largest_block",
    "memory",
    "most_shared_memory",
    "no_blocks",
    "null_stream",
    "read_after_stream_ran",
    "read_to_end",
    "shared_memory",
    "shuffles",
    "staged_copies",
    "streams_with_event",
    "sums",
    "transposes",
    "warp_barrier",
    "workspace",
]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the emulator knows Linux on x86-64 and aarch64",
)


@functools.cache
def compiler() -> str:
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    pytest.skip("no C++ compiler to build the cases with")


def build(folder: Path, flags: list[str]) -> subprocess.CompletedProcess[str]:
    command = [compiler(), *FLAGS, *flags, "-Icsrc", "-Icsrc/cuda"]
    command += [str(path) for path in sorted(CUDA.glob("emulator*.cpp"))]
    command += ["-x", "c++", str(CUDA / "device.cu"), str(CUDA / "epoch.cu")]
    command += ["tests/cuda/planted.cu", "-o", str(folder / "planted")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    done = build(folder, ["-O1"])
    assert done.returncode == 0, done.stderr
    return folder / "planted"


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    folder = tmp_path_factory.mktemp("sanitized")
    done = build(folder, ["-O1", "-fno-omit-frame-pointer", *SANITIZE])
    if done.returncode != 0:  # the same source compiles without
        pytest.skip(f"{compiler()} has no sanitizers here: {done.stderr[-300:]}")
    return folder / "planted"


def run(program: Path, case: str, order: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CONVKIT_EMULATOR_ORDER": order}
    environment.pop("CONVKIT_EMULATOR_FAIL_ALLOCATION", None)
    return subprocess.run(
        [program, case], env=environment, capture_output=True, text=True, timeout=120
    )


def test_all_cases_are_tested(plain: Path) -> None:
    assert run(plain, "bugs", "forward").stdout.split() == sorted(BUGS)
    assert run(plain, "correct", "forward").stdout.split() == CORRECT


@pytest.mark.parametrize("bug", BUGS)
def test_reports_bug(plain: Path, bug: str) -> None:
    done = run(plain, bug, "verify")
    if bug == "host_reads_device_memory":
        assert done.returncode == -signal.SIGSEGV
        return
    assert done.returncode == 1, done.stderr
    assert re.search(BUGS[bug], done.stdout), done.stdout


@pytest.mark.parametrize("bug", BUGS)
def test_reports_bug_under_sanitizers(sanitized: Path, bug: str) -> None:
    done = run(sanitized, bug, "verify")
    assert done.returncode == 1, done.stderr
    if bug in SEEN_BY_SANITIZER:
        assert "ERROR: AddressSanitizer: use-after-poison" in done.stderr
        assert re.search(PLACE, done.stderr)
    else:
        assert re.search(BUGS[bug], done.stdout), done.stdout
        assert done.stderr == ""


@pytest.mark.parametrize("order", ["forward", "reverse", "random:7", "random:8", "verify"])
@pytest.mark.parametrize("case", CORRECT)
def test_passes_what_is_correct(plain: Path, case: str, order: str) -> None:
    done = run(plain, case, order)
    assert (done.stdout, done.stderr, done.returncode) == ("passed\n", "", 0)


@pytest.mark.parametrize("case", CORRECT)
def test_passes_what_is_correct_under_sanitizers(sanitized: Path, case: str) -> None:
    done = run(sanitized, case, "verify")
    assert (done.stdout, done.stderr, done.returncode) == ("passed\n", "", 0)


# Without "verify", the bug shows as a NaN from memory that was never written, whatever the order.
@pytest.mark.parametrize("order", ["forward", "reverse", "random:3"])
def test_unwritten_memory_holds_nan(plain: Path, order: str) -> None:
    done = run(plain, "uninitialised_shared_memory", order)
    assert "wrong result: a NaN" in done.stdout


# Each order alone gives another result, of which one is right by luck.
def test_orders_differ(plain: Path) -> None:
    results = [
        run(plain, "missing_barrier_before_write", order).returncode
        for order in ("forward", "reverse", "random:3")
    ]
    assert 1 in results


def test_unknown_order(plain: Path) -> None:
    done = run(plain, "sums", "sideways")
    assert "CONVKIT_EMULATOR_ORDER: there is no order sideways" in done.stdout


def test_allocation_fails_by_environment(plain: Path) -> None:
    environment = {**os.environ, "CONVKIT_EMULATOR_FAIL_ALLOCATION": "2"}
    done = subprocess.run([plain, "sums"], env=environment, capture_output=True, text=True)
    assert "a failure that a test asked for" in done.stdout
