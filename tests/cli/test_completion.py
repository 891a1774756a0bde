"""``fieldvault completion`` prints what a shell sources."""

import os
import subprocess

import pytest

from tests.cli.calling import PROGRAM, call


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    """It calls the program back by the variable that click reads."""
    out = call("completion", shell).out
    assert f"{shell}_complete" in out
    assert "_FIELDVAULT_COMPLETE" in out
    assert call("completion", shell, "--json").document == {"shell": shell, "script": out.removesuffix("\n")}


def test_bash_completes_commands_with_it() -> None:
    """The script is sourced, and its function asked as bash asks it."""
    script = (
        'eval "$(fieldvault completion bash)"; COMP_WORDS=(fieldvault ro); COMP_CWORD=1; '
        '_fieldvault_completion fieldvault; echo "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "rotate"
