"""Instruction sets: which one runs, how to force it, and that none leaks into another's code."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess

import pytest
from processes import output_of, run_python

from convkit import _core

needs_binutils = pytest.mark.skipif(
    not (shutil.which("nm") and shutil.which("objdump")), reason="needs nm and objdump"
)
on_x86 = pytest.mark.skipif(
    "generic" not in _core.available_backends(), reason="x86-64 has the wider instruction sets"
)

# The name of the backend, and where its kernels lie within the module.
REPORT = """if True:
    from convkit import _core
    with open("/proc/self/maps") as maps:
        base = min(int(line.split("-")[0], 16) for line in maps if "/_core." in line)
    print(_core.backend_name())
    for name in _core.kernel_names():
        print(name, _core.kernel_address(name) - base)
"""


def symbols() -> dict[int, set[str]]:
    """Demangled names by address within the module."""
    listing = subprocess.run(
        ["nm", "-C", _core.__file__], capture_output=True, text=True, check=True
    ).stdout
    found: dict[int, set[str]] = {}
    for line in listing.splitlines():
        address, _, name = line.partition(" ")
        if address and name[2:]:
            found.setdefault(int(address, 16), set()).add(name[2:])
    return found


@needs_binutils
@pytest.mark.parametrize("name", _core.available_backends())
def test_the_forced_instruction_set_is_the_one_that_runs(name, tmp_path):
    lines = output_of(REPORT, tmp_path, CONVKIT_BACKEND=name).splitlines()
    assert lines[0] == name
    assert len(lines) == 1 + len(_core.kernel_names())
    by_address = symbols()
    for line in lines[1:]:
        kernel, address = line.split()
        names = by_address.get(int(address), set())
        assert any(f"convkit::{name}::{kernel}<float>" in known for known in names), (line, names)


def test_without_a_wish_the_widest_set_runs(tmp_path):
    code = "from convkit import _core; print(_core.backend_name())"
    assert output_of(code, tmp_path, CONVKIT_BACKEND="") == _core.available_backends()[-1]


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx2 ", "cuda"])
def test_a_set_that_is_not_there_is_an_import_error_that_lists_those_that_are(name, tmp_path):
    done = run_python("import convkit", tmp_path, CONVKIT_BACKEND=name)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: CONVKIT_BACKEND")
    assert f"'{name}'" in last
    for available in _core.available_backends():
        assert available in last


def test_use_backend_refuses_names_that_are_not_there(backend):
    with pytest.raises(ValueError, match=", ".join(_core.available_backends())):
        _core.use_backend("sse9")
    assert _core.backend_name() == backend


# ---- no instruction of one set in code of another ----------------------------------------------

# Mangled names, since some are too long to be demangled; a name's length stands before it.
OF_AVX2 = "4avx2"
OF_AVX512 = "6avx512"
HEADER = re.compile(r"^[0-9a-f]+ <(.+)>:$")
# VEX and EVEX forms begin with v (verr and verw alone are older).
WIDE = re.compile(r"^\s+[0-9a-f]+:\s+(?:\{\w+\} )?(?:v(?!err|erw)\w+\b|\w.*%[yz]mm\d)")
WIDEST = re.compile(r"%zmm\d|%k[1-7]|%[xy]mm(?:1[6-9]|2\d|3[01])")


@functools.cache
def functions() -> dict[str, tuple[int, int]]:
    """For every function of the module: how many instructions need AVX2, and how many AVX-512."""
    found: dict[str, tuple[int, int]] = {}
    name = ""
    with subprocess.Popen(
        ["objdump", "-d", "--no-show-raw-insn", _core.__file__],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if header := HEADER.match(line):
                name = header[1]
                found.setdefault(name, (0, 0))
            elif WIDE.match(line):
                wide, widest = found[name]
                found[name] = wide + 1, widest + bool(WIDEST.search(line))
    assert process.returncode == 0
    return found


def leaks(found: dict[str, tuple[int, int]]) -> list[str]:
    """Functions that use an instruction set which their namespace does not promise."""
    return [
        name
        for name, (wide, widest) in found.items()
        if (widest and OF_AVX512 not in name)
        or (wide and OF_AVX2 not in name and OF_AVX512 not in name)
    ]


@needs_binutils
@on_x86
def test_no_function_uses_instructions_that_its_processors_may_lack():
    assert len(functions()) > 100, "no symbols: was the module stripped?"
    assert leaks(functions()) == []


@needs_binutils
@on_x86
def test_the_search_for_leaks_sees_the_instructions_it_looks_for():
    """A positive control: kernels of the wide sets do use them, and would be found elsewhere."""
    for kernel in ("conv2d", "dense", "activation", "adam"):
        for space, which in ((OF_AVX2, 0), (OF_AVX512, 1)):
            kernels = [n for n in functions() if space in n and f"{len(kernel)}{kernel}I" in n]
            assert any(functions()[name][which] for name in kernels), (kernel, space)
    assert leaks({"_ZN7convkit7generic1fEv": (1, 0)})
    assert leaks({"_ZN7convkit4avx21fEv": (1, 1)})
    assert leaks({"_ZSt4fillIPfEvT_S1_": (1, 0)})
    assert not leaks({"_ZN7convkit6avx5121fEv.cold": (1, 1), "main": (0, 0)})
