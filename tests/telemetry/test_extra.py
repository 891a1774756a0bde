"""Without the vendor's library the error says what to install."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "vendor"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry")]
)
def test_the_extra_is_named_where_it_is_missing(module: str, vendor: str) -> None:
    """Importing the rest takes none of it."""
    program = (
        f"import sys; sys.modules[{vendor!r}] = None\nimport fieldvault.telemetry\n"
        f"try:\n    import fieldvault.telemetry.{module}\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"needs the module {vendor}, which is not installed; install fieldvault[{module}]" in done.stdout
