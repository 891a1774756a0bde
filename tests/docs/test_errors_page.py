"""The page on errors has every class, and says of each when it comes and what to do."""

import re

from fieldvault import errors
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`\n\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_every_error_has_a_section_of_its_own_and_no_section_is_left_over() -> None:
    """Whoever meets an error finds it, and the page names none that cannot be met."""
    assert sorted(SECTIONS) == sorted(errors.__all__)


def test_every_section_says_when_the_error_comes_and_what_to_do() -> None:
    """At three in the morning nobody reads on."""
    form = re.compile(r"\*\*When\.\*\* \S.{20,}\n\n\*\*Do\.\*\* \S.{20,}\n+", re.DOTALL)
    assert [name for name, section in SECTIONS.items() if not form.fullmatch(section)] == []


def test_the_page_says_that_no_error_is_raised_only_of_those_that_nothing_raises() -> None:
    """An error that is there for later is marked so, until something raises it."""
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src").rglob("*.py")
        if path.name not in ("errors.py", "exits.py")
    )
    unraised = {
        name for name in errors.__all__ if not re.search(rf"\b{name}(\.of_scope)?\(|raise {name}\b", sources)
    }
    marked = {
        name
        for name, section in SECTIONS.items()
        if re.search(r"[Nn]othing in this release raises|Never raised", section)
    }
    assert marked == unraised
