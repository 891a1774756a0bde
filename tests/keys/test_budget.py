"""The budget: no key seals more messages, or longer, than it may."""

import os
import traceback
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fieldvault import CachePolicy
from fieldvault.errors import KeyStoreError, KeySuspended, KMSUnavailable
from fieldvault.keys.policy import RotationPolicy
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores import MemoryKeyStore
from tests.keys.parties import FIELD, Party, Rig, Running, in_threads


def data_keys(rig: Rig, tenant: str = "acme") -> list[KeyRecord]:
    """A tenant's own data keys, by version."""
    return [record for record in rig.store.keys(tenant, None) if record.purpose is Purpose.DATA]


def sealed_with(blobs: list[bytes]) -> Counter[bytes]:
    """How many messages each key sealed."""
    return Counter(blob[3:19] for blob in blobs)


def assert_within(rig: Rig, blobs: list[bytes], max_uses: int) -> None:
    """Every key sealed at most what is noted as used in the store, and that is within the bound."""
    noted = {record.key_id: record.uses for record in data_keys(rig)}
    for key_id, count in sealed_with(blobs).items():
        assert count <= noted[key_id] <= max_uses


@pytest.mark.parametrize(("max_uses", "block"), [(10, 10), (10, 6), (10, 5), (10, 3), (10, 1), (1, 1)])
def test_a_key_is_replaced_before_its_bound(rig: Rig, max_uses: int, block: int) -> None:
    """Whatever the block: the vault rotates by itself and goes on."""
    party = rig.party(rotation=RotationPolicy(max_uses=max_uses, block=block))
    blobs = [party.seal(index) for index in range(21)]
    assert_within(rig, blobs, max_uses)
    usable = max_uses // block * block
    assert len(data_keys(rig)) == -(-21 // usable)
    assert [record.state for record in data_keys(rig)[:-1]] == [KeyState.RETIRED] * (len(data_keys(rig)) - 1)
    assert [party.open(blob) for blob in blobs] == list(range(21))


def test_all_types_and_suites_share_one_budget(rig: Rig) -> None:
    """The bound is the key's."""
    party = rig.party(rotation=RotationPolicy(max_uses=10, block=5))
    values = [1, "a", b"b", 2.5, True] * 6
    blobs = [party.seal(value) for value in values]
    assert_within(rig, blobs, 10)
    assert [party.open(blob) for blob in blobs] == values


def test_the_reservation_is_durable_before_the_first_message(rig: Rig) -> None:
    """A process that dies with its block unused has lost it to the key: nobody counts too low."""
    rotation = RotationPolicy(max_uses=100, block=10)
    for process in range(1, 4):
        rig.party(rotation=rotation).seal("x")
        assert [record.uses for record in data_keys(rig)] == [process * 10]


def test_a_block_costs_one_write(rig: Rig) -> None:
    """The store is not asked again before the block is used up."""
    party = rig.party(rotation=RotationPolicy(max_uses=1000, block=100))
    party.seal("x")
    party.store.calls.clear()
    for _ in range(99):
        party.seal("x")
    assert party.store.calls == []
    for _ in range(100):
        party.seal("x")
    assert party.store.calls == ["reserve"]


def test_a_herd_that_finds_the_block_used_up_reserves_once(memory_rig: Rig) -> None:
    """One of them does; a block reserved by each would throw the others' away."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=1000, block=100))
    for _ in range(100):
        party.seal("x")
    in_threads(32, lambda _: party.seal("x"))
    assert [record.uses for record in data_keys(memory_rig)] == [200]


def test_a_herd_that_finds_the_key_used_up_replaces_it_once(memory_rig: Rig) -> None:
    """One new key, one KMS call."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=100, block=100))
    for _ in range(100):
        party.seal("x")
    party.kms_calls()
    in_threads(32, lambda _: party.seal("x"))
    assert party.kms_calls() == ["wrap"]
    assert len(data_keys(memory_rig)) == 2


@pytest.mark.parametrize("block", [4, 7])
def test_threads_of_several_processes_never_pass_the_bound(rig: Rig, block: int) -> None:
    """Three caches, four threads each, one key store."""
    parties = [rig.party(rotation=RotationPolicy(max_uses=50, block=block)) for _ in range(3)]

    def work(index: int) -> list[bytes]:
        return [parties[index % 3].seal(index * 100 + number) for number in range(20)]

    answers = in_threads(12, work)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    blobs = [blob for answer in answers for blob in answer]
    assert len(blobs) == 240
    assert_within(rig, blobs, 50)
    assert len({blob[:31] for blob in blobs}) == 240, "no nonce is drawn twice under one key"
    assert len(rig.party().vault.decrypt_many(blobs, field=FIELD, tenant="acme")) == 240


def test_an_evicted_key_keeps_its_block(rig: Rig) -> None:
    """Tenants that take turns in a small cache do not use their keys up by that."""
    party = rig.party(CachePolicy(max_keys=1), RotationPolicy(max_uses=1000, block=10))
    for _ in range(4):
        for tenant in ("a", "b"):
            party.seal("x", tenant)
    assert [record.uses for tenant in ("a", "b") for record in data_keys(rig, tenant)] == [10, 10]


def fork(party: Party, count: int) -> list[bytes]:
    """What a forked child seals."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(b"".join(party.seal("x") for _ in range(count)))
        except BaseException:  # noqa: BLE001 - a child that goes on would run the tests again
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        sealed = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    size = 47 + 1
    return [sealed[start : start + size] for start in range(0, len(sealed), size)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_reserves_for_itself(sqlite_rig: Rig) -> None:
    """It seals nothing from the parent's block, or both would count the same messages."""
    party = sqlite_rig.party(rotation=RotationPolicy(max_uses=40, block=10))
    blobs = [party.seal("x") for _ in range(3)]
    assert [record.uses for record in data_keys(sqlite_rig)] == [10]
    blobs += fork(party, 1)
    assert [record.uses for record in data_keys(sqlite_rig)] == [20]
    blobs += fork(party, 15)
    assert [record.uses for record in data_keys(sqlite_rig)] == [40]
    blobs += [party.seal("x") for _ in range(30)]
    assert len(blobs) == 49
    assert_within(sqlite_rig, blobs, 40)


def aged(rig: Rig, days: float) -> None:
    """Make all keys older."""
    assert isinstance(rig.store, MemoryKeyStore)
    for key_id, record in rig.store._keys.items():
        rig.store._keys[key_id] = replace(record, created_at=datetime.now(UTC) - timedelta(days=days))


def test_a_key_of_the_configured_age_is_replaced_before_it_seals_again(memory_rig: Rig) -> None:
    """At the first seal of a process, and of one that has it cached, once its lease ends."""
    rotation = RotationPolicy(max_age=timedelta(days=90))
    blob = memory_rig.party(rotation=rotation).seal("x")
    aged(memory_rig, 89.9)
    party = memory_rig.party(rotation=rotation)
    assert party.seal("y")[3:19] == blob[3:19]
    aged(memory_rig, 90)
    fresh = memory_rig.party(rotation=rotation)
    assert fresh.seal("z")[3:19] != blob[3:19]
    assert [record.state.value for record in data_keys(memory_rig)] == ["retired", "active"]
    assert fresh.open(blob) == "x"
    memory_rig.clock.advance(30)
    assert party.seal("y")[3:19] == data_keys(memory_rig)[-1].key_id


def test_without_an_age_none_is_replaced_for_it(memory_rig: Rig) -> None:
    """That is left to the operator."""
    blob = memory_rig.party().seal("x")
    aged(memory_rig, 10_000)
    assert memory_rig.party().seal("y")[3:19] == blob[3:19]


@pytest.mark.usefixtures("impatient")
def test_a_key_that_must_be_replaced_does_not_seal_while_it_cannot_be(memory_rig: Rig) -> None:
    """The KMS is out: the bound comes before the grace."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=2, block=2))
    party.seal("x")
    blob = party.seal("y")
    party.kms.fail(KMSUnavailable("out"))
    with pytest.raises(KMSUnavailable):
        party.seal("z")
    assert party.open(blob) == "y"
    party.kms.heal()
    assert party.open(party.seal("z")) == "z"


def test_without_a_reservation_nothing_is_sealed(memory_rig: Rig) -> None:
    """The key store is out, the lease is not over, the block is."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=10, block=1))
    blob = party.seal("x")
    party.store.down = True
    with pytest.raises(KeyStoreError):
        party.seal("y")
    assert party.open(blob) == "x"


def test_a_reserve_that_just_landed_is_not_asked_for_again(memory_rig: Rig) -> None:
    """Who comes late to a flight draws from the block that it brought."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=100, block=10))
    party.seal("x")
    key = party.vault.ring.cache.get(data_keys(memory_rig)[0].key_id)
    assert key is not None
    assert party.vault.ring.budget._reserve([key]) == {key.record.key_id: True}
    assert [record.uses for record in data_keys(memory_rig)] == [10]


def test_many_keys_without_uses_are_stocked_in_one_step(memory_rig: Rig) -> None:
    """A page of subjects whose blocks are empty asks the key store once, and again for nothing."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=100, block=10))
    slots = [KeySlot("acme", f"ann {number}") for number in range(20)]
    party.vault.ring.prefetch(slots=slots)
    for _ in range(2):
        for slot in slots * 10:
            party.seal("x", subject=slot.subject)
        party.store.counted()
        party.vault.ring.prefetch(slots=slots)
        assert party.store.counted()["reserve"] == 1
    party.vault.ring.prefetch(slots=slots)
    assert party.store.counted()["reserve"] == 0
    assert {memory_rig.store.keys("acme", slot.subject)[0].uses for slot in slots} == {30}


def test_a_used_up_key_that_another_process_has_replaced_is_not_replaced_again(rig: Rig) -> None:
    """Its successor is taken, although the lease has not told of it yet."""
    party = rig.party(rotation=RotationPolicy(max_uses=2, block=1))
    blobs = [party.seal("x"), party.seal("x")]
    rig.party(rotation=RotationPolicy(max_uses=2, block=1)).vault.rotate("acme")
    blobs.append(party.seal("y"))
    assert blobs[-1][3:19] == data_keys(rig)[-1].key_id
    assert [record.version for record in data_keys(rig)] == [1, 2]


def test_a_successor_that_is_suspended_is_not_replaced_either(memory_rig: Rig) -> None:
    """Whoever suspended it did not ask for a new one."""
    party, other = (
        memory_rig.party(rotation=RotationPolicy(max_uses=1, block=1)),
        memory_rig.party(rotation=RotationPolicy(max_uses=5, block=1)),
    )
    party.seal("x")
    other.vault.rotate("acme")
    memory_rig.store.transition(
        data_keys(memory_rig)[-1].key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED
    )
    with pytest.raises(KeySuspended):
        party.seal("y")
    assert len(data_keys(memory_rig)) == 2


def test_while_a_key_is_replaced_what_it_sealed_can_be_read(memory_rig: Rig) -> None:
    """The KMS call of the rotation holds nobody up but those who seal."""
    party = memory_rig.party(rotation=RotationPolicy(max_uses=1, block=1))
    blob = party.seal("x")
    with party.kms.hold() as hold:
        sealing = Running(lambda: party.seal("y"))
        assert hold.reached.wait(10)
        assert party.open(blob) == "x"
    assert party.open(sealing.result()) == "y"
