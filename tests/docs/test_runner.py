"""The runner of documented code passes what is right and names page and line of what is wrong."""

from pathlib import Path

import pytest

from tests.docs import console
from tests.docs.page import run_page
from tests.docs.pages import PageError, blocks, pages

GOOD = {
    "python blocks share names": """
        ```python
        from dataclasses import dataclass
        price = 3
        ```
        Later:
        ```python
        assert price == 3
        ```
        """,
    "classes find the names of their annotations": """
        ```python
        from __future__ import annotations
        from typing import get_type_hints
        class Item:
            parent: Item
        assert get_type_hints(Item)["parent"] is Item
        ```
        """,
    "doctests share names with plain blocks": """
        ```python
        names = ["a", "b"]
        ```
        ```python
        >>> names
        ['a', ...]
        >>> names.append("c")
        ```
        ```python
        assert names == ["a", "b", "c"]
        ```
        """,
    "files made by one block are there for the next": """
        ```python
        import pathlib
        pathlib.Path("shop.txt").write_text("hello")
        ```
        ```console
        $ cat shop.txt
        hello
        ```
        """,
    "output may be left out or shortened": """
        ```console
        $ echo not compared
        $ echo one two three
        one ... three
        $ printf 'first\\nsecond\\nthird\\n'
        first
        ...
        third
        ```
        """,
    "a shown exit code makes a failure fine": """
        ```console
        $ sh -c 'exit 3'
        $ echo $?
        3
        ```
        """,
    "the shell of a block keeps its variables": """
        ```console
        $ export COLOUR=red
        $ echo $COLOUR
        red
        ```
        """,
    "commands go on over lines": """
        ```console
        $ echo one \\
            two
        one two
        $ cat <<END
        > three
        > END
        three
        ```
        """,
    "a script without prompts runs as one": """
        ```sh
        # a comment
        for name in a b; do
            echo "$name" >> names
        done
        test "$(wc -l < names)" = 2
        ```
        """,
    "make is looked up and not called": """
        ```console
        $ make test
        a page of output
        ```
        """,
    "other languages are left alone": """
        ```toml
        this is = not valid
        ```
        ```
        nor this
        ```
        """,
    "a fence inside a list is indented": """
        1. Look:

           ```python
           if True:
               assert True
           ```
        """,
}

BAD = {
    "an exception": ("```python\nx = 1\n\nraise KeyError('x')\n```", r"page\.md:4: KeyError: 'x'"),
    "an exception further down": (
        "```python\ndef f():\n    raise OSError('gone')\n```\n\n```python\nf()\n```",
        r"page\.md:3: OSError: gone",
    ),
    "an error in a library": ("```python\nimport json\njson.loads('{')\n```", r"page\.md:3: JSONDecodeError"),
    "a syntax error": ("```python\nx = 1\nx = = 2\n```", r"page\.md:3: SyntaxError"),
    "a wrong doctest": ("text\n```python\n>>> 1 + 1\n3\n```", r"page\.md:3: (?s:.*)Expected:\s+3\s+Got:\s+2"),
    "a failing command": (
        "```console\n$ echo fine\n$ sh -c 'echo no; exit 4'\n```",
        r"page\.md:3: .*exited with 4(?s:.*)no",
    ),
    "a failing command before the last": (
        "```console\n$ false\n$ echo fine\n```",
        r"page\.md:2: 'false' exited with 1",
    ),
    "an unknown command": ("```console\n$ fieldvoult status\n```", r"page\.md:2: .*exited with 127"),
    "other output": (
        "```console\n$ echo two\none\n```",
        r"page\.md:2: 'echo two' printed\ntwo(?s:.*)the page shows\none",
    ),
    "another exit code": (
        "```console\n$ sh -c 'exit 3'\n$ echo $?\n4\n```",
        r"page\.md:3: 'echo \$\?' printed\n3",
    ),
    "a shell that ends early": (
        "```console\n$ exit 0\n$ echo never\n```",
        r"page\.md:2: 'exit 0' exited with None",
    ),
    "output before a command": ("```console\nhello\n```", r"page\.md:2: output without a command"),
    "a failing script": ("```sh\nfalse\ntrue\n```", r"page\.md:2: (?s:.*)exited with 1"),
    "a target that does not exist": (
        "```console\n$ make coffee\n```",
        r"page\.md:2: the Makefile has no target 'coffee'",
    ),
    "an open fence": ("text\n\n```python\nx = 1\n", r"page\.md:3: this fence is never closed"),
}


def dedent(text: str) -> str:
    """Take away the eight columns by which the pages above are indented."""
    return "\n".join(line[8:] for line in text.splitlines())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the page runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_page_that_is_right_passes(text: str, folder: Path) -> None:
    """Nothing that works as shown is complained about."""
    assert run_page(dedent(text), "page.md", folder) == []


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_page_that_is_wrong_fails_with_page_and_line(text: str, message: str, folder: Path) -> None:
    """Whoever broke the page is told where to look."""
    with pytest.raises(PageError, match=message):
        run_page(text, "page.md", folder)


def test_a_block_marked_as_not_run_is_reported_with_its_reason(folder: Path) -> None:
    """The mark covers the next block only, and never hides without saying so."""
    text = "<!-- not run: needs a KMS -->\n\n```python\nraise OSError\n```\n\n```python\nassert True\n```\n"
    assert run_page(text, "page.md", folder) == ["page.md:3 (needs a KMS)"]


def test_a_mark_does_not_reach_past_other_text(folder: Path) -> None:
    """A mark that lost its block is no cover for the next one."""
    with pytest.raises(PageError, match=r"page\.md:4: OSError"):
        run_page(
            "<!-- not run: needs a KMS -->\nSome words.\n```python\nraise OSError\n```\n", "page.md", folder
        )


def test_a_command_that_hangs_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page cannot stall the tests."""
    monkeypatch.setattr(console, "LIMIT", 0.2)
    with pytest.raises(PageError, match="still running"):
        run_page("```console\n$ sleep 60\n```", "page.md", folder)


def test_a_page_runs_beside_the_examples(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands that name an example find it, as in a checkout."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "examples").mkdir()
    (root / "examples" / "hello.py").write_text("print('hello')")
    run_page("```console\n$ python examples/hello.py\nhello\n```", "page.md", folder, root)


def test_pages_are_the_readme_and_all_of_docs(tmp_path: Path) -> None:
    """Pages in folders count; a project without pages has none."""
    assert pages(tmp_path) == []
    (tmp_path / "docs" / "guide").mkdir(parents=True)
    for name in ("README.md", "docs/quickstart.md", "docs/guide/shop.md", "docs/notes.txt"):
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in pages(tmp_path)]
    assert found == ["README.md", "docs/guide/shop.md", "docs/quickstart.md"]


def test_a_block_knows_its_line_and_language() -> None:
    """Lines count from 1, as editors do."""
    block = next(blocks("# Title\n\n~~~sh\ntrue\n~~~\n", "page.md"))
    assert (block.language, block.line, block.code, block.at()) == ("sh", 3, "true", "page.md:4")
