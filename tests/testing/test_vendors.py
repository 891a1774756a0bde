"""What a vendor's library can raise is listed from it, and the kits fail when it grows an error."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fieldvault.testing.vendors import error_codes, exceptions_of

SDK = {
    "__init__": "from json import JSONDecodeError\nfrom vendor_sdk.errors import Down\n",
    "errors": "class Down(Exception): pass\nclass Refused(Down): pass\nclass Soon(UserWarning): pass\n",
    "deep/__init__": "",
    "deep/inner": "class Corrupt(ValueError): pass\nclass Client: pass\n",
    "fast": "import a_part_that_is_not_installed\nclass Never(Exception): pass\n",
    "__main__": "raise AssertionError('it is a program')\n",
}

KITS = """
import pytest
import vendor_sdk
from fieldvault.errors import KeyStoreError, KMSError
from fieldvault.testing import KeyStoreConformance, KMSConformance
from fieldvault.testing.vendors import error_codes, exceptions_of
from types import SimpleNamespace
from vendor_sdk.deep.inner import Corrupt
from vendor_sdk.errors import Down, Refused
from vendor_sdk.model import MODEL

KNOWN = [Down, Refused, Corrupt, "Throttled"]


class TestKMS(KMSConformance):
    @pytest.fixture
    def vendor_errors(self):
        return {*exceptions_of(vendor_sdk), *error_codes(MODEL, ["Wrap"])}

    @pytest.fixture
    def meaning_of(self):
        return dict.fromkeys(KNOWN, KMSError).get


class TestStore(KeyStoreConformance):
    vendor_errors = TestKMS.vendor_errors

    @pytest.fixture
    def meaning_of(self):
        return dict.fromkeys(KNOWN, KeyStoreError).__getitem__
"""

MODEL = """
from types import SimpleNamespace as Shape
OPERATIONS = {"Wrap": Shape(error_shapes=[Shape(error_code="Throttled")])}
MODEL = Shape(operation_model=OPERATIONS.get)
"""


@pytest.fixture
def sdk(tmp_path: Path) -> Path:
    """A vendor's library, installed."""
    folder = tmp_path / "vendor_sdk"
    for name, code in {**SDK, "model": MODEL}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return folder


@pytest.fixture
def imported(sdk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The library, imported."""
    monkeypatch.syspath_prepend(sdk.parent)
    yield importlib.import_module("vendor_sdk")
    for name in [each for each in sys.modules if each.partition(".")[0] == "vendor_sdk"]:
        del sys.modules[name]


def test_all_exceptions_of_a_package_are_listed(imported: ModuleType) -> None:
    """Wherever in it; not its warnings, nor what it has from elsewhere, nor what it cannot import."""
    assert {each.__name__ for each in exceptions_of(imported)} == {"Down", "Refused", "Corrupt"}


def test_those_of_a_module_are_its_own(imported: ModuleType) -> None:
    """And several can be asked for."""
    errors = importlib.import_module("vendor_sdk.errors")
    inner = importlib.import_module("vendor_sdk.deep.inner")
    assert {each.__name__ for each in exceptions_of(errors)} == {"Down", "Refused"}
    assert exceptions_of(errors, inner) == exceptions_of(imported)


def test_the_codes_of_the_operations_are_listed() -> None:
    """Not those of others."""
    shapes = {"Wrap": ["Throttled", "Denied"], "Delete": ["Missing"], "Unwrap": ["Denied", "Corrupt"]}

    def operation(name: str) -> SimpleNamespace:
        return SimpleNamespace(error_shapes=[SimpleNamespace(error_code=code) for code in shapes[name]])

    model = SimpleNamespace(operation_model=operation)
    assert error_codes(model, ["Wrap", "Unwrap"]) == {"Throttled", "Denied", "Corrupt"}


GROWN = {
    "errors": "class Sealed(Down): pass\n",
    "later": "class Lost(Exception): pass\n",
    "model": "OPERATIONS['Wrap'].error_shapes.append(Shape(error_code='Expired'))\n",
}
"""A class beside others, a module of its own, and a code."""


def test_a_library_that_grows_errors_fails_both_kits(sdk: Path) -> None:
    """And they say which ones nobody has thought of."""
    (sdk.parent / "test_backend.py").write_text(KITS, encoding="utf-8")
    code, told = _run(sdk.parent)
    assert (code, "2 passed" in told) == (0, True), told
    for module, code_of_it in GROWN.items():
        with (sdk / f"{module}.py").open("a", encoding="utf-8") as file:
            file.write(code_of_it)
    code, told = _run(sdk.parent)
    assert (code, "2 failed" in told) == (1, True), told
    for name in ("vendor_sdk.errors.Sealed", "vendor_sdk.later.Lost", "Expired"):
        assert told.count(f"'{name}': 'is not mapped'") >= 2, told


def _run(folder: Path) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-vv",
        "-k",
        "error_of_the_vendor",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout
