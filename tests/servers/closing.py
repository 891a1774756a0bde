"""Print what became of each real part in several runs of the tests: ``FILE...``, as they saved it.

Fails where all parts are required and one was left out.
"""

import sys
from pathlib import Path

from tests.servers.record import REQUIRE_ALL, PartsRecord

whole = PartsRecord.of_all(map(Path, sys.argv[1:]))
for line in whole.closing_lines():
    print(line)  # noqa: T201 - the output is what the caller reads
if whole.require_all and whole.untouched():
    sys.exit(f"{REQUIRE_ALL}=1, yet not exercised: {', '.join(whole.untouched())}")
