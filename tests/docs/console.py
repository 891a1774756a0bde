"""Run the console blocks of a page as a reader would type them, and compare what they print."""

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import ROOT, Block, PageError

LIMIT = 120
END_OF_COMMAND = "end-of-documented-command"
# Prints the code of the command above it, and leaves that code for a following `echo $?`.
REPORT = f"""__code=$?; printf '\\n{END_OF_COMMAND} %d\\n' "$__code"; (exit "$__code")"""
SHOW_CODE = "echo $?"
_REPORTED = re.compile(rf"\n{END_OF_COMMAND} (\d+)\n")
_MAKE = re.compile(r"^make +([\w-]+)$", re.MULTILINE)
_TARGET = re.compile(r"^([\w-]+):(?!=)", re.MULTILINE)


@dataclass(slots=True)
class Command:
    """One ``$ `` line of a block, with the output that the page shows for it.

    Args:
        offset: The line inside the block, counted from 0.
        text: What is typed, continuation lines included.
        expected: The lines shown beneath it; none means that the page says nothing about the output.
    """

    offset: int
    text: str
    expected: list[str] = field(default_factory=list)


def commands(block: Block) -> list[Command]:
    r"""Return the commands of a block; a block without any prompt in ``sh`` is one script.

    A command goes on in the next line after a ``\`` or where that line starts with ``> ``.

    Raises:
        PageError: A block shows output before any command.
    """
    lines = block.code.splitlines()
    if block.language == "sh" and not any(line.startswith("$ ") for line in lines):
        return [Command(0, f"(\nset -e\n{block.code}\n)")]
    found: list[Command] = []
    for offset, line in enumerate(lines):
        if line.startswith("$ "):
            found.append(Command(offset, line.removeprefix("$ ")))
        elif not found:
            raise PageError(f"{block.at(offset)}: output without a command; commands start with '$ '")
        elif not found[-1].expected and (line.startswith("> ") or found[-1].text.endswith("\\")):
            found[-1].text += "\n" + line.removeprefix("> ")
        else:
            found[-1].expected.append(line)
    return found


def make_targets(text: str) -> list[str]:
    """Return the targets that a text of commands calls make for."""
    return _MAKE.findall(text)


def run_console(block: Block, folder: Path, root: Path = ROOT) -> None:
    """Run the commands of a block in one shell in the folder, and compare.

    ``make`` is not called from inside the tests that it runs: its target has to exist, and that is all.
    A command that fails is an error, unless ``$ echo $?`` comes next and shows the code.

    Raises:
        PageError: A command failed, or printed something else than the page shows.
    """
    typed = commands(block)
    for command in typed:
        for target in make_targets(command.text):
            if target not in _TARGET.findall((root / "Makefile").read_text(encoding="utf-8")):
                raise PageError(f"{block.at(command.offset)}: the Makefile has no target '{target}'")
    script = "\n".join(f"{_MAKE.sub('true', command.text)}\n{REPORT}" for command in typed)
    reported = _REPORTED.split(_shell(block, script, folder))
    for number, command in enumerate(typed):
        output = reported[2 * number]
        code = int(reported[2 * number + 1]) if 2 * number + 1 < len(reported) else None
        code_is_shown = number + 1 < len(typed) and typed[number + 1].text == SHOW_CODE
        if code != 0 and not (code_is_shown and code is not None):
            raise PageError(
                f"{block.at(command.offset)}: '{command.text}' exited with {code}, printing\n{output}"
            )
        if any(command.expected) and not make_targets(command.text) and not matches(command.expected, output):
            shown = "\n".join(command.expected)
            raise PageError(
                f"{block.at(command.offset)}: '{command.text}' printed\n{output}\nthe page shows\n{shown}"
            )


def matches(expected: list[str], output: str) -> bool:
    """Compare as doctest does: ``...`` stands for anything; blanks at the ends of lines do not count."""
    want, got = (
        "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"
        for lines in (expected, output.splitlines())
    )
    return doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS)


def _shell(block: Block, script: str, folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "100",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise PageError(
            f"{block.at()}: still running after {LIMIT} s, having printed\n{expired.output}"
        ) from expired
    return done.stdout
