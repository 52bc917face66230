"""CuPy for the tests on a GPU, which `required.py` skips where there is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from convkit import device


@pytest.fixture(autouse=True)
def cp() -> Iterator[Any]:
    """CuPy. What a test leaves in its pool goes back to the GPU."""
    module = device.array_module()
    yield module
    gc.collect()
    module.get_default_memory_pool().free_all_blocks()
