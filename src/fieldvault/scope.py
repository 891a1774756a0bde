"""The ambient scope of the work being done: tenant, subject, actor, purpose."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import TracebackType

from fieldvault.context import Name, as_name

__all__ = ["KeyScope", "Scope", "ScopeGuard"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Who the work is for.

    ``tenant`` and ``subject`` choose keys; ``actor`` and ``purpose`` say who reads and why. ``outer`` is the
    scope around it, for the way back.
    """

    tenant: str | None = None
    subject: str | None = None
    actor: str | None = None
    purpose: str | None = None
    outer: Scope | None = field(default=None, repr=False, compare=False)

    def narrowed(
        self, tenant: Name | None, subject: Name | None, actor: str | None, purpose: str | None
    ) -> Scope:
        """This scope with what is given laid over it.

        Another tenant drops the subject, which belonged to the former.
        """
        to_tenant = None if tenant is None else as_name("tenant", tenant)
        to_subject = None if subject is None else as_name("subject", subject)
        moved = to_tenant is not None and to_tenant != self.tenant
        return Scope(
            tenant=self.tenant if to_tenant is None else to_tenant,
            subject=to_subject if to_subject is not None or moved else self.subject,
            actor=self.actor if actor is None else actor,
            purpose=self.purpose if purpose is None else purpose,
        )


@dataclass(frozen=True, slots=True)
class KeyScope:
    """Where each row's keys come from: the mapped attributes that hold its tenant and its subject.

    An attribute's value becomes text as docs/format.md section 5 says: text as it is, integers in decimal,
    UUIDs lower-case with hyphens. ``tenant=None`` leaves the tenant to the ambient scope.
    """

    tenant: str | None = None
    subject: str | None = None


class ScopeGuard:
    """What ``vault.scope(...)`` returns.

    Enters the scope on ``with`` and ``async with``, leaves it at the end. One guard may be entered again, and
    in many threads and tasks at once: what is entered is kept in their contexts, and not here.
    """

    __slots__ = ("_scope", "_variable")

    def __init__(self, variable: ContextVar[Scope], scope: Scope) -> None:
        self._variable = variable
        self._scope = scope

    def __enter__(self) -> Scope:
        entered = replace(self._scope, outer=self._variable.get())
        self._variable.set(entered)
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        current = self._variable.get()
        if current.outer is None or current != self._scope:
            raise RuntimeError("a scope is left in another thread, task or order than it was entered in")
        self._variable.set(current.outer)

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
