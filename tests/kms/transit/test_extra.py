"""Whoever does not use transit does not need its library, and whoever does is told what to install."""

import subprocess
import sys

WITHOUT = "import sys; sys.modules['hvac'] = None; "


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_the_library_is_imported_with_the_backend_and_not_before() -> None:
    """Not by the package, and not by a vault."""
    program = (
        "import sys, fieldvault, fieldvault.kms; print('hvac' in sys.modules, 'requests' in sys.modules)"
    )
    assert _run(program).stdout == "False False\n"


def test_without_the_library_the_error_names_the_extra() -> None:
    """Imported by name, and named in a configuration."""
    assert _run(WITHOUT + "from fieldvault.kms import LocalKMS").returncode == 0
    done = _run(WITHOUT + "from fieldvault.kms import TransitKMS")
    assert done.returncode == 1
    assert (
        "TransitKMS needs the module hvac, which is not installed; install fieldvault[transit]" in done.stderr
    )
    done = _run(
        WITHOUT + "from fieldvault import Vault;"
        "Vault.open({'kms': {'type': 'transit'}, 'key_store': {'type': 'memory'}})"
    )
    assert "ConfigurationError: the configuration: kms.type needs the module hvac" in done.stderr
    assert "install fieldvault[transit]" in done.stderr
