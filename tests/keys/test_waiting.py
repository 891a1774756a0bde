"""Coroutines: one thread for all that wait, and an event loop that goes on meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from fieldvault.errors import (
    ConfigurationError,
    KMSDenied,
    KMSUnavailable,
    MalformedCiphertext,
    ScopeRequired,
)
from fieldvault.keys.policy import RotationPolicy
from fieldvault.keys.waiting import TaskFlight
from fieldvault.testing.fakes import Hold
from tests.keys.parties import FIELD, Party, Rig

Sealing = Callable[[Party, int], Awaitable[bytes | None]]

SUBJECTS = pytest.mark.parametrize("subject", [None, "alice"])


async def reached(hold: Hold) -> None:
    """Wait, without blocking, until a call is held."""
    for _ in range(1000):
        if hold.reached.is_set():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was held")


@SUBJECTS
def test_sixty_four_tasks_that_meet_one_cold_key_make_one_kms_call(rig: Rig, subject: str | None) -> None:
    """Sealing the first value of a scope; opening; sealing under a key that is there."""

    async def seal(party: Party) -> list[bytes | None]:
        tasks = [
            party.vault.aencrypt(index, field=FIELD, tenant="acme", subject=subject) for index in range(64)
        ]
        return await asyncio.gather(*tasks)

    async def open_(party: Party, blobs: list[bytes | None]) -> list[Any]:
        return await asyncio.gather(
            *[party.vault.adecrypt(blob, field=FIELD, tenant="acme", subject=subject) for blob in blobs]
        )

    first, second, third = rig.party(), rig.party(), rig.party()
    blobs = asyncio.run(seal(first))
    assert first.kms_calls() == ["wrap"]
    assert len({blob[3:19] for blob in blobs if blob}) == 1
    assert asyncio.run(open_(second, blobs)) == list(range(64))
    assert second.kms_calls() == ["unwrap_many"]
    asyncio.run(seal(third))
    assert third.kms_calls() == ["unwrap_many"]


def test_tasks_of_two_loops_share_the_kms_call_as_well(rig: Rig) -> None:
    """Loops in threads of their own meet in the single flight of threads."""
    from tests.keys.parties import in_threads

    blob = rig.party().seal("x")
    party = rig.party()

    async def work() -> list[Any]:
        return await asyncio.gather(
            *[party.vault.adecrypt(blob, field=FIELD, tenant="acme") for _ in range(8)]
        )

    assert in_threads(4, lambda _: asyncio.run(work())) == [["x"] * 8] * 4
    assert party.kms_calls() == ["unwrap_many"]


def test_a_slow_kms_does_not_block_the_event_loop(rig: Rig) -> None:
    """A ticking task ticks on, and warm values are sealed and opened."""
    party = rig.party()
    warm = party.seal("warm")
    cold = rig.party().seal("cold", "globex")

    async def work() -> tuple[float, int]:
        ticks: list[float] = [time.monotonic()]

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.005)
                ticks.append(time.monotonic())

        ticking = asyncio.create_task(tick())
        with party.kms.hold() as hold:
            waiting = [
                asyncio.create_task(party.vault.adecrypt(cold, field=FIELD, tenant="globex")),
                asyncio.create_task(party.vault.aencrypt("y", field=FIELD, tenant="globex")),
                asyncio.create_task(party.vault.aencrypt("z", field=FIELD, tenant="initech", subject="bob")),
            ]
            await reached(hold)
            served = 0
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                assert await party.vault.adecrypt(warm, field=FIELD, tenant="acme") == "warm"
                assert await party.vault.aencrypt("w", field=FIELD, tenant="acme")
                served += 1
                await asyncio.sleep(0.001)
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        ticking.cancel()
        return max(later - earlier for earlier, later in pairwise(ticks)), served

    longest, served = asyncio.run(work())
    assert longest < 0.25, "held for 0.3 s, the loop must not have stood still that long"
    assert served > 10


def test_a_herd_of_tasks_takes_one_thread_and_starves_nobody(rig: Rig) -> None:
    """Others' work in threads goes on while sixty-four tasks wait for the KMS."""
    party = rig.party()

    async def work() -> None:
        with party.kms.hold(when=lambda context: context["tenant"] == "globex") as hold:
            herd = [
                asyncio.create_task(party.vault.aencrypt(index, field=FIELD, tenant="globex"))
                for index in range(64)
            ]
            await reached(hold)
            await asyncio.wait_for(asyncio.to_thread(time.sleep, 0), 5)
            await asyncio.wait_for(party.vault.aencrypt("x", field=FIELD, tenant="acme"), 5)
            assert not any(task.done() for task in herd)
        await asyncio.gather(*herd)

    asyncio.run(work())


def test_a_task_cancelled_while_it_leads_does_not_poison_the_key(rig: Rig) -> None:
    """Those who wait with it get the key, and so do those who come later."""
    party = rig.party()

    async def work() -> None:
        with party.kms.hold() as hold:
            leader = asyncio.create_task(party.vault.aencrypt("x", field=FIELD, tenant="acme"))
            follower = asyncio.create_task(party.vault.aencrypt("y", field=FIELD, tenant="acme"))
            await reached(hold)
            leader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leader
            assert not follower.done()
        blob = await follower
        assert await party.vault.adecrypt(blob, field=FIELD, tenant="acme") == "y"

    asyncio.run(work())
    assert party.kms_calls() == ["wrap"]


def test_a_call_that_everybody_gave_up_on_ends_quietly(rig: Rig) -> None:
    """Its error is nobody's; the next one asks again."""
    party = rig.party()
    party.kms.hold(times=1)
    party.kms.fail(KMSDenied("no"), times=1)
    hold = party.kms._troubles[0].hold
    assert hold is not None

    async def work() -> None:
        alone = asyncio.create_task(party.vault.aencrypt("x", field=FIELD, tenant="acme"))
        await reached(hold)
        alone.cancel()
        hold.release()
        for _ in range(100):
            await asyncio.sleep(0.005)
            if not party.vault._flights._flights:
                break
        assert await party.vault.aencrypt("x", field=FIELD, tenant="acme")

    asyncio.run(work())


@pytest.mark.usefixtures("impatient")
def test_every_task_raises_an_error_of_its_own(rig: Rig) -> None:
    """What the leader met, from one call."""
    blob = rig.party().seal("x")
    party = rig.party()

    async def work() -> list[Any]:
        hold = party.kms.hold(times=1)
        party.kms.fail(KMSUnavailable("out"))
        tasks = [
            asyncio.create_task(party.vault.adecrypt(blob, field=FIELD, tenant="acme")) for _ in range(16)
        ]
        await reached(hold)
        hold.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(work())
    assert {type(error) for error in errors} == {KMSUnavailable}
    assert len({id(error) for error in errors}) == 16


def test_a_small_block_is_no_obstacle_to_tasks(rig: Rig) -> None:
    """Those for whom nothing is left reserve and rotate in threads."""
    party = rig.party(rotation=RotationPolicy(max_uses=4, block=2))

    async def work() -> list[bytes | None]:
        return await asyncio.gather(
            *[party.vault.aencrypt(index, field=FIELD, tenant="acme") for index in range(20)]
        )

    blobs = asyncio.run(work())
    assert [party.open(blob) for blob in blobs if blob] == list(range(20))


def test_an_aged_key_is_replaced_in_a_thread(rig: Rig) -> None:
    """The KMS call of a rotation does not block the loop either: here at a type's first value."""
    from datetime import timedelta

    party = rig.party(rotation=RotationPolicy(max_age=timedelta(milliseconds=200)))
    old = party.seal("x")
    time.sleep(0.25)

    async def work() -> bytes | None:
        with party.kms.hold() as hold:
            sealing = asyncio.create_task(party.vault.aencrypt(7, field=FIELD, tenant="acme"))
            await reached(hold)
        return await sealing

    blob = asyncio.run(work())
    assert blob
    assert blob[3:19] != old[3:19]


def test_in_an_outage_tasks_are_served_what_threads_are(rig: Rig) -> None:
    """Within the grace of the key store."""
    party = rig.party()
    blob = party.seal("x")
    rig.clock.advance(30)
    party.store.down = True

    async def work() -> None:
        for _ in range(3):
            assert await party.vault.adecrypt(blob, field=FIELD, tenant="acme") == "x"
            assert await party.vault.aencrypt("y", field=FIELD, tenant="acme")

    asyncio.run(work())


def test_the_asynchronous_doors_behave_like_the_others(rig: Rig) -> None:
    """None, the scope, bad names, other classes of bytes, what is no ciphertext."""
    party = rig.party()
    vault = party.vault

    async def work() -> None:
        assert await vault.aencrypt(None, field=FIELD) is None
        assert await vault.adecrypt(None, field=FIELD) is None
        with pytest.raises(ScopeRequired):
            await vault.aencrypt("x", field=FIELD)
        with pytest.raises(ScopeRequired):
            await vault.adecrypt(b"x", field=FIELD)
        async with vault.scope(tenant="acme", subject="alice"):
            blob = await vault.aencrypt("x", field=FIELD)
            assert blob is not None
            for form in (blob, bytearray(blob), memoryview(blob), memoryview(bytearray(blob))):
                assert await vault.adecrypt(form, field=FIELD) == "x"  # type: ignore[arg-type]
            cold = rig.party().vault
            for form in (bytearray(blob), memoryview(bytearray(blob))):
                assert await cold.adecrypt(form, field=FIELD, tenant="acme") == "x"  # type: ignore[arg-type]
            for wrong in ("text", 7, b"", b"short"):
                with pytest.raises(MalformedCiphertext):
                    await vault.adecrypt(wrong, field=FIELD)  # type: ignore[arg-type]
        for name in ("", "a\nb", "x" * 256, 7.5):
            with pytest.raises(ConfigurationError):
                await vault.aencrypt("x", field=FIELD, tenant=name)  # type: ignore[arg-type]
        assert await vault.aencrypt("y", field=FIELD, tenant="acme", subject="alice")

    asyncio.run(work())
    assert list(rig.store.tenants()) == ["acme"]


def test_a_flight_runs_again_once_it_has_landed() -> None:
    """It is no cache."""
    flight, calls = TaskFlight(), [0]

    def call() -> None:
        calls[0] += 1

    async def work() -> None:
        await asyncio.gather(*[flight.run("a", call) for _ in range(5)])
        await flight.run("a", call)

    asyncio.run(work())
    assert calls == [2]
    assert not flight._flights
