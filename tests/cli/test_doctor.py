"""``fieldvault doctor`` finds what is wrong and says what to do."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from fieldvault import CachePolicy, RotationPolicy, Vault
from fieldvault.cli.checks import KeyTally, erasure_bound
from fieldvault.cli.findings import Level
from fieldvault.cli.verify import verified
from fieldvault.errors import KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.protocols import WrappedKey
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.testing.fakes import FaultyKMS
from tests.cli.calling import Answer, call, give_keys, give_subject_keys, records

_LOAD = EntryPoint.load


@pytest.fixture
def shop(vault_folder: Path) -> Path:
    """Two tenants with keys, one with subjects."""
    give_keys("acme", "other")
    give_subject_keys("acme", "ann", "bob")
    return vault_folder


def found(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return the checks by name."""
    return {check["check"]: check for check in answer.document["checks"]}


def levels(answer: Answer) -> dict[str, str]:
    """Return how each check ended."""
    return {name: check["level"] for name, check in found(answer).items()}


def change(folder: Path, statement: str, *values: object) -> None:
    """Change the key store's database behind the vault's back."""
    with closing(sqlite3.connect(folder / "keys.db")) as database:
        assert database.execute(statement, values).rowcount > 0
        database.commit()


@pytest.mark.usefixtures("shop")
def test_a_healthy_vault_is_ok_in_every_line() -> None:
    """Seven checks, each a line, exit code 0."""
    answer = call("doctor", "--json")
    assert answer.code == 0
    assert answer.document["healthy"] is True
    assert levels(answer) == dict.fromkeys(
        ["configuration", "root-key file", "KMS", "key store", "keys", "key use and age", "erasure bound"],
        "ok",
    )
    assert found(answer)["keys"]["detail"] == "all 5 unwrap and match their key ids"
    lines = call("doctor").out.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("ok ") for line in lines)


def test_a_root_key_file_that_others_read_is_a_problem(shop: Path) -> None:
    """The vault refuses it, and the key store is looked at all the same."""
    (shop / "root.keys").chmod(0o640)
    answer = call("doctor", "--json")
    assert (answer.code, answer.document["healthy"]) == (1, False)
    assert levels(answer) == {
        "configuration": "ok",
        "root-key file": "problem",
        "KMS": "skipped",
        "key store": "ok",
        "keys": "skipped",
    }
    assert found(answer)["root-key file"]["remedy"] == "chmod 600 root.keys"
    assert "chmod 600 root.keys" in call("doctor").out


def test_a_root_key_file_of_someone_else_is_a_problem(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless root asks, who may look after anyone's vault."""
    owner = (shop / "root.keys").stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 2**30)
    check = found(call("doctor", "--json"))["root-key file"]
    assert check["level"] == "problem"
    assert f"uid {owner + 2**30}" in check["remedy"]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert found(call("doctor", "--json"))["root-key file"]["level"] == "ok"


def test_a_folder_where_anyone_may_replace_the_root_keys_is_a_problem(shop: Path) -> None:
    """Mode 0600 of a file says nothing about its name."""
    shop.chmod(0o777)
    assert found(call("doctor", "--json"))["root-key file"]["level"] == "problem"
    shop.chmod(0o1777)
    assert found(call("doctor", "--json"))["root-key file"]["level"] == "ok"


def test_a_passphrase_file_that_others_read_is_a_problem(folder: Path) -> None:
    """It opens the root-key file."""
    (folder / "words").write_text("correct horse\n")
    (folder / "words").chmod(0o644)
    assert call("init", "--passphrase-file", "words").code == 0
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert found(answer)["root-key file"]["remedy"] == "chmod 600 words"
    (folder / "words").chmod(0o600)
    assert call("doctor").code == 0


@pytest.mark.parametrize("what", ["missing", "a folder"])
def test_no_root_key_file_is_a_problem(shop: Path, what: str) -> None:
    """The remedy is its backup: nothing else opens the keys."""
    (shop / "root.keys").unlink()
    if what == "a folder":
        (shop / "root.keys").mkdir(mode=0o700)
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert "backup" in found(answer)["root-key file"]["remedy"]
    assert "a new one opens nothing" in found(answer)["root-key file"]["remedy"]
    assert levels(answer)["KMS"] == "skipped"
    assert levels(answer)["configuration"] == levels(answer)["key store"] == "ok"


def test_another_root_key_file_opens_no_key(shop: Path) -> None:
    """Each key is named with what it met."""
    (shop / "root.keys").unlink()
    LocalKMS.create(shop / "root.keys").close()
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert levels(answer) | {"keys": "problem"} == levels(answer)
    named = " ".join(found(answer)["keys"]["items"])
    everyone = [*records("acme"), *records("other")]
    assert all(record.key_id.hex() in named for record in everyone)
    assert found(answer)["keys"]["remedy"].startswith("restore the root-key file, or the key store,")
    assert found(answer)["keys"]["detail"].startswith(f"{len(everyone)} of {len(everyone)} keys")


@pytest.mark.parametrize("subject", ["", "ann"])
@pytest.mark.parametrize("state", ["active", "retired"])
def test_a_damaged_key_is_found_and_named(shop: Path, subject: str, state: str) -> None:
    """A tenant's or a subject's; a retired one too, for what it sealed is still to be read."""
    assert call("rotate", "acme", *(("--subject", subject) if subject else ())).code == 0
    broken = next(
        each
        for each in records("acme")
        if (each.subject or "", each.purpose, each.state) == (subject, "data", state)
    )
    change(shop, "UPDATE fieldvault_keys SET wrapped = zeroblob(53) WHERE key_id = ?", broken.key_id)
    answer = call("doctor", "--json")
    assert answer.code == 1
    (item,) = found(answer)["keys"]["items"]
    assert broken.key_id.hex() in item
    assert "acme" in item
    assert item in call("doctor").out


def test_keys_that_were_swapped_are_found(shop: Path) -> None:
    """Each unwraps to a key, but not to the one that its record names."""
    first, second = (next(each for each in records(name) if not each.subject) for name in ("acme", "other"))
    change(shop, "UPDATE fieldvault_keys SET wrapped = ? WHERE key_id = ?", second.wrapped, first.key_id)
    (item,) = found(call("doctor", "--json"))["keys"]["items"]
    assert first.key_id.hex() in item


@pytest.mark.parametrize(
    ("subject", "purpose", "wrong"), [("", "data", 1), ("", "wrap", 3), ("ann", "data", 1)]
)
def test_a_key_without_its_wrapped_form_is_found(shop: Path, subject: str, purpose: str, wrong: int) -> None:
    """And with a wrap key the subjects' keys beneath it."""
    change(
        shop,
        "UPDATE fieldvault_keys SET wrapped = NULL WHERE tenant = 'acme' AND subject = ? AND purpose = ?",
        subject,
        purpose,
    )
    assert len(found(call("doctor", "--json"))["keys"]["items"]) == wrong


def test_a_lost_wrap_key_is_found_by_what_it_wraps(shop: Path) -> None:
    """Its row is gone, as after a restore of half a table."""
    change(shop, "DELETE FROM fieldvault_keys WHERE tenant = 'acme' AND purpose = 'wrap'")
    items = found(call("doctor", "--json"))["keys"]["items"]
    assert len(items) == 2
    assert all("wraps it is missing" in item for item in items)


@pytest.mark.usefixtures("shop")
def test_what_was_shredded_is_no_problem() -> None:
    """Neither destroyed keys nor those of a shredded tenant's subjects are tried."""
    assert call("shred", "acme", "--subject", "ann", "--yes", "--reason", "r").code == 0
    assert found(call("doctor", "--json"))["keys"]["detail"].startswith("all 4 ")
    assert call("shred", "acme", "--yes", "--reason", "r").code == 0
    answer = call("doctor", "--json")
    assert answer.code == 0
    assert found(answer)["keys"]["detail"].startswith("all 1 ")


def test_many_problems_are_counted_and_some_shown(shop: Path) -> None:
    """A person sees ten; the document has them all."""
    give_keys(*(f"t{number:02}" for number in range(20)))
    change(shop, "UPDATE fieldvault_keys SET wrapped = zeroblob(53) WHERE tenant LIKE 't%'")
    assert len(found(call("doctor", "--json"))["keys"]["items"]) == 20
    out = call("doctor").out
    assert "and 10 more" in out
    assert "t09" in out
    assert "t10" not in out


def test_keys_near_the_bound_are_a_warning(shop: Path) -> None:
    """The vault rotates them by itself, so it is no problem."""
    change(
        shop,
        "UPDATE fieldvault_keys SET uses = ? WHERE tenant = 'other'",
        2**32 - 100,
    )
    answer = call("doctor", "--json")
    assert (answer.code, answer.document["healthy"]) == (0, True)
    check = found(answer)["key use and age"]
    assert check["level"] == "warning"
    assert check["items"][0].startswith("other, data v1")
    assert check["remedy"] == "or rotate now: fieldvault rotate --all"
    assert call("rotate", "other").code == 0
    assert levels(call("doctor", "--json"))["key use and age"] == "ok"
    change(shop, "UPDATE fieldvault_keys SET uses = ? WHERE subject = 'bob'", 2**32 - 100)
    check = found(call("doctor", "--json"))["key use and age"]
    assert check["remedy"] == "or rotate now: fieldvault rotate --all --subjects"
    assert call("rotate", "--all", "--subjects").code == 0
    assert levels(call("doctor", "--json"))["key use and age"] == "ok"


def test_keys_near_their_age_are_a_warning(shop: Path) -> None:
    """The age that the configuration sets."""
    with (shop / "fieldvault.toml").open("a") as file:
        file.write("[rotation]\nmax_age_days = 10\n")
    nine_days = int(9.5 * 86_400 * 1_000_000)
    change(
        shop,
        "UPDATE fieldvault_keys SET created_at = created_at - ? WHERE tenant = 'other'",
        nine_days,
    )
    (item,) = found(call("doctor", "--json"))["key use and age"]["items"]
    assert item.startswith("other, data v1")
    assert item.endswith("9 of 10 days old")


def test_the_erasure_bound_is_the_longest_that_anyone_declared(shop: Path) -> None:
    """Also that of a process with another configuration."""
    assert "up to 90 s" in found(call("doctor", "--json"))["erasure bound"]["detail"]
    with (shop / "fieldvault.toml").open("a") as file:
        file.write("[cache]\nlease = 300\n")
    assert "lease 300 s and grace 60 s" in found(call("doctor", "--json"))["erasure bound"]["detail"]
    text = (shop / "fieldvault.toml").read_text()
    (shop / "fieldvault.toml").write_text(text.replace("300", "5"))
    detail = found(call("doctor", "--json"))["erasure bound"]["detail"]
    assert "up to 360 s" in detail
    assert "this configuration allows 65 s" in detail


def test_a_broken_configuration_is_the_problem_and_the_backends_are_still_tried(shop: Path) -> None:
    """One mistake does not hide the rest."""
    with (shop / "fieldvault.toml").open("a") as file:
        file.write("[cache]\nlaese = 3\n")
    (shop / "root.keys").chmod(0o644)
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert levels(answer) == {
        "configuration": "problem",
        "root-key file": "problem",
        "KMS": "skipped",
        "key store": "ok",
        "keys": "skipped",
    }
    assert "line 11" in found(answer)["configuration"]["detail"]


@pytest.mark.parametrize(
    "text",
    [
        "[kms\n",
        "[kms]\n[key_store]\ntype = 'sql'\nurl = 'sqlite:///keys.db'\n",
        "kms = 3\n",
        "",
    ],
)
def test_a_configuration_that_cannot_be_read_is_a_problem(shop: Path, text: str) -> None:
    """Whatever is wrong with it, the answer is a document and no traceback."""
    (shop / "fieldvault.toml").write_text(text)
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert levels(answer)["configuration"] == "problem"


@pytest.mark.parametrize("key_store", ["there", "missing"])
def test_a_backend_that_is_not_installed_is_told_whatever_else_is_missing(
    shop: Path, monkeypatch: pytest.MonkeyPatch, key_store: str
) -> None:
    """With its line, and with the extra where it is one of ours."""
    config = shop / "fieldvault.toml"
    monkeypatch.setattr(EntryPoint, "load", _without_hvac)
    for kind, told in (
        ("transit", "needs the module hvac, which is not installed; install fieldvault[transit]"),
        ("no such", "is 'no such'; installed are: "),
    ):
        config.write_text(f"[kms]\ntype = {kind!r}\n[key_store]\ntype = 'sql'\nurl = 'sqlite:///keys.db'\n")
        if key_store == "missing":
            (shop / "keys.db").unlink(missing_ok=True)
        check = found(call("doctor", "--json"))["KMS"]
        assert check["level"] == "problem"
        assert f"line 2: kms.type {told}" in check["detail"]
        assert levels(call("doctor", "--json"))["configuration"] == "ok"


def _without_hvac(point: EntryPoint) -> object:
    if point.name == "transit":
        raise ModuleNotFoundError("No module named 'hvac'", name="hvac")
    return _LOAD(point)


@pytest.mark.usefixtures("folder")
def test_no_configuration_is_a_problem_with_a_way_out() -> None:
    """Nothing else is tried."""
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert levels(answer) == {"configuration": "problem", "keys": "skipped"}
    remedy = found(answer)["configuration"]["remedy"]
    assert "--config or FIELDVAULT_CONFIG" in remedy
    assert "for a new vault, run `fieldvault init`" in remedy


@pytest.mark.parametrize("what", ["the folder", "the file"])
def test_a_file_at_fault_does_not_hide_what_else_is_wrong_with_the_kms(shop: Path, what: str) -> None:
    """Its unknown member is told as well."""
    (shop if what == "the folder" else shop / "root.keys").chmod(0o777)
    text = (shop / "fieldvault.toml").read_text()
    (shop / "fieldvault.toml").write_text(text.replace("[key_store]", "passphrse = 'x'\n[key_store]"))
    answer = call("doctor", "--json")
    assert levels(answer)["root-key file"] == levels(answer)["KMS"] == "problem"
    assert "kms.passphrse is not known" in found(answer)["KMS"]["detail"]


def test_a_variable_that_is_not_set_is_to_be_set(shop: Path) -> None:
    """Nothing is lost that a backup would bring back."""
    text = (shop / "fieldvault.toml").read_text()
    (shop / "fieldvault.toml").write_text(
        text.replace('url = "sqlite:///keys.db"', 'url_env = "SHOP_NO_SUCH_VARIABLE"')
    )
    check = found(call("doctor", "--json"))["key store"]
    assert "SHOP_NO_SUCH_VARIABLE, which is not set" in check["detail"]
    assert check["remedy"] == "mend the section [key_store], or the file or variable that it names"


def test_a_lost_key_store_is_a_problem_and_is_not_made_anew(shop: Path) -> None:
    """The KMS is fine, and that is said."""
    (shop / "keys.db").unlink()
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert levels(answer)["key store"] == "problem"
    assert levels(answer)["KMS"] == "ok"
    assert "for a new vault, `fieldvault keystore create` makes it" in found(answer)["key store"]["detail"]
    assert not (shop / "keys.db").exists()


def test_a_key_store_of_a_newer_release_is_a_problem(shop: Path) -> None:
    """Its schema is not this release's to read."""
    change(shop, "UPDATE fieldvault_meta SET value = 99 WHERE name = 'schema_version'")
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert "99" in found(answer)["key store"]["detail"]


def test_a_key_store_that_fails_on_the_way_is_a_problem(shop: Path) -> None:
    """The keys that were tried until then are counted; the other checks go on."""
    change(shop, "UPDATE fieldvault_keys SET state = 'nonsense' WHERE tenant = 'other'")
    with closing(sqlite3.connect(shop / "keys.db")) as database:
        database.execute("ALTER TABLE fieldvault_keys RENAME COLUMN purpose TO lost")
        database.commit()
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert levels(answer)["keys"] == "problem"
    assert levels(answer)["erasure bound"] == "ok"


def test_a_key_store_that_opens_and_does_not_answer_is_a_problem(shop: Path) -> None:
    """Its table of keys is gone."""
    with closing(sqlite3.connect(shop / "keys.db")) as database:
        database.execute("ALTER TABLE fieldvault_keys RENAME TO lost")
        database.commit()
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert levels(answer)["key store"] == levels(answer)["keys"] == "problem"


def test_a_bound_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """The key store went away after it was opened."""
    store = SQLKeyStore(f"sqlite:///{tmp_path / 'keys.db'}")
    with closing(sqlite3.connect(tmp_path / "keys.db")) as database:
        database.execute("DROP TABLE fieldvault_meta")
        database.commit()
    assert erasure_bound(store, CachePolicy()).level is Level.PROBLEM
    store.close()


def no_route(_: LocalKMS, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
    """Answer as a KMS that can no longer be reached."""
    return [KMSUnavailable("no route to the KMS") for _ in items]


REFUSALS = [
    (
        KMSDenied("the PIN is wrong"),
        "do not unwrap, as the KMS refuses",
        "mend [kms], or give its permission",
    ),
    (KMSKeyDisabled("no such alias"), "or has it disabled", "correct [kms], if it names another root key"),
    (
        KMSError("another context"),
        "are not what their records name",
        "restore the key store, or the root key,",
    ),
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("error", "said", "way_out"), REFUSALS, ids=[str(each[0]) for each in REFUSALS])
def test_a_refusal_is_not_taken_for_wrong_keys(error: KMSError, said: str, way_out: str) -> None:
    """Nobody goes to the backups for a mistyped alias, nor for a root-key file where there is none."""
    with Vault.open("fieldvault.toml") as vault:
        kms = FaultyKMS(vault.kms)
        kms.fail_items(error)
        tally = KeyTally(RotationPolicy(), kms)
        tally.take(verified(kms, vault.key_store, "acme"))
    first, *_ = tally.findings()
    assert first.level is Level.PROBLEM
    assert first.detail.startswith("4 of 4 keys ")
    assert said in first.detail
    assert first.remedy is not None
    assert first.remedy.startswith(way_out)
    assert "root-key file" not in first.remedy


@pytest.mark.usefixtures("shop")
def test_an_unreachable_kms_is_not_taken_for_wrong_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said is that the keys were not tried."""
    monkeypatch.setattr(LocalKMS, "unwrap_many", no_route)
    answer = call("doctor", "--json")
    assert answer.code == 1
    assert found(answer)["keys"]["items"] == []
    assert "no route to the KMS" in found(answer)["keys"]["detail"]
