"""compute-sanitizer over every kernel: `python tests/gpu/sanitize.py`.

Runs `every_kernel.py` under memcheck (addresses), racecheck (shared memory), initcheck (memory that
nobody wrote) and synccheck (barriers), in under ten minutes together, and writes what they said to
bench/results/<date>-<gpu>-sanitizer.md. Fails if one of them found something.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from bench_cuda import commit, result_path

from convkit import __version__, _core

HERE = Path(__file__).resolve().parent
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LIMIT = 145  # seconds for each tool
FOUND = 99  # the exit status where a tool found something
LINES = 40  # of a tool's words that are kept: its last ones


@dataclass
class Outcome:
    tool: str
    verdict: str
    seconds: float
    said: str

    @property
    def good(self) -> bool:
        return self.verdict == "nothing found"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each tool")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: in bench/results")
    arguments = parser.parse_args()
    name, sanitizer = _gpu(), _sanitizer()
    outcomes = []
    for tool in arguments.tools:
        print(f"{tool}: running", flush=True)
        outcomes.append(_run(sanitizer, tool, arguments.limit))
        print(f"{tool}: {outcomes[-1].verdict}, {outcomes[-1].seconds:.0f} s", flush=True)
    today = datetime.date.today().isoformat()
    path = arguments.output or result_path(name, "-sanitizer")
    text = _report(today, name, sanitizer, outcomes)
    path.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {path}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def _gpu() -> str:
    try:
        backend = _core.load_device()
    except RuntimeError as error:
        raise SystemExit(f"sanitize: {str(error).removeprefix('cuda: ')}") from None
    if importlib.util.find_spec("cupy") is None:
        raise SystemExit("sanitize: CuPy is missing: pip install cupy-cuda13x")
    name: str = _core.describe_device(backend)[0][0]
    return name


def _sanitizer() -> str:
    places = [os.environ.get("PATH", "")]
    places += [f"{os.environ[v]}/bin" for v in ("CUDA_HOME", "CUDA_PATH") if v in os.environ]
    if nvcc := shutil.which("nvcc"):
        places.append(str(Path(nvcc).resolve().parent))
    places.append("/usr/local/cuda/bin")
    found = shutil.which("compute-sanitizer", path=os.pathsep.join(places))
    if found is None:
        raise SystemExit(
            "sanitize: compute-sanitizer was not found on PATH, in CUDA_HOME or beside nvcc; it is "
            "part of CUDA's toolkit (package cuda-sanitizer)"
        )
    return found


def _run(sanitizer: str, tool: str, limit: float) -> Outcome:
    start = time.monotonic()
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "20"]
    process = subprocess.Popen(
        [*command, sys.executable, str(HERE / "every_kernel.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that the program under the tool can be ended with it
    )
    try:
        said, _ = process.communicate(timeout=limit)
        status = process.returncode
        verdict = {0: "nothing found", FOUND: "errors found"}.get(status, f"ended with {status}")
        if status == 0 and "kernels were called" not in said:
            verdict = "the program did not run"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        verdict = f"out of time after {limit:.0f} s"
    return Outcome(tool, verdict, time.monotonic() - start, said)


def _report(today: str, name: str, sanitizer: str, outcomes: list[Outcome]) -> str:
    version = subprocess.run([sanitizer, "--version"], capture_output=True, text=True, check=False)
    release = next((line for line in version.stdout.splitlines() if "ersion" in line), "").strip()
    lines = [
        f"# {today}: compute-sanitizer, {name}",
        "",
        f"convkit {__version__}, commit {commit()}; {release or 'compute-sanitizer'}. "
        "Command: `python tests/gpu/sanitize.py`.",
        "",
        "| tool | verdict | seconds |",
        "|---|---|---:|",
        *(f"| {one.tool} | {one.verdict} | {one.seconds:.0f} |" for one in outcomes),
    ]
    for one in outcomes:
        last = one.said.strip().splitlines()[-LINES:]
        lines += ["", f"## {one.tool}", "", "```", *last, "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
