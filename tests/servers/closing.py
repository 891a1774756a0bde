"""Print what became of each real part in several runs of the tests: ``FILE...``, as they saved it."""

import sys
from pathlib import Path

from tests.servers.record import PartsRecord

for line in PartsRecord.of_all(map(Path, sys.argv[1:])).closing_lines():
    print(line)  # noqa: T201 - the output is what the caller reads
