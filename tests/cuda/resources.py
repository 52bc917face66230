"""What nvcc makes of the CUDA kernels: registers, shared memory and spills of each.

    python tests/cuda/resources.py [--all] [--log FILE]
    python tests/cuda/resources.py --architectures

Compiles every source of csrc/cuda for the oldest architecture that convkit is built for and for the
newest generation that this nvcc knows, and fails on a warning or on more bytes of spills than
spills.txt allows.
Prints the kernels that spill, and with `--all` every one. Does nothing where there is no nvcc.

A build of the package for just these architectures (`--architectures` prints them as CUDAARCHS has
them) tells the same, so its log will do: by ninja, with NVCC_APPEND_FLAGS="-Xptxas=-v
-Werror=all-warnings".
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "csrc" / "cuda"
BUDGET = Path(__file__).with_name("spills.txt")
GENERATIONS = (90, 100, 120)

BUILDING = re.compile(r"Building CUDA object .*/(\w+\.cu)\.o")
ENTRY = re.compile(r"Compiling entry function '(.+)' for 'sm_(\d+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
NAMESPACES = re.compile(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|convkit::|cuda::")


@dataclass(frozen=True)
class Kernel:
    source: str
    architecture: int
    name: str  # demangled, without namespaces and parameters
    registers: int
    shared: int  # bytes, static
    stack: int  # bytes per thread
    spills: int  # bytes stored and loaded, per thread


def architectures(nvcc: str) -> list[int]:
    """The oldest that convkit is built for, and the newest generation that this nvcc knows."""
    oldest = re.search(
        r"set\(OLDEST_ARCHITECTURE (\d+)\)", (SOURCES / "CMakeLists.txt").read_text()
    )
    assert oldest is not None
    printed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    known = {int(number) for number in re.findall(r"compute_(\d+)", printed.stdout)}
    return [int(oldest[1]), max(known.intersection(GENERATIONS))]


def demangled(text: str) -> str:
    """ptxas's report with readable names, where there is something that can demangle them."""
    for tool in ("cu++filt", "c++filt"):
        if shutil.which(tool):
            return subprocess.run(
                [tool], input=text, capture_output=True, text=True, check=True
            ).stdout
    return text


def short(name: str) -> str:
    """The name of a function as it is written in its source."""
    depth, end = 0, len(name)
    for i, letter in enumerate(name):
        depth += (letter in "<") - (letter in ">")
        if letter == "(" and depth == 0 and not name.startswith("(anonymous", i):
            end = i
            break
    name = re.sub(
        r"\(anonymous namespace\)::|<unnamed>::|_GLOBAL__N__\w+::|convkit::|cuda::", "", name[:end]
    )
    return name.removeprefix("void ").strip()


def kernels(report: str, source: str = "") -> Iterator[Kernel]:
    """The kernels that a report of ptxas is about, which may name the sources itself."""
    name, architecture, stack, spills = "", 0, 0, 0
    for line in report.splitlines():
        if found := BUILDING.search(line):
            source = found[1]
        elif found := ENTRY.search(line):
            name, architecture, stack, spills = found[1], int(found[2]), 0, 0
        elif found := SPILLS.search(line):
            stack, spills = int(found[1]), int(found[2]) + int(found[3])
        elif name and (found := USED.search(line)):
            shared = SHARED.search(line)
            size = int(shared[1]) if shared else 0
            yield Kernel(source, architecture, short(name), int(found[1]), size, stack, spills)
            name = ""


def compiled(nvcc: str, source: Path, architecture: int, folder: Path) -> list[Kernel]:
    """Compiles one source for one architecture. RuntimeError where nvcc fails or warns."""
    command = [
        *(nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v"),
        *("-Werror", "all-warnings", f"-I{ROOT / 'csrc'}", f"-I{SOURCES}", str(source)),
        *("-o", str(folder / f"{source.stem}_{architecture}.cubin")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{source.name}, sm_{architecture}:\n{done.stdout}{done.stderr}")
    return list(kernels(demangled(done.stdout + done.stderr), source.name))


def compiled_all(nvcc: str) -> list[Kernel]:
    """Compiles every source. RuntimeError where nvcc fails or warns."""
    work = [(path, a) for a in architectures(nvcc) for path in sorted(SOURCES.glob("*.cu"))]
    failed, found = [], []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(compiled, nvcc, path, a, Path(folder)) for path, a in work]
        for job in jobs:
            try:
                found += job.result()
            except RuntimeError as error:
                failed.append(str(error))
    if failed:
        raise RuntimeError("\n".join(failed))
    return found


def logged(nvcc: str, log: Path) -> list[Kernel]:
    """What the log of a build says. RuntimeError where it does not speak of every source, and for
    every architecture of as many kernels of it."""
    text = log.read_text(errors="replace")
    built = set(BUILDING.findall(text))
    if missing := {path.name for path in SOURCES.glob("*.cu")} - built:
        raise RuntimeError(f"resources: {log} says nothing of {', '.join(sorted(missing))}")
    found = list(kernels(demangled(text)))
    counts = {
        a: Counter(k.source for k in found if k.architecture == a) for a in architectures(nvcc)
    }
    fewer = [
        f"{s} for {a}"
        for s in built
        for a in counts
        if counts[a][s] != max(c[s] for c in counts.values())
    ]
    if not found or fewer:
        raise RuntimeError(f"resources: {log} lacks kernels of {', '.join(fewer) or 'all'}")
    return found


def budget() -> dict[tuple[int, str], int]:
    """Bytes of spills that are allowed, by architecture and name."""
    allowed = {}
    for line in BUDGET.read_text().splitlines():
        if line and not line.startswith("#"):
            architecture, size, name = line.split(maxsplit=2)
            allowed[int(architecture), name] = int(size)
    return allowed


def table(found: Sequence[Kernel]) -> str:
    """A line for each kernel."""
    lines = ["source          sm registers  shared  stack  spills  kernel"]
    for k in found:
        lines.append(
            f"{k.source:<14} {k.architecture:>3} {k.registers:>9} {k.shared:>7} {k.stack:>6} "
            f"{k.spills:>7}  {k.name}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Registers, shared memory and spills of kernels.")
    parser.add_argument("--all", action="store_true", help="print every kernel")
    parser.add_argument("--log", type=Path, help="of a build, to read instead of compiling")
    parser.add_argument("--architectures", action="store_true", help="print them, and no more")
    arguments = parser.parse_args()
    nvcc = shutil.which("nvcc")
    if arguments.architectures:
        print("{}-real;{}".format(*architectures(nvcc)) if nvcc else "")
        return 0
    if nvcc is None:
        print("resources: no nvcc here, nothing was compiled")
        return 0
    try:
        found = logged(nvcc, arguments.log) if arguments.log else compiled_all(nvcc)
    except RuntimeError as error:
        print(error)
        return 1
    allowed = budget()
    over = [k for k in found if k.spills > allowed.get((k.architecture, k.name), 0)]
    shown = found if arguments.all else [k for k in found if k.spills]
    if shown:
        print(table(shown))
    for kernel in over:
        print(
            f"resources: {kernel.name} (sm_{kernel.architecture}): expected at most "
            f"{allowed.get((kernel.architecture, kernel.name), 0)} bytes of spills, got "
            f"{kernel.spills}"
        )
    most = max((k.registers for k in found), default=0)
    print(f"resources: {len(found)} kernels, at most {most} registers, {len(over)} over budget")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
