"""Turn this process into a server that runs as an unprivileged user and dies with the one that started it.

Run as ``python launch.py PARENT_PID SIGNAL USER PROGRAM [ARGUMENT ...]``; an empty USER keeps the
present one. The kernel sends SIGNAL when the parent is gone, however it went (prctl(2),
PR_SET_PDEATHSIG). It forgets that wish when a process changes its user, which is why the order below
matters, and why servers do not change it themselves.
"""

import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1


def become(user: str) -> None:
    """Give up root for good; HOME would otherwise point at a folder that is not ours any more."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = "/nonexistent"


def die_with(parent: int, death: signal.Signals) -> None:
    """Ask the kernel for the signal, and leave at once if the parent was gone before it could promise."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(death), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def main() -> None:
    """Read the command line and become the program."""
    parent, death, user, program, *arguments = sys.argv[1:]
    if user:
        become(user)
    die_with(int(parent), signal.Signals[death])
    os.execv(program, [program, *arguments])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
