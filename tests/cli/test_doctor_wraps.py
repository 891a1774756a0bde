"""``fieldvault doctor --wraps`` proves that any one KMS of several is enough."""

from pathlib import Path
from typing import Any

import pytest

from fieldvault import Vault
from fieldvault.cli.verify import proven_by_member
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS, MultiKMS
from fieldvault.testing.fakes import FaultyKMS
from tests.cli.calling import Answer, call, give_keys, give_subject_keys

MEMBERS = """[kms]
type = "multi"

[kms.members.here]
type = "local"
path = "root.keys"

[kms.members.there]
type = "local"
path = "there.keys"
offline = true
"""


@pytest.fixture
def joined(vault_folder: Path) -> Path:
    """A vault with keys under one KMS, to which another has been added since."""
    give_keys("acme", "other")
    give_subject_keys("acme", "ann")
    LocalKMS.create(vault_folder / "there.keys").close()
    config = vault_folder / "fieldvault.toml"
    config.write_text(config.read_text().replace('[kms]\ntype = "local"\npath = "root.keys"\n', MEMBERS))
    return vault_folder


def found(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return the checks by name."""
    return {check["check"]: check for check in answer.document["checks"]}


@pytest.mark.usefixtures("vault_folder")
def test_with_one_kms_there_is_nothing_more_to_prove() -> None:
    """It was asked for every key anyway."""
    give_keys("acme")
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 0
    assert found(answer)["wraps"]["detail"] == "there is one KMS, and it was asked for every key"
    assert "wraps" not in found(call("doctor", "--json"))


@pytest.mark.usefixtures("joined")
def test_keys_that_a_member_never_wrapped_are_named() -> None:
    """All of them can be read, and none without the first member."""
    assert call("doctor").code == 0
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 1
    check = found(answer)["wraps"]
    assert check["level"] == "problem"
    assert check["detail"] == "3 of 3 keys are not unwrapped by each of here, there"
    assert len(check["items"]) == 3
    refused = ": there: no member unwraps the key: there: KMSError: the wrapped key was changed, or"
    assert all(refused in item for item in check["items"])
    assert check["remedy"].endswith("fieldvault rewrap")


@pytest.mark.usefixtures("joined")
def test_after_a_rewrap_each_member_is_enough() -> None:
    """Which is proven by asking each for every key."""
    assert call("rewrap").out.startswith("Rewrapped 3 keys; ")
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 0
    assert found(answer)["wraps"]["detail"] == "all 3 keys are unwrapped by each of here, there"


def test_a_member_that_is_not_at_hand_is_not_taken_as_proven(joined: Path) -> None:
    """It is a warning: it may be in the safe, where it belongs."""
    assert call("rewrap").code == 0
    (joined / "there.keys").rename(joined / "safe")
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 0
    checks = found(answer)
    assert checks["wraps"]["detail"] == "all 3 keys are unwrapped by each of here"
    assert checks["wraps of absent members"]["level"] == "warning"
    assert checks["wraps of absent members"]["detail"] == "there could not be asked"


def test_a_member_that_answers_another_key_is_found(tmp_path: Path) -> None:
    """Also for what it wrapped by itself, where nothing but the key id tells."""
    liar = FaultyKMS(LocalKMS.create(tmp_path / "liar.keys"))
    store = MemoryKeyStore()
    with Vault(kms=liar, key_store=store) as vault:
        vault.encrypt("x", field="a.b", tenant="acme")
    multi = MultiKMS({"liar": liar})
    assert [verdict.problem for verdict in proven_by_member(multi, store, "acme")] == [None]
    liar.lie()
    (verdict,) = proven_by_member(multi, store, "acme")
    assert verdict.problem is not None
    assert verdict.problem.startswith("liar: unwrapping the key")
    assert verdict.problem.endswith("the KMS or the key store holds a wrong one")


def test_a_member_with_another_root_key_is_found(joined: Path) -> None:
    """A wrong file was brought back from the safe."""
    assert call("rewrap").code == 0
    (joined / "there.keys").unlink()
    LocalKMS.create(joined / "there.keys").close()
    assert call("doctor").code == 0
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 1
    assert len(found(answer)["wraps"]["items"]) == 3
