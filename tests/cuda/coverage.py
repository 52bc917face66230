"""Which lines of the CUDA sources the tests on the emulator have run.

    python tests/cuda/coverage.py build

`build` is where `_cuda_emulated` was built with CONVKIT_EMULATOR_COVERAGE=ON; docs/cuda.md has the
commands. Prints the share of each file of csrc/cuda, the lines that were not run, and the share of
all, and exits with 1 if that is below 100 %. A line of a template has run if it has in one of its
instances.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "cuda"


def runs(build: Path) -> dict[str, dict[int, int]]:
    """How often each line of each source ran."""
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    data = sorted(build.resolve().rglob("*.gcda"))
    if not data:
        raise SystemExit(f"coverage: expected counters of gcov below {build}; did tests run?")
    for path in data:
        done = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=build,
        )
        for report in done.stdout.splitlines():
            for file in json.loads(report)["files"]:
                source = Path(build, file["file"]).resolve()
                if source.parent == SOURCES and source.suffix in (".cu", ".cuh"):
                    for line in file["lines"]:
                        counts[source.name][line["line_number"]] += line["count"]
    return counts


def ranges(lines: list[int]) -> str:
    """[3, 4, 5, 9] -> "3-5, 9"."""
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def share(ran: int, total: int) -> str:
    """In percent, rounded down: 100.0 is all of them."""
    return f"{1000 * ran // total / 10:6.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(description="Line coverage of the CUDA sources.")
    parser.add_argument("build", type=Path, help="the folder of a build with coverage")
    counts = runs(parser.parse_args().build)
    missed = total = 0
    for name, lines in sorted(counts.items()):
        never = sorted(line for line, count in lines.items() if count == 0)
        missed += len(never)
        total += len(lines)
        print(f"{name:<20} {share(len(lines) - len(never), len(lines))}  {ranges(never)}".rstrip())
    print(f"{'all':<20} {share(total - missed, total)}  of {total} lines")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
