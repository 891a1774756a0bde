"""Complaints about the keys of sqlalchemy-utils' encrypted types: whose, for how long, and what they bind.

A docstring names the threads by repository and number; `utils#` is kvesteri/sqlalchemy-utils. What has no
thread was seen in its source, and the docstring says so.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.pool import StaticPool

from fieldvault import Vault, errors
from fieldvault.envelope import Envelope
from fieldvault.keys.records import KeyState
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import protect
from tests.sqlalchemy.complaints.accounts import ACCOUNTS, LETTERS, Account, Base, cell, loaded
from tests.sqlalchemy.world import World, caught, chain

NONCE, TAG, BLOCK = 12, 16, 16
"""Of AES-GCM, in bytes."""


def test_equal_values_have_nothing_in_common_in_the_database(firm: World) -> None:
    """The initialization vector was taken from the key: utils#166, Netflix/lemur#117, jupyterhub#1178."""
    zeros = bytes(64)
    written = []
    for value in (zeros, None, zeros):
        with firm.session() as session:
            session.merge(Account(id="li", firm="acme", photo=value))
            session.commit()
        if value is not None:
            written.append(cell(firm, "photo", "li"))
    assert Envelope.parse(written[0]).key_id == Envelope.parse(written[1]).key_id
    tails = [blob[-len(zeros) - TAG - NONCE :] for blob in written]
    blocks = [tail[start : start + BLOCK] for tail in tails for start in range(0, len(tail), BLOCK)]
    assert len(set(blocks)) == len(blocks)


def test_a_key_that_is_not_there_is_told_from_every_other_trouble(firm: World, tmp_path: Path) -> None:
    """A changed key was a UnicodeDecodeError, or "Invalid decryption key", or garbage.

    utils#275, apache/superset#3724, #8538 and #18077.
    """
    firm.save(Account(id="li", firm="acme", password="s3cret", photo=b"s3cret"))
    LocalKMS.create(tmp_path / "other.keys")
    others = {
        errors.KeyNotFound: Vault(kms=firm.vault.kms, key_store=MemoryKeyStore()),
        errors.KMSError: Vault(kms=LocalKMS(tmp_path / "other.keys"), key_store=firm.vault.key_store),
    }
    for error, vault in others.items():
        protect(Base, vault)
        raised = caught(lambda: loaded(firm, "li"))
        assert isinstance(raised, error)
        assert not isinstance(raised, errors.KMSUnavailable)
        assert all("s3cret" not in repr(each) for each in chain(raised))
    protect(Base, firm.vault)
    assert loaded(firm, "li").password == "s3cret"


def test_a_key_rotates_under_a_running_application(any_firm: World) -> None:
    """One key for ever, or all rows at once with the application stopped: utils#491, superset#40654."""
    any_firm.save(Account(id="li", firm="acme", photo=b"old"), Account(id="wu", firm="acme", photo=b"old"))
    old = Envelope.parse(cell(any_firm, "photo", "li")).key_id
    with any_firm.session() as session:
        before = session.get_one(Account, "wu")
        any_firm.vault.rotate("acme", "li")
        session.add(Account(id="lei", firm="acme", photo=b"new"))
        before.photo = b"changed"
        session.commit()
        assert session.get_one(Account, "li").photo == b"old"
        session.get_one(Account, "li").photo = b"new"
        session.commit()
    new = Envelope.parse(cell(any_firm, "photo", "li")).key_id
    assert new != old
    states = {info.key_id: info.state for info in any_firm.vault.keys("acme", "li")}
    assert (states[old], states[new]) == (KeyState.RETIRED, KeyState.ACTIVE)
    assert [loaded(any_firm, id_).photo for id_ in ("li", "wu", "lei")] == [b"new", b"changed", b"new"]


SWAPS = {
    "two people": (("photo", "li"), ("photo", "wu")),
    "two tenants": (("photo", "li"), ("photo", "ada")),
    "two columns": (("settings", "li"), ("credentials", "li")),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_values_that_changed_places_are_refused_in_both(any_firm: World, swap: str) -> None:
    """No thread: nothing is bound to a value there, so each is read where the other was."""
    any_firm.save(
        *(
            Account(id=id_, firm=tenant, photo=id_.encode(), settings={}, credentials=[])
            for id_, tenant in (("li", "acme"), ("wu", "acme"), ("ada", "nordwind"))
        )
    )
    one, other = SWAPS[swap]
    cells = {place: cell(any_firm, *place) for place in (one, other)}
    mark = "?" if any_firm.engine.dialect.name == "sqlite" else "%s"
    for (column, id_), value in ((one, cells[other]), (other, cells[one])):
        any_firm.raw_execute(f"UPDATE accounts SET {column} = {mark} WHERE id = '{id_}'", (value,))
    for column, id_ in (one, other):
        statement = select(ACCOUNTS.c.id, ACCOUNTS.c.firm, ACCOUNTS.c[column]).where(ACCOUNTS.c.id == id_)
        with pytest.raises((errors.DecryptionError, errors.TenantMismatch)):
            any_firm.read(statement)


def test_threads_of_two_tenants_share_a_column_and_no_key(firm: World) -> None:
    """A key that is a function was set on an engine that all threads share, between key and cipher.

    "so it could change per row": utils#98, and its source; dcwatson/django-pgcrypto#21 has the conflicts.
    """
    threads, rounds, rows = 4, 15, 200
    together = Barrier(threads)

    def work(number: int) -> list[tuple[str, bytes]]:
        tenant = ("acme", "nordwind")[number % 2]
        letters = [{"firm": tenant, "body": tenant} for _ in range(rows)]
        # Each thread has a database of its own: what they share is the column, and the vault.
        engine = create_engine("sqlite://", poolclass=StaticPool)
        LETTERS.create(engine)
        together.wait()
        with engine.connect() as connection:
            for _ in range(rounds):
                connection.execute(insert(LETTERS), letters)
            stored = connection.exec_driver_sql("SELECT body FROM letters").all()
            bodies = connection.execute(select(LETTERS.c.firm, LETTERS.c.body)).all()
        engine.dispose()
        assert {tuple(each) for each in bodies} == {(tenant, tenant)}
        return [(tenant, Envelope.parse(bytes(blob)).key_id) for (blob,) in stored]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            sealed = [pair for each in pool.map(work, range(threads)) for pair in each]
    finally:
        sys.setswitchinterval(interval)
    assert len(sealed) == threads * rounds * rows
    for tenant in ("acme", "nordwind"):
        own = {info.key_id for info in firm.vault.keys(tenant)}
        assert {key_id for owner, key_id in sealed if owner == tenant} <= own
