"""``fieldvault doctor`` names the KMS of several that fails, and says what to do about it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import LocalKMS
from tests.cli.calling import Answer, call, give_keys

MEMBERS = """[kms]
type = "multi"

[kms.members.here]
type = "local"
path = "root.keys"

[kms.members.there]
type = "local"
path = "there.keys"
"""

Break = Callable[[str, KMSError], None]


@pytest.fixture
def joined(vault_folder: Path) -> Path:
    """A vault with keys under two KMSs."""
    LocalKMS.create(vault_folder / "there.keys").close()
    config = vault_folder / "fieldvault.toml"
    config.write_text(config.read_text().replace('[kms]\ntype = "local"\npath = "root.keys"\n', MEMBERS))
    give_keys("acme", "other")
    return vault_folder


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Have a member meet an error, whatever it is asked."""
    check, unwrap_many = LocalKMS.check, LocalKMS.unwrap_many

    def failing(path: str, error: KMSError) -> None:
        def is_it(kms: LocalKMS) -> bool:
            return path in repr(kms)

        def checked(self: LocalKMS) -> str:
            if is_it(self):
                raise error
            return check(self)

        def unwrapped(self: LocalKMS, items: list[WrappedKey]) -> Any:
            return [error for _ in items] if is_it(self) else unwrap_many(self, items)

        monkeypatch.setattr(LocalKMS, "check", checked)
        monkeypatch.setattr(LocalKMS, "unwrap_many", unwrapped)

    return failing


def found(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return the checks by name."""
    return {check["check"]: check for check in answer.document["checks"]}


KINDS = [
    (KMSUnavailable("no route"), "bring there back, or mend its section [kms.members.there]"),
    (KMSDenied("revoked"), "give there its permission back"),
    (
        KMSKeyDisabled("gone"),
        "give there a new one or take [kms.members.there] out, and run fieldvault rewrap",
    ),
    (KMSError("odd"), "see that [kms.members.there] still names the root key"),
]


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(("error", "way_out"), KINDS, ids=[type(error).__name__ for error, _ in KINDS])
def test_the_member_that_fails_is_named_with_what_to_do(fail: Break, error: KMSError, way_out: str) -> None:
    """And what goes on without it; the keys all open by the other."""
    fail("there.keys", error)
    answer = call("doctor", "--json")
    assert answer.code == 1
    checks = found(answer)
    assert checks["KMS"]["level"] == checks["KMS member there"]["level"] == "problem"
    assert checks["KMS"]["remedy"] == (
        "mend there, as said beneath; until then here can unwrap, and no new key can be made"
    )
    assert checks["KMS member there"]["detail"] == f"{type(error).__name__}: {error}"
    assert way_out in checks["KMS member there"]["remedy"]
    assert "KMS member here" not in checks
    assert checks["keys"]["level"] == "ok"


def test_where_fewer_members_have_to_wrap_new_keys_are_made(joined: Path, fail: Break) -> None:
    """And nothing else is said."""
    config = joined / "fieldvault.toml"
    config.write_text(config.read_text().replace('"multi"\n', '"multi"\nrequired = 1\n'))
    fail("there.keys", KMSUnavailable("no route"))
    assert found(call("doctor", "--json"))["KMS"]["remedy"].endswith("until then here can unwrap")
    config.write_text(config.read_text().replace("required = 1\n", 'alone = "there"\n'))
    assert found(call("doctor", "--json"))["KMS"]["remedy"].endswith("and no new key can be made")


@pytest.mark.usefixtures("joined")
def test_where_all_members_fail_nobody_serves(fail: Break) -> None:
    """Each is named; the remedy of the whole is that of any KMS."""
    fail(".keys", KMSUnavailable("no route"))
    checks = found(call("doctor", "--json"))
    assert checks["KMS"]["remedy"].startswith("mend the KMS")
    assert {"KMS member here", "KMS member there"} <= set(checks)


def test_a_member_that_cannot_be_opened_is_named(joined: Path) -> None:
    """Its file is not there, so the vault does not open."""
    (joined / "there.keys").unlink()
    answer = call("doctor", "--json")
    assert answer.code == 1
    checks = found(answer)
    assert checks["configuration"]["level"] == checks["key store"]["level"] == "ok"
    assert checks["KMS"]["remedy"] == "mend there, as said beneath"
    assert "there.keys" in checks["KMS member there"]["detail"]
    assert "mend the section [kms.members.there]" in checks["KMS member there"]["remedy"]
    assert "offline = true" in checks["KMS member there"]["remedy"]
    assert "KMS member here" not in checks
    config = joined / "fieldvault.toml"
    config.write_text(config.read_text().replace('"there.keys"\n', '"there.keys"\noffline = true\n'))
    assert call("doctor").code == 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"multi"\n', '"multi"\nrequired = 5\n', "5 members cannot be required"),
        (
            "[kms.members.there]",
            "[kms.members]\nthere = 5\n[elsewhere]",
            "there is a section, not a whole number",
        ),
        ('"multi"\n', '"multi"\nrequird = 1\n', "requird is not known"),
    ],
)
def test_a_mistake_that_is_no_member_s_is_told_of_the_whole(
    joined: Path, old: str, new: str, says: str
) -> None:
    """With the remedy of a section."""
    config = joined / "fieldvault.toml"
    config.write_text(config.read_text().replace(old, new))
    checks = found(call("doctor", "--json"))
    assert says in checks["KMS"]["detail"]
    assert checks["KMS"]["remedy"] == "mend the section [kms], or the file or variable that it names"
    assert not [name for name in checks if name.startswith("KMS member")]


WAYS_OUT = [
    (KMSUnavailable("no route"), "bring there back, and call doctor --wraps again"),
    (KMSDenied("revoked"), "give there its permission back"),
    (
        KMSKeyDisabled("gone"),
        "enable the root key of there, or give there a new one and run fieldvault rewrap",
    ),
    (KMSError("odd"), "there has not wrapped 2 of them as they are now: fieldvault rewrap"),
]


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(("error", "way_out"), WAYS_OUT, ids=[type(error).__name__ for error, _ in WAYS_OUT])
def test_keys_that_a_member_does_not_unwrap_are_told_with_what_to_do(
    fail: Break, error: KMSError, way_out: str
) -> None:
    """By what it answers."""
    fail("there.keys", error)
    check = found(call("doctor", "--wraps", "--json"))["wraps"]
    assert check["detail"] == "2 of 2 keys are not unwrapped by each of here, there"
    assert check["remedy"] == way_out


@pytest.mark.usefixtures("joined")
def test_a_member_that_only_wraps_here_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a recovery key does, whose private half is in the safe: else every monitoring would end with 1."""
    unwrap_many = LocalKMS.unwrap_many

    def unwrapped(self: LocalKMS, items: list[WrappedKey]) -> Any:
        away = KMSDenied("the private key is not on this machine")
        return [away for _ in items] if "there.keys" in repr(self) else unwrap_many(self, items)

    monkeypatch.setattr(LocalKMS, "unwrap_many", unwrapped)
    monkeypatch.setattr(LocalKMS, "check", LocalKMS.__repr__)
    answer = call("doctor", "--wraps", "--json")
    assert answer.code == 0
    checks = found(answer)
    assert checks["wraps"]["detail"] == "all 2 keys are unwrapped by each of here"
    assert checks["wraps of there"]["level"] == "warning"
    assert checks["wraps of there"]["detail"].endswith("so what it wrapped of 2 keys is not proven")
    assert checks["wraps of there"]["remedy"] == "call doctor --wraps where there may unwrap"


def test_keys_of_before_a_member_came_are_told_from_lost_root_keys(joined: Path) -> None:
    """Nothing is wrong with the member that joined; the keys have to be wrapped by it."""
    LocalKMS.create(joined / "third.keys").close()
    with (joined / "fieldvault.toml").open("a") as file:
        file.write('[kms.members.third]\ntype = "local"\npath = "third.keys"\n')
    check = found(call("doctor", "--wraps", "--json"))["wraps"]
    assert check["remedy"] == "third has not wrapped 2 of them as they are now: fieldvault rewrap"
    assert all(item.endswith("third: it has not wrapped this key") for item in check["items"])
    assert call("rewrap").code == 0
    assert call("doctor", "--wraps").code == 0
