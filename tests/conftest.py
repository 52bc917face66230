"""Fixtures that more than one test file uses."""

from __future__ import annotations

import gc
import importlib.util
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from devices import DEVICES, NO_GPU, emulator

import convkit
from convkit import _core, device

# A shell's background job ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests of ops and of single kernels run on devices too. Programs and kernels for tiles do not.
ON_DEVICES = ("test_ops_", "test_fused")


def pytest_report_header() -> str:
    return "devices: " + ("; ".join([*DEVICES, NO_GPU]) if NO_GPU else ", ".join(DEVICES))


def pytest_collection_finish() -> None:
    """The tests themselves stay until the end: tests that collect garbage need not look at them,
    which would take most of a second each time."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "backend" not in metafunc.fixturenames or "backend" in marks:
        return
    names = [] if "device_backend" in metafunc.fixturenames else _core.available_backends()
    if not names or metafunc.module.__name__.rpartition(".")[2].startswith(ON_DEVICES):
        names = [*names, *DEVICES]
    metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine can run, in use for one test; for tests of ops, each
    device too."""
    before = _core.backend_name()
    _core.use_backend(request.param)
    assert _core.backend_name() == request.param
    yield request.param
    _core.use_backend(before)
    if request.param == "cuda_emulated":
        emulator().emulator_recover()  # a kernel that failed fails no other test


@pytest.fixture
def device_backend(backend: str) -> str:
    """Each device that can run kernels here, in use for one test."""
    return backend


PLACES = [
    *_core.available_backends(),
    *(d for d in DEVICES if d == "cuda_emulated" or importlib.util.find_spec("cupy")),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[int | None]:
    """Where programs run, in use for one test: a GPU's number, or None for an instruction set."""
    if request.param not in DEVICES:
        before = _core.backend_name()
        _core.use_backend(request.param)
        yield None
        _core.use_backend(before)
    elif request.param == "cuda":
        yield 0
    else:
        import fake_cupy

        with device.stand_in(fake_cupy, request.param):
            yield 0


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture
def direct_sums() -> Iterator[None]:
    """Convolutions add up the products themselves."""
    before = convkit.get_precision()
    convkit.set_precision("direct")
    yield
    convkit.set_precision(before)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """set_num_threads; the number from before comes back after the test."""
    before = convkit.get_num_threads()
    yield convkit.set_num_threads
    convkit.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def cp(kernels: str) -> Iterator[Any]:
    """CuPy, or what stands for it; `kernels` is a fixture of the file, the name of a device."""
    if kernels == "cuda":
        yield device.array_module()
        return
    import fake_cupy

    with device.stand_in(fake_cupy, kernels):
        yield fake_cupy
