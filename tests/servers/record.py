"""What became of each real part in this run, and the closing lines that tell it."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy

from tests.servers.parts import PARTS, Part

REQUIRE_ALL = "FIELDVAULT_REQUIRE_ALL"


@dataclass(slots=True)
class PartsRecord:
    """The parts that tests really talked to, and those they had to do without.

    Args:
        require_all: A part that cannot run fails its tests instead of skipping them.
        exercised: What the tests talked to, and its version.
        skipped: What they had to do without, and why.
        through: The releases of SQLAlchemy that the tests ran on.
    """

    require_all: bool = field(default_factory=lambda: os.environ.get(REQUIRE_ALL) == "1")
    exercised: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    through: list[str] = field(default_factory=lambda: [sqlalchemy.__version__])

    @classmethod
    def of_all(cls, runs: Iterable[Path]) -> "PartsRecord":
        """Return what several runs did together, as each saved it."""
        whole = cls(through=[])
        for run in runs:
            one = json.loads(run.read_text(encoding="utf-8"))
            whole.exercised |= one["exercised"]
            whole.skipped |= one["skipped"]
            whole.through = sorted({*whole.through, *one["through"]})
        return whole

    def save(self, run: Path) -> None:
        """Keep this run's record for ``of_all``."""
        run.parent.mkdir(parents=True, exist_ok=True)
        run.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def require(self, part: Part) -> None:
        """Skip the test that asks, or fail it where every part is required, unless the part can run here."""
        missing = part.missing()
        if missing:
            self._do_without(part, f"{', '.join(missing)} not installed; {part.package}")

    def _do_without(self, part: Part, reason: str) -> NoReturn:
        self.skipped[part.name] = reason
        if self.require_all:
            pytest.fail(f"{part.name} is required by {REQUIRE_ALL}=1: {reason}", pytrace=False)
        pytest.skip(f"{part.name}: {reason}")

    def untouched(self) -> list[str]:
        """Return the parts that no test asked for."""
        return [
            part.name for part in PARTS if part.name not in self.exercised and part.name not in self.skipped
        ]

    def closing_lines(self) -> list[str]:
        """Return the lines that end a run's report."""
        exercised = ", ".join(f"{name} {version}" for name, version in sorted(self.exercised.items()))
        skipped = ", ".join(f"{name} ({why})" for name, why in sorted(self.skipped.items()))
        untouched = ", ".join(f"{name} (no test asked for it)" for name in self.untouched())
        return [
            f"real parts exercised: {exercised or 'none'}, through SQLAlchemy {' and '.join(self.through)}",
            f"real parts skipped: {', '.join(filter(None, (skipped, untouched))) or 'none'}",
        ]
