"""All that is measured on a GPU, by one command: `python bench/bench_cuda.py --help`.

Runs the benchmarks one after the other with `--device cuda` and writes what they print to
bench/results/<date>-<gpu>.md, after each of them, so that what was measured is kept if a later one
fails. Parts that are not run stay there as they were.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
from driver import DEVICES, HERE, note

# What is run, and with which options beside the device.
PARTS: dict[str, tuple[str, list[str]]] = {
    "train": ("bench_train.py", ["--batch-size", "32", "128", "512"]),
    "infer": ("bench_infer.py", ["--batch-size", "1", "256", "10000"]),
    "ops": ("bench_ops.py", []),
    "accuracy": ("time_to_accuracy.py", ["--seeds", "10"]),
}
# With these all of it runs within minutes, and on the stand-in for a GPU too.
SMALL: dict[str, list[str]] = {
    "train": ["--batch-size", "32", "--samples", "80", "--rounds", "1"],
    "infer": ["--batch-size", "1", "8", "--seconds", "0.01", "--rounds", "1"],
    "ops": [
        "--room",
        "bandwidth",
        "lenet",
        "--scale",
        "128",
        "--seconds",
        "0.001",
        "--rounds",
        "1",
    ],
    "accuracy": ["--seeds", "1"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=[d for d in DEVICES if d != "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="see that it runs; no figures")
    parser.add_argument("--peers-python", metavar="PATH", help="as the benchmarks have it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: in bench/results")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        _require_gpu()
    name = report.gpu() if arguments.device == "cuda" else "emulated"
    path = arguments.output or result_path(name)
    sections, failed = _sections(path), []
    for part in arguments.parts:
        script, options = PARTS[part]
        command = [script, "--device", arguments.device]
        command += SMALL[part] if arguments.small else options
        if arguments.peers_python and part != "accuracy":
            command += ["--peers-python", arguments.peers_python]
        note(f"{part}: {' '.join(command)}")
        start = time.monotonic()
        status, said, missing = _run(command)
        if status:
            failed.append(part)
            missing.append(f"It ended with {status}.")
            note(f"{part}: {missing[-1]}")
        seconds = f"({time.monotonic() - start:.0f} s)"
        text = [f"## {part}", f"```\npython {' '.join(command)}\n```", said, *missing, seconds]
        sections[part] = "\n\n".join(text)
        path.write_text(_text(name, sections), encoding="utf-8")
    print(f"written to {path}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _require_gpu() -> None:
    """One sentence where nothing could be measured."""
    from convkit import device

    try:
        device.require("bench_cuda")
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
    if not os.environ.get("CONVKIT_DATA"):
        note("CONVKIT_DATA is not set: random images, and no time to accuracy")


def result_path(name: str, ending: str = "") -> Path:
    """Where results of today on the GPU of that name belong; `ending`: of what kind they are."""
    today = datetime.date.today().isoformat()
    slug = name.partition(",")[0].lower().removeprefix("nvidia")
    slug = re.sub(r"[^a-z0-9]+", "-", slug).strip("-")
    return HERE / "results" / f"{today}-{slug}{ending}.md"


def _sections(path: Path) -> dict[str, str]:
    """What an earlier run has written, by part."""
    if not path.exists():
        return {}
    pieces = re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {piece.split()[1]: piece.strip() for piece in pieces}


def _run(command: list[str]) -> tuple[int, str, list[str]]:
    """Exit status, what was printed, and which engines were left out. Progress is shown."""
    missing = []
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=HERE, stdout=output, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            note(line.rstrip())
            if "left out" in line:
                missing.append(line.strip())
        status = process.wait()
        output.seek(0)
        return status, output.read().strip() or "It printed nothing.", missing


def _text(name: str, sections: dict[str, str]) -> str:
    today = datetime.date.today().isoformat()
    head = (
        f"# {today}: {name}\n\nWritten by `python bench/bench_cuda.py`, at commit {commit()}. "
        "What is measured and how is told in [the README](../README.md#on-a-gpu). *Ratio* is the "
        "engine's time over convkit's.\n\n"
    )
    return head + "\n\n".join(sections[part] for part in PARTS if part in sections) + "\n"


def commit() -> str:
    """Of the sources, as git names it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
