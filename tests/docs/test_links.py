"""Links between the pages lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCED = re.compile(r"^ *(```|~~~).*?^ *\1", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """Yield where a page's links lead, but for those to other sites and those in code."""
    for target in _LINK.findall(_CODE.sub("", _FENCED.sub("", text))):
        if "://" not in target:
            yield target


def anchors(text: str) -> set[str]:
    """Return the names that headings can be linked by, made as GitHub makes them."""
    headings = _HEADING.findall(_FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        inside = file.is_relative_to(ROOT.resolve()) or file.is_relative_to(page.parent.resolve())
        lost = (
            anchor
            and file.suffix == ".md"
            and file.is_file()
            and anchor not in anchors(file.read_text(encoding="utf-8"))
        )
        if not file.exists() or not inside or lost:
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    """The file is there, and so is the heading that the link names."""
    assert broken(page) == []


def test_every_page_of_docs_is_listed_in_the_readme() -> None:
    """A page that nothing leads to is read by nobody."""
    listed = {target.partition("#")[0] for target in links((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert [
        str(page) for page in PAGES if page.parent.name == "docs" and f"docs/{page.name}" not in listed
    ] == []


def test_links_that_lead_nowhere_are_seen(tmp_path: Path) -> None:
    """A check that finds nothing would prove nothing."""
    (tmp_path / "there.md").write_text("# Here it *is*: `x`, 2 of 3\n\n```text\n# not a heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#here-it-is-x-2-of-3) [d](there.md#gone)\n"
        "[e](#title) [f](#none)\n"
        "[g](https://example.com) `[h](code.md)`\n\n# Title\n\n```text\n[i](fenced.md)\n```\n"
        "[j](there.md#not-a-heading)\n"
    )
    assert broken(page) == ["gone.md", "there.md#gone", "#none", "there.md#not-a-heading"]
