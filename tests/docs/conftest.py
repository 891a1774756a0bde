"""Say at the end which blocks of the pages were not run, and why."""

from dataclasses import dataclass, field

import pytest


@dataclass(slots=True)
class NotRun:
    """The blocks that a page marks as not runnable, one line each."""

    lines: list[str] = field(default_factory=list)


NOT_RUN = pytest.StashKey[NotRun]()


@pytest.fixture(scope="session")
def not_run(request: pytest.FixtureRequest) -> NotRun:
    """Collect what the closing lines tell."""
    return request.config.stash.setdefault(NOT_RUN, NotRun())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print one line a block."""
    for line in config.stash.get(NOT_RUN, NotRun()).lines:
        terminalreporter.write_line(f"documented code not run: {line}")
