"""Fixtures that more than one test file uses."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import convkit
from convkit import _core

# A shell's background job ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=_core.available_backends())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine can run, in use for one test."""
    before = _core.backend_name()
    _core.use_backend(request.param)
    assert _core.backend_name() == request.param
    yield request.param
    _core.use_backend(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """set_num_threads; the number from before comes back after the test."""
    before = convkit.get_num_threads()
    yield convkit.set_num_threads
    convkit.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
