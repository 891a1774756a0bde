"""``python -m fieldvault.cli``."""

import sys

from fieldvault.cli import main

sys.exit(main())
