"""What every test shares: the real servers, and how Hypothesis searches."""

import os

from hypothesis import settings

pytest_plugins = ["tests.servers.plugin"]

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
