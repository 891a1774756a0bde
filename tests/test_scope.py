"""The scope is that of the task at hand, and of nobody else."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import pytest

from fieldvault.errors import ConfigurationError
from fieldvault.scope import KeyScope, Scope, ScopeGuard

EMPTY = Scope()


@pytest.fixture
def ambient(request: pytest.FixtureRequest) -> ContextVar[Scope]:
    """The variable of one vault."""
    return ContextVar(request.node.name, default=EMPTY)


def entering(ambient: ContextVar[Scope], tenant: str | None = None, subject: str | None = None) -> ScopeGuard:
    """What ``vault.scope`` makes."""
    return ScopeGuard(ambient, ambient.get().narrowed(tenant, subject, None, None))


def test_a_scope_holds_inside_its_block_only(ambient: ContextVar[Scope]) -> None:
    """``with`` gives the scope, and what was before comes back."""
    with entering(ambient, "acme") as scope:
        assert scope == ambient.get() == Scope(tenant="acme")
    assert ambient.get() is EMPTY


def test_a_scope_ends_with_an_error_too(ambient: ContextVar[Scope]) -> None:
    """The error passes through, the scope is gone."""
    with pytest.raises(LookupError), entering(ambient, "acme"):
        raise LookupError
    assert ambient.get() is EMPTY


def test_what_is_not_given_stays_as_it_is_around() -> None:
    """Each part is laid over the one before."""
    outer = Scope("acme", "42", "clerk", "support")
    assert outer.narrowed(None, None, None, None) == outer
    assert outer.narrowed(None, "43", None, None) == Scope("acme", "43", "clerk", "support")
    assert outer.narrowed(None, None, "auditor", "audit") == Scope("acme", "42", "auditor", "audit")
    assert outer.narrowed("acme", None, None, None) == outer


def test_another_tenant_drops_the_subject() -> None:
    """The subject was the former tenant's; keeping it would make one of the same name elsewhere."""
    assert Scope("acme", "42", "clerk").narrowed("globex", None, None, None) == Scope("globex", None, "clerk")
    assert Scope("acme", "42").narrowed("globex", "1", None, None) == Scope("globex", "1")


@pytest.mark.parametrize(("tenant", "subject"), [("", None), ("a\n", None), ("acme", ""), ("acme", "\ud800")])
def test_a_scope_has_names_that_can_be(tenant: str, subject: str | None) -> None:
    """What cannot name a tenant or a subject is refused when the scope is made."""
    with pytest.raises(ConfigurationError):
        Scope().narrowed(tenant, subject, None, None)


def test_scopes_nest(ambient: ContextVar[Scope]) -> None:
    """Each end gives back what was before it, the same guard twice included."""
    guard = entering(ambient, "acme")
    with guard:
        with entering(ambient, "globex"), guard:
            assert ambient.get().tenant == "acme"
        assert ambient.get().tenant == "acme"
        with guard:
            assert ambient.get().tenant == "acme"
        assert ambient.get().tenant == "acme"
    assert ambient.get() is EMPTY


def test_tasks_have_scopes_of_their_own(ambient: ContextVar[Scope]) -> None:
    """Two tasks that take turns inside their scopes each see their own, before, between and after."""

    async def work(tenant: str) -> list[str | None]:
        seen = []
        async with entering(ambient, tenant):
            for _ in range(5):
                seen.append(ambient.get().tenant)
                await asyncio.sleep(0)
        return [*seen, ambient.get().tenant]

    async def both() -> list[list[str | None]]:
        return list(await asyncio.gather(work("acme"), work("globex")))

    assert asyncio.run(both()) == [["acme"] * 5 + [None], ["globex"] * 5 + [None]]


def test_one_guard_serves_tasks_and_threads_at_once(ambient: ContextVar[Scope]) -> None:
    """Entered in one order and left in another, in contexts that know nothing of each other."""
    guard = entering(ambient, "acme")

    async def work(turns: int) -> tuple[str | None, str | None]:
        async with guard:
            for _ in range(turns):
                await asyncio.sleep(0)
            inside = ambient.get().tenant
        return inside, ambient.get().tenant

    async def together() -> list[tuple[str | None, str | None]]:
        return await asyncio.gather(*(work(turns) for turns in (5, 1, 3)))

    assert asyncio.run(together()) == [("acme", None)] * 3

    barrier = threading.Barrier(3)

    def thread(number: int) -> tuple[str | None, str | None]:
        barrier.wait(10)
        with guard:
            barrier.wait(10)
            if number:
                barrier.wait(10)
            inside = ambient.get().tenant
            if not number:
                barrier.wait(10)
        return inside, ambient.get().tenant

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(thread, range(3))) == [("acme", None)] * 3


def test_a_new_thread_begins_without_a_scope(ambient: ContextVar[Scope]) -> None:
    """Threads inherit nothing; work handed to one names its tenant."""
    with entering(ambient, "acme"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(ambient.get).result() is EMPTY


@pytest.mark.parametrize("left_in", ["another context", "another order"])
def test_a_scope_left_elsewhere_than_entered_is_an_error(ambient: ContextVar[Scope], left_in: str) -> None:
    """Left silently, work would go on under somebody else's tenant."""
    acme, globex = entering(ambient, "acme"), entering(ambient, "globex")

    def confuse() -> None:
        acme.__enter__()
        if left_in == "another order":
            globex.__enter__()
        else:
            ambient.set(EMPTY)
        with pytest.raises(RuntimeError, match="another thread, task or order"):
            acme.__exit__(None, None, None)

    copy_context().run(confuse)
    assert ambient.get() is EMPTY


def test_the_way_back_is_no_part_of_what_a_scope_is(ambient: ContextVar[Scope]) -> None:
    """Two scopes are equal by whom they are for; what is around them neither counts nor prints."""
    with entering(ambient, "globex"), entering(ambient, "acme") as inner:
        assert inner == Scope(tenant="acme")
        assert "globex" not in repr(inner)


def test_a_key_scope_names_attributes() -> None:
    """Both are optional: what is not named is left to the ambient scope."""
    assert KeyScope() == KeyScope(tenant=None, subject=None)
    assert KeyScope(tenant="tenant_id", subject="id").subject == "id"
