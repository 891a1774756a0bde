"""Threads, forks and lost sessions at once: nothing crashes, and nothing is told that is not so."""

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tests.servers.parts import SOFTHSM
from tests.servers.record import PartsRecord
from tests.servers.softhsm import PIN, TOKEN, configure, make_token

SECONDS = "2"


def test_no_thread_no_fork_and_no_lost_session_crashes_the_process(
    real_parts: PartsRecord, tmp_path: Path
) -> None:
    """In a process of its own, which a module without locks would take down with it."""
    real_parts.require(SOFTHSM)
    configuration = configure(tmp_path)
    make_token(TOKEN, PIN, configuration=configuration)
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "tests.kms.pkcs11.stress",
            SOFTHSM.path("libsofthsm2.so"),
            SECONDS,
        ],
        cwd=ROOT,
        env={**os.environ, "SOFTHSM2_CONF": str(configuration)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
