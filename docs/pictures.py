"""A Sphinx extension: below a block of Python that saves pictures, the page shows them.

A page whose code saves a picture is run when it is read, in an empty folder, so pictures are always
those of the code above them, and none need be kept.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import blocks

from convkit.layers import base

_SAVED = re.compile(r'(path=|savefig\()"[\w-]+\.png"')  # how pages save pictures that they show


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", show_pictures)
    return {"parallel_read_safe": False}  # the process's folder is changed


def show_pictures(app: Any, page: str, source: list[str]) -> None:
    """Adds pictures to the text of a page, which is the one element of `source`."""
    if not _SAVED.search(source[0]):
        return
    folder = Path(app.outdir) / "_pictures" / page
    folder.mkdir(parents=True, exist_ok=True)
    lines = source[0].splitlines()
    made = _made(source[0], Path(app.srcdir) / f"{page}.md", folder)
    root = "../" * page.count("/")
    for line, names in sorted(made.items(), reverse=True):
        tags = [f'<img src="{root}_pictures/{page}/{name}" alt="{name}">' for name in names]
        lines[line:line] = ["", *tags, ""]
    source[0] = "\n".join(lines)


def _made(text: str, page: Path, folder: Path) -> dict[int, list[str]]:
    """Runs a page, and keeps its pictures: their names, by the line behind which they stand."""
    found: dict[int, list[str]] = {}
    namespace: dict[str, Any] = {"__name__": "__page__"}
    base._names.clear()  # layers are counted anew, as in a program of its own
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
        for block in blocks.parse(text):
            if block.language != "python" or block.reason is not None:
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                blocks.run(block, page, namespace)
            for path in sorted(Path(work).glob("*.png")):
                shutil.move(path, folder / path.name)
                found.setdefault(block.last, []).append(path.name)
    return found
