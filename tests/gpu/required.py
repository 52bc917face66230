"""Imported by each file of tests on a GPU: without a GPU or CuPy it skips the whole file."""

from __future__ import annotations

import importlib.util

import pytest
from devices import DEVICES, NO_GPU

if "cuda" not in DEVICES:
    pytest.skip(NO_GPU, allow_module_level=True)
if importlib.util.find_spec("cupy") is None:
    pytest.skip("cuda: CuPy is missing", allow_module_level=True)
