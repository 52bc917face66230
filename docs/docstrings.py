"""A Sphinx extension: docstrings are plain text, where only `code` in backticks is markup."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(`[^`]+`)")
_SPECIAL = re.compile(r"[*|]|(?<=\w)_(?!\w)")  # "val_" would be a link, "|w|" a substitution
_ATTRIBUTES = re.compile(r"(\s+)(\w+(?:, \w+)+): (.*)")
_WHEN = re.compile(r"Attributes, (.+):")  # "Attributes, set by `fit`:", no heading to napoleon


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    return {"parallel_read_safe": True}


def plain(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escapes what reStructuredText would take for markup, in the lines of a docstring."""
    found: list[str] = []
    attributes = False
    for line in lines:
        if line.lstrip().startswith((">>>", "...")):
            found.append(line)
            continue
        # One code on two lines is none to this rule; both halves stay as they are.
        parts = _CODE.split(line)
        for i, part in enumerate(parts):
            if i % 2 == 0:
                parts[i] = _SPECIAL.sub(r"\\\g<0>", part)
            elif parts[i + 1][:1].isalnum():  # the s of "`id`s"
                parts[i] = f"{part}\\ "
        line = "".join(parts)
        if line and not line[0].isspace():
            attributes = line.startswith("Attributes")
            when = _WHEN.fullmatch(line)
            if when is not None:
                found += [f"Attributes are {when[1]}.", ""]
                line = "Attributes:"
        several = _ATTRIBUTES.fullmatch(line) if attributes else None
        if several is None:
            found.append(line)
        else:
            indent, names, text = several.groups()
            found += [f"{indent}{one}: {text}" for one in names.split(", ")]
    if what == "property":
        # Or napoleon takes what is before a colon in the first line for the property's type.
        found[:0] = [".. A comment.", ""]
    lines[:] = found
