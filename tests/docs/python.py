"""Run the Python blocks of a page in one module, the way a reader goes down the page."""

import doctest
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from tests.docs.pages import Block, PageError


@contextmanager
def page_module(name: str) -> Iterator[ModuleType]:
    """Yield a module that can be imported by its name, as classes made in it expect."""
    module = ModuleType(name)
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]


def run_python(block: Block, module: ModuleType) -> None:
    """Run a block in the module; one that holds ``>>>`` prompts is compared as a doctest.

    Raises:
        PageError: The code raised, or printed something else than the page shows.
    """
    if block.code.lstrip().startswith(">>>"):
        _run_doctest(block, module)
        return
    # Blank lines in front make tracebacks count lines as the page does.
    source = "\n" * block.line + block.code
    try:
        exec(compile(source, block.page, "exec", dont_inherit=True), vars(module))  # noqa: S102 - the point of it
    except Exception as error:
        raise PageError(f"{block.page}:{_line(error, block)}: {type(error).__name__}: {error}") from error


def _line(error: Exception, block: Block) -> int:
    if isinstance(error, SyntaxError) and error.filename == block.page and error.lineno:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == block.page and frame.lineno]
    return lines[-1] if lines else block.line + 1


def _run_doctest(block: Block, module: ModuleType) -> None:
    examples = doctest.DocTestParser().get_doctest(
        block.code + "\n", vars(module), module.__name__, block.page, block.line
    )
    examples.globs = vars(module)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    if runner.run(examples, out=report.append, clear_globs=False).failed:
        raise PageError(f"{block.at()}: {''.join(report)}")
