"""Code blocks of Markdown pages: tests run them, and the site shows the pictures that they make."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})(\S*)\s*$")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: what stands behind the opening fence; "" where nothing does.
        code: its lines.
        first, last: the numbers of its first line of code and of its closing fence, from 1.
        reason: why it is not run, from a comment `<!-- not run: ... -->` above it; else None.
        output: what it prints, from a block of `text` right behind it; else None.
    """

    language: str
    code: str
    first: int
    last: int
    reason: str | None = None
    output: str | None = None


def parse(text: str) -> list[Block]:
    """The fenced blocks of a page, in order; those that are the output of another are in that one.

    Raises:
        ValueError: a fence is never closed, or a comment says why no block at all is not run.
    """
    found: list[Block] = []
    opened: tuple[str, str, str, int] | None = None  # indent, fence, language, line
    lines: list[str] = []
    reason = None
    beside = False  # whether nothing but empty lines came since the last block
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None:
            indent, marks, language, first = opened
            if fence is None or fence[3] or not fence[2].startswith(marks):
                lines.append(line.removeprefix(indent))
                continue
            code = "".join(f"{one}\n" for one in lines)
            if beside and language == "text" and found[-1].reason is None:
                last = found.pop()
                found.append(Block(last.language, last.code, last.first, number, None, code))
            else:
                found.append(Block(language, code, first + 1, number, reason))
            opened, reason, beside = None, None, True
        elif fence is not None:
            opened, lines = (fence[1], fence[2], fence[3], number), []
        elif line.strip():
            if reason is not None:
                raise ValueError(f"line {number}: expected a block below `not run: {reason}`")
            comment = _NOT_RUN.match(line.strip())
            reason, beside = comment[1] if comment else None, False
    if opened is not None:
        raise ValueError(f"line {opened[3]}: expected the block to be closed")
    return found


def run(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Runs a block of Python; errors name the page and the line."""
    # Empty lines in front of it make the numbers of its lines those of the page.
    code = "\n" * (block.first - 1) + block.code
    exec(compile(code, str(page), "exec"), namespace)
