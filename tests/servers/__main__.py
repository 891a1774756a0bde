"""Print the Debian packages whose parts are missing on this machine, one a line."""

from tests.servers.parts import PARTS

for part in PARTS:
    if part.debian_package and part.missing():
        print(part.debian_package)  # noqa: T201 - the output is what the caller reads
