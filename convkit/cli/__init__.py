"""The command `convkit`: one module per subcommand, imported when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from convkit.cli.errors import CommandError
from convkit.cli.parser import make_parser

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit code: 0 (done), 1 (the run failed), 2 (wrong usage), 130 (Ctrl-C).
    """
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed its help or its message
        return int(stop.code or 0)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        command = importlib.import_module(f"convkit.cli.{arguments.command}")
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]
            command.run(arguments)
        sys.stdout.flush()
    except CommandError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _fail(_describe(error))
    except KeyboardInterrupt:
        print("\nconvkit: interrupted", file=sys.stderr)
        return INTERRUPTED
    return OK


def _warn(message: Any, *_: Any) -> None:
    """A warning as users of a command want it: without the place in the source."""
    print(f"convkit: warning: {message}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"convkit: error: {message}", file=sys.stderr)
    return FAILED


def _describe(error: OSError) -> str:
    if error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
