"""What the tests of the SQLAlchemy layer stand on: a database, a vault, and eyes on what passes between."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, Executable, event, text
from sqlalchemy.orm import Session

from fieldvault import Vault
from fieldvault.keystores import MemoryKeyStore
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.testing.fakes import FaultyKMS

R = TypeVar("R")

READS_AND_WRITES = (
    "generation",
    "changes",
    "fetch",
    "current",
    "add_active",
    "transition",
    "reserve",
    "rewrap",
    "shred",
    "fence",
    "keys",
)


class CountingKeyStore:
    """A key store that counts what it is asked."""

    def __init__(self) -> None:
        self._store = MemoryKeyStore()
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        if name in READS_AND_WRITES:
            self.asked[name] += 1
        return getattr(self._store, name)


class World:
    """A database, and the vault that its models are bound to."""

    def __init__(self, engine: Engine, vault: Vault, kms: FaultyKMS, store: CountingKeyStore) -> None:
        self.engine = engine
        self.vault = vault
        self.kms = kms
        self.store = store

    def session(self) -> Session:
        """Open a session; leaving it as a context manager closes it."""
        return Session(self.engine)

    def save(self, *objects: object) -> None:
        """Add objects in a session of their own, and commit."""
        with self.session() as session:
            session.add_all(objects)
            session.commit()

    def execute(self, statement: Executable, *parameters: Any) -> None:
        """Execute a Core statement, and commit."""
        with self.engine.begin() as connection:
            connection.execute(statement, *parameters)

    def read(self, statement: Executable) -> list[Any]:
        """Read rows by Core."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(statement)]

    def raw(self, statement: str) -> list[tuple[Any, ...]]:
        """Read rows as they are in the database, without any types."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def raw_execute(self, statement: str, *parameters: Any) -> None:
        """Change rows behind the back of the types."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(statement, *parameters)

    def swap(self, table: str, column: str, one: str, other: str) -> None:
        """Exchange what two rows, each picked by a condition, hold in a column."""
        with self.engine.begin() as connection:
            cells = [
                connection.execute(text(f"SELECT {column} FROM {table} WHERE {where}")).scalar_one()
                for where in (other, one)
            ]
            for where, cell in zip((one, other), cells, strict=True):
                connection.execute(text(f"UPDATE {table} SET {column} = :cell WHERE {where}"), {"cell": cell})

    def everything(self) -> bytes:
        """All bytes of the SQLite database's file."""
        name = self.engine.url.database
        assert name is not None
        with open(name, "rb") as file:  # noqa: PTH123 - the name is text already
            return file.read()

    def holds(self, *texts: str) -> bool:
        """Whether the database's file has one of the texts anywhere."""
        everything = self.everything()
        return any(text.encode() in everything for text in texts)

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Collect the statements that reach the database."""
        seen: list[str] = []

        def note(_: Any, __: Any, statement: str, *___: Any) -> None:
            seen.append(statement)

        event.listen(self.engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(self.engine, "before_cursor_execute", note)

    @contextmanager
    def costs(self) -> Iterator[Counter[str]]:
        """Count the calls of the key store, and under ``kms`` those of the KMS."""
        asked, calls = Counter(self.store.asked), len(self.kms.calls)
        spent: Counter[str] = Counter()
        yield spent
        spent.update(self.store.asked - asked)
        spent["kms"] = len(self.kms.calls) - calls


def carriers_in(instance: object) -> list[str]:
    """Return the attributes, and the places where SQLAlchemy keeps former values, that hold a carrier."""
    state: Any = vars(instance)["_sa_instance_state"]
    places = {"": vars(instance), "former ": state.committed_state}
    return [
        f"{place}{name}"
        for place, values in places.items()
        for name, value in values.items()
        if isinstance(value, Carrier)
    ]


def caught(action: Callable[[], object]) -> BaseException:
    """Return what an action raises."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("it raised nothing")


def chain(error: BaseException | None) -> Sequence[BaseException]:
    """Return an error with all that it hangs on to: causes, contexts, what a driver raised."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and all(each is not known for known in found):
            found.append(each)
            waiting += [each.__cause__, each.__context__, getattr(each, "orig", None)]
    return found
