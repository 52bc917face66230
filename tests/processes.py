"""Python in a process of its own, for tests of what happens at import, at a signal or in a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SECONDS = 60  # far more than any of these programs takes, so that only one that hangs meets it


def run_python(
    code: str, folder: Path, *, timeout: float = SECONDS, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `code` in an empty folder, so that the installed package is imported, not the sources.

    Args:
        environment: variables to set; an empty string takes one away.
    """
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={name: value for name, value in variables.items() if value},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def output_of(code: str, folder: Path, **environment: str) -> str:
    """What `code` prints; a failure of it fails the test with its traceback."""
    done = run_python(code, folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
