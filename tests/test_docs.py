"""The code of the README and of the guide: every block runs, and prints what the page says."""

from __future__ import annotations

import contextlib
import doctest
import io
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blocks
import docstrings
import pictures
import pytest

import convkit
from convkit import cli, datasets, registered
from convkit.layers import base

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOT_RUN = 6  # blocks in all pages with a comment that says why; a new one is a decision
NEEDS = {  # what pages are of that need more than convkit itself
    "sklearn.md": "sklearn",
}
PICTURES = "matplotlib", "PIL"


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in, and a convkit that was not used before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(base, "_names", Counter())
    monkeypatch.setattr(registered, "_things", {})
    monkeypatch.setattr(convkit.datasets.mnist, "load_data", lambda: datasets.digits.load_data(28))
    for module in PICTURES:
        pytest.importorskip(module)
    threads = convkit.get_num_threads()
    convkit.utils.set_random_seed(0)
    yield tmp_path
    convkit.set_num_threads(threads)


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_page(page: Path, alone: Path) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks.parse(page.read_text()):
        if block.reason is not None:
            continue
        if block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                blocks.run(block, page, namespace)
            if block.output is not None:
                check(block.output, printed.getvalue(), f"{page.name}, line {block.first}")
        elif block.language in ("sh", "console"):
            for command, output in commands(block):
                where = f"{page.name}: {command}"
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    assert cli.main(shlex.split(command)[1:]) == 0, where
                if output:
                    check(output, printed.getvalue(), where)


def check(expected: str, printed: str, where: str) -> None:
    """What was printed is what a page shows, where `...` stands for anything."""
    checker = doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert checker.check_output(expected, printed, flags), (
        f"{where}: expected\n{expected}\ngot\n{printed}"
    )


def commands(block: blocks.Block) -> list[tuple[str, str]]:
    """The commands of convkit in a block, each with the output that a console shows."""
    found: list[tuple[str, str]] = []
    ours = False
    for line in block.code.splitlines():
        prompt = "$ " if block.language == "console" else ""
        if not prompt or line.startswith(prompt):
            command = line.removeprefix(prompt).partition("  #")[0].strip()
            ours = command.startswith("convkit ")
            if ours:
                found.append((command, ""))
        elif ours:
            command, output = found.pop()
            found.append((command, f"{output}{line}\n"))
    return found


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    parsed = [block for page in PAGES for block in blocks.parse(page.read_text())]
    reasons = [block.reason for block in parsed if block.reason is not None]
    assert len(reasons) == NOT_RUN, reasons
    assert sum(block.language == "python" for block in parsed) > 100


def test_every_page_is_in_the_tree_of_contents() -> None:
    listed = {"index"}
    for page in DOCS.rglob("*.md"):
        for block in blocks.parse(page.read_text()):
            if block.language == "{toctree}":
                entries = [line for line in block.code.splitlines() if line and line[0] != ":"]
                folder = page.parent.relative_to(DOCS)
                listed.update((folder / entry).as_posix() for entry in entries)
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    assert listed == pages


def test_every_public_module_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    for name in convkit.__all__:
        assert f"convkit.{name}" in text or name.startswith("__"), name


# ---- the parser of pages -------------------------------------------------------------------------

PAGE = """\
Text.

```python
print(1)
```

```text
1
```

<!-- not run: needs a GPU -->
```python
import cupy
```

```sh
convkit info
```
"""


def test_blocks_are_found_with_their_lines_outputs_and_reasons() -> None:
    first, second, third = blocks.parse(PAGE)
    assert (first.language, first.code, first.output) == ("python", "print(1)\n", "1\n")
    assert (first.first, first.last, first.reason) == (4, 9, None)
    assert (second.reason, second.code) == ("needs a GPU", "import cupy\n")
    assert (third.language, third.reason) == ("sh", None)


def test_output_counts_only_right_behind_its_block() -> None:
    apart = PAGE.replace("```text", "This is printed:\n\n```text")
    assert [block.output for block in blocks.parse(apart)] == [None] * 4


def test_a_page_that_is_broken_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 3: expected the block to be closed"):
        blocks.parse("A\n\n```python\n")
    with pytest.raises(ValueError, match="line 3: expected a block below `not run: why`"):
        blocks.parse("<!-- not run: why -->\n\ntext\n")


def test_a_block_that_fails_names_its_line_of_the_page(tmp_path: Path) -> None:
    (block,) = blocks.parse("A page.\n\n```python\nx = 1\nraise KeyError(x)\n```\n")
    with pytest.raises(KeyError) as error:
        blocks.run(block, tmp_path / "page.md", {})
    assert error.traceback[-1].lineno + 1 == 5
    assert str(error.traceback[-1].path).endswith("page.md")


def test_wrong_output_is_an_error() -> None:
    check("1 ... 3\n", "1 2 3\n", "here")
    with pytest.raises(AssertionError, match="here: expected"):
        check("1\n", "2\n", "here")


def test_commands_and_their_output_are_told_apart() -> None:
    (block,) = blocks.parse("```console\n$ cd x\nno\n$ convkit info  # what\nyes\n```\n")
    assert commands(block) == [("convkit info", "yes\n")]


# ---- the extensions of Sphinx --------------------------------------------------------------------


def test_pictures_stand_below_the_code_that_makes_them(tmp_path: Path) -> None:
    app = SimpleNamespace(outdir=tmp_path / "site", srcdir=tmp_path)
    code = "from pathlib import Path\nPath('a').write_text('x')\nPath('b.png').write_text('y')"
    page = f'A.\n\n```python\n{code}\ndict(path="b.png")\n```\n\n```python\nprint(1)\n```\n'
    source = [page]
    pictures.show_pictures(app, "howto/one", source)
    tag = '<img src="../_pictures/howto/one/b.png" alt="b.png">'
    assert source[0].replace(f"\n\n{tag}\n", "") == page.rstrip("\n")
    assert source[0].index(tag) < source[0].index("print(1)")
    assert (tmp_path / "site/_pictures/howto/one/b.png").read_text() == "y"
    assert not Path("b.png").exists()


def test_a_page_without_pictures_stays_as_it_is(tmp_path: Path) -> None:
    source = ["```python\nraise KeyError\n```\n"]
    pictures.show_pictures(SimpleNamespace(outdir=tmp_path, srcdir=tmp_path), "howto/one", source)
    assert source == ["```python\nraise KeyError\n```\n"]


def test_docstrings_are_plain_text_but_for_code() -> None:
    lines = [
        "l2 * sum(|w|), val_ values, `a * b_`, some `id`s.",
        ">>> a * b",
        "Attributes, set by `fit`:",
        "    x, y: as given.",
        "    both_: one.",
    ]
    docstrings.plain(None, "class", "Name", None, None, lines)
    assert lines == [
        r"l2 \* sum(\|w\|), val\_ values, `a * b_`, some `id`\ s.",
        ">>> a * b",
        "Attributes are set by `fit`.",
        "",
        "Attributes:",
        "    x: as given.",
        "    y: as given.",
        r"    both\_: one.",
    ]
