"""``fieldvault doctor --wraps`` proves that any one KMS of several is enough."""

from pathlib import Path
from typing import Any

import pytest

from fieldvault import Vault
from fieldvault.cli.verify import proven_by_member
from fieldvault.errors import KMSError
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
    assert all(": there: " in item and ": here: " not in item for item in check["items"])
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
    assert checks["wraps of there"]["level"] == "warning"
    assert checks["wraps of there"]["detail"].startswith("it is not at hand (")
    assert checks["wraps of there"]["detail"].endswith("what it wrapped of 3 keys is not proven")
    assert checks["wraps of there"]["remedy"].startswith("bring there back for a while")


def test_a_member_that_answers_another_key_is_found(tmp_path: Path) -> None:
    """Also for what it wrapped by itself, where nothing but the key id tells."""
    liar = FaultyKMS(LocalKMS.create(tmp_path / "liar.keys"))
    store = MemoryKeyStore()
    with Vault(kms=liar, key_store=store) as vault:
        vault.encrypt("x", field="a.b", tenant="acme")
    multi = MultiKMS({"liar": liar})
    assert [proof.errors for proof in proven_by_member(multi, store, "acme")] == [{}]
    liar.lie()
    (proof,) = proven_by_member(multi, store, "acme")
    assert list(proof.errors) == ["liar"]
    assert type(proof.errors["liar"]) is KMSError


def test_a_member_with_another_root_key_is_found(joined: Path) -> None:
    """A wrong file was brought back from the safe."""
    assert call("rewrap").code == 0
    (joined / "there.keys").unlink()
    LocalKMS.create(joined / "there.keys").close()
    assert call("doctor").code == 0
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 1
    assert len(found(answer)["wraps"]["items"]) == 3


def test_keys_without_a_part_of_an_absent_member_are_named(joined: Path) -> None:
    """They were made while it lay in the safe: on the day, it would not open them. It takes no asking."""
    assert call("rewrap").code == 0
    (joined / "there.keys").rename(joined / "safe")
    give_keys("new", "newer")
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 1
    check = found(answer)["wraps of there"]
    assert check["level"] == "problem"
    assert check["detail"] == (
        "2 of 5 keys have no part for it to unwrap; it is not at hand (there.keys is not there)"
    )
    assert [item.partition(",")[0] for item in check["items"]] == ["new", "newer"]
    assert check["remedy"] == (
        "bring there back for a while, run fieldvault rewrap, and call doctor --wraps again"
    )
    told = call("rewrap")
    assert told.code == 0
    assert "current already: 5;" in told.out
    assert "Not at hand, and not asked: there." in told.out
    (joined / "safe").rename(joined / "there.keys")
    assert call("rewrap").out.startswith("Rewrapped 2 keys; current already: 3;")
    assert call("doctor", "--wraps").code == 0


def test_a_mistake_in_the_section_of_a_member_that_may_be_absent_is_told(joined: Path) -> None:
    """With the member's name: it is not taken for one in its safe."""
    (joined / "there.keys").chmod(0o644)
    answer = call("doctor", "--json")
    assert answer.code == 1
    checks = found(answer)
    assert checks["KMS"]["remedy"] == "mend there, as said beneath"
    assert "open to others" in checks["KMS member there"]["detail"]
