"""No plaintext in errors, logs or representations, whatever fails beside it."""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, insert, literal, select, update
from sqlalchemy.exc import IntegrityError, StatementError

from fieldvault import RetryPolicy, Vault, errors
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import protect
from fieldvault.testing.fakes import FaultyKMS
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, OTHER_SECRET, SECRET, Base, Customer
from tests.sqlalchemy.world import World, carriers_in, caught, chain

BAD_TIME = "not a time"
ROW = {"id": "li", "shop": "acme", "name": SECRET, "email": OTHER_SECRET}

Write = Callable[[World, dict[str, Any]], object]


def by_flush(world: World, row: dict[str, Any]) -> None:
    """A new object is flushed."""
    world.save(Customer(**row))


def by_change(world: World, row: dict[str, Any]) -> None:
    """A changed object is flushed."""
    world.save(Customer(id=row["id"], shop=row["shop"]))
    with world.session() as session:
        customer = session.get_one(Customer, row["id"])
        for name, value in row.items():
            setattr(customer, name, value)
        session.flush()


def by_bulk(world: World, row: dict[str, Any]) -> None:
    """Rows are inserted in bulk through the ORM."""
    with world.session() as session:
        session.execute(insert(Customer), [row, row | {"id": "x"}])


WHOLE = {"birthday": None, "profile": None}
"""What an update has to name besides, since it sets whose the row is."""


def by_update(world: World, row: dict[str, Any]) -> None:
    """Rows are updated."""
    with world.vault.scope(tenant="acme", subject="li"):
        world.execute(update(CUSTOMERS).values({**WHOLE, **row}))


def by_update_rows(world: World, row: dict[str, Any]) -> None:
    """Rows are updated with parameters."""
    with world.vault.scope(tenant="acme", subject="li"):
        world.execute(update(CUSTOMERS), [row, row])


def by_alias_update(world: World, row: dict[str, Any]) -> None:
    """Rows are updated under another name of their table."""
    alias: Any = CUSTOMERS.alias()
    with world.vault.scope(tenant="acme", subject="li"):
        world.execute(update(alias), [row, row])


def by_orm_update(world: World, row: dict[str, Any]) -> None:
    """Rows are updated through the ORM."""
    with world.vault.scope(tenant="acme", subject="li"), world.session() as session:
        statement = update(Customer).values({**WHOLE, **row})
        session.execute(statement.execution_options(synchronize_session=False))


def by_values_list(world: World, row: dict[str, Any]) -> None:
    """Rows are inserted as a list of values."""
    memo = {"body": row["name"], "seen_at": row.get("seen_at")}
    with world.vault.scope(tenant="acme"):
        world.execute(insert(MEMOS).values([memo, memo]))


WRITES: Mapping[str, Write] = {
    "flush": by_flush,
    "changed object": by_change,
    "bulk": by_bulk,
    "row": lambda world, row: world.execute(insert(CUSTOMERS), row),
    "rows": lambda world, row: world.execute(insert(CUSTOMERS), [row, row | {"id": "x"}]),
    "values": lambda world, row: world.execute(insert(CUSTOMERS).values(row)),
    "values and rows": lambda world, row: world.execute(
        insert(CUSTOMERS).values(name=row["name"], email=row["email"]),
        [{key: value for key, value in row.items() if key not in {"name", "email"}}] * 2,
    ),
    "update": by_update,
    "update of rows": by_update_rows,
    "update of an alias": by_alias_update,
    "ORM update": by_orm_update,
    "list of values": by_values_list,
}


UNQUOTED = {"values", "update", "ORM update", "list of values"}


def leaks(error: BaseException) -> list[str]:
    """Return where a secret shows in an error and in all that it hangs on to."""
    found = []
    for each in chain(error):
        shown = {
            "str": str(each),
            "repr": repr(each),
            "args": repr(each.args),
            "attributes": repr(vars(each)),
            "traceback": "".join(traceback.format_exception(each, chain=False)[1:]),
            "params": repr(getattr(each, "params", None)),
        }
        found += [f"{type(each).__name__}.{place}" for place, text in shown.items() if hidden_in(text)]
    return found


def hidden_in(text: str) -> bool:
    """Whether a text shows a secret, or enough of one to know it."""
    return any(part in text for part in (SECRET, SECRET[:10], OTHER_SECRET, OTHER_SECRET[:3]))


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Capture all that SQLAlchemy and fieldvault log."""
    for name in ("sqlalchemy", "fieldvault"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield caplog
    assert not hidden_in(caplog.text)


@pytest.mark.parametrize("write", WRITES)
def test_a_stock_type_that_fails_beside_it_shows_no_plaintext(world: World, write: str) -> None:
    """SQLAlchemy quotes the parameters of the whole row in its error, in the clear by default."""
    error = caught(lambda: WRITES[write](world, {**ROW, "seen_at": BAD_TIME}))
    assert isinstance(error, StatementError)
    # Values that stand in the statement itself are not quoted.
    assert ("<sealed>" in str(error)) == (BAD_TIME in str(error)) == (write not in UNQUOTED)
    assert leaks(error) == []
    assert not world.holds(SECRET, OTHER_SECRET)


@pytest.mark.parametrize("write", ["flush", "changed object"])
def test_a_stock_type_that_fails_shows_no_plaintext_in_the_frames_of_a_statement(
    world: World, write: str
) -> None:
    """A traceback that prints its locals shows the objects that were flushed, and no value below."""
    error = caught(lambda: WRITES[write](world, {**ROW, "seen_at": BAD_TIME}))
    assert showing_frames(error) == []


def showing_frames(error: BaseException) -> list[str]:
    """Return the frames from the execution of the statement on that show a secret in their locals."""
    stack = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    frames = [frame for frame in stack if "/engine/" in frame.filename or "/fieldvault/" in frame.filename]
    assert len(frames) > 2
    return [frame.name for frame in frames if frame.locals and any(map(hidden_in, frame.locals.values()))]


TROUBLES: Mapping[str, tuple[type[Exception], dict[str, Any]]] = {
    "no tenant": (errors.ScopeRequired, {"shop": None}),
    "another tenant": (errors.TenantMismatch, {}),
    "KMS down": (errors.KMSUnavailable, {}),
    "KMS denies": (errors.KMSDenied, {}),
    "shredded": (errors.KeyShredded, {}),
    "lone surrogate": (errors.UnsupportedValue, {"name": f"{SECRET}\ud800"}),
    "wrong class": (errors.UnsupportedValue, {"name": [SECRET]}),
    "wrong class, date": (errors.UnsupportedValue, {"birthday": SECRET}),
    "not JSON": (errors.UnsupportedValue, {"profile": {"a": {SECRET}}}),
    "endless JSON": (errors.UnsupportedValue, {"profile": {}}),
}


@pytest.fixture
def troubled(
    world: World, request: pytest.FixtureRequest, root_keys: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Yield a world in the trouble that the test asks for."""
    # It tries an unavailable KMS again for a moment only.
    monkeypatch.setattr("fieldvault.vault.RetryPolicy", partial(RetryPolicy, deadline=0.02))
    trouble = request.param
    if trouble.startswith("KMS"):
        kms = FaultyKMS(LocalKMS(root_keys))
        world.vault = Vault(kms=kms, key_store=world.store)
        protect(Base, world.vault)
        kms.fail(errors.KMSUnavailable("down") if trouble == "KMS down" else errors.KMSDenied("no"))
    if trouble == "shredded":
        world.vault.encrypt("x", field="f", tenant="acme")
        world.vault.shred("acme", actor="test", reason="asked")
    if trouble == "another tenant":
        with world.vault.scope(tenant="nordwind"):
            yield world
    else:
        yield world


@pytest.mark.parametrize(
    ("troubled", "trouble"), [(each, each) for each in TROUBLES], indirect=["troubled"], ids=list(TROUBLES)
)
@pytest.mark.parametrize("write", ["flush", "bulk", "row", "rows", "values"])
def test_a_value_that_cannot_be_sealed_is_not_shown(troubled: World, trouble: str, write: str) -> None:
    """The error arrives as it is, unwrapped, and nothing was written."""
    kind, changes = TROUBLES[trouble]
    row = {**ROW, **changes}
    if trouble == "endless JSON":
        row["profile"] = {"name": SECRET}
        row["profile"]["self"] = row["profile"]
    error = caught(lambda: WRITES[write](troubled, row))
    assert type(error) is kind
    assert leaks(error) == []
    assert troubled.raw("SELECT * FROM customers") == []
    assert not troubled.holds(SECRET, OTHER_SECRET)


@pytest.mark.parametrize("troubled", ["lone surrogate", "KMS down"], indirect=True)
def test_the_frames_below_a_failing_bind_are_not_kept(
    troubled: World, request: pytest.FixtureRequest
) -> None:
    """Those of the codecs and ciphers had the value in their locals."""
    name = f"{SECRET}\ud800" if "surrogate" in request.node.name else SECRET
    customer = Customer(id="li", shop="acme", name=name)
    error = caught(lambda: troubled.save(customer))
    assert showing_frames(error) == []
    assert carriers_in(customer) == []
    assert customer.name == name


def test_what_the_database_refuses_is_shown_as_ciphertext(any_world: World) -> None:
    """The parameters of an IntegrityError are what was sent."""
    any_world.save(Customer(id="li", shop="acme"), Customer(id="taken", shop="acme"))
    memo = {"id": 1, "body": SECRET}
    refused: list[Callable[[], object]] = [
        lambda: WRITES["flush"](any_world, ROW),
        lambda: WRITES["bulk"](any_world, ROW),
        lambda: WRITES["row"](any_world, ROW),
        lambda: WRITES["rows"](any_world, ROW),
        lambda: WRITES["values"](any_world, ROW),
        lambda: WRITES["values and rows"](any_world, ROW),
        lambda: WRITES["update"](any_world, {**ROW, "id": "taken"}),
        lambda: change_key(any_world),
        lambda: any_world.execute(insert(MEMOS).values([memo, memo])),
    ]
    for action in refused:
        with any_world.vault.scope(tenant="acme"):
            error = caught(action)
        assert isinstance(error, IntegrityError)
        assert leaks(error) == []


def change_key(world: World) -> None:
    """Give a changed object a key that is taken."""
    with world.session() as session:
        customer = session.get_one(Customer, "li")
        customer.id, customer.name = "taken", SECRET
        session.flush()


@pytest.mark.parametrize("echo", [True, "debug"])
def test_an_engine_that_echoes_shows_ciphertext(world: World, echo: Any) -> None:
    """Statements, parameters and rows, with nothing hidden by option."""
    shown = StringIO()
    handler = logging.StreamHandler(shown)
    logging.getLogger("sqlalchemy").addHandler(handler)
    engine = create_engine(world.engine.url, echo=echo, hide_parameters=False)
    loud = World(engine, world.vault, world.kms, world.store)
    try:
        for write in ("flush", "changed object"):
            WRITES[write](loud, {**ROW, "id": write})
        loud.execute(insert(CUSTOMERS), [{**ROW, "id": str(number)} for number in range(12)])
        loud.read(select(literal("memo")))
        with engine.connect() as connection:
            # What else asks a result for its engine finds it.
            assert connection.execute(select(CUSTOMERS)).context.engine.name == "sqlite"
        with loud.session() as session:
            assert len(session.scalars(select(Customer)).all()) == 14
        caught(lambda: WRITES["row"](loud, {**ROW, "seen_at": BAD_TIME}))
    finally:
        engine.dispose()
        logging.getLogger("sqlalchemy").removeHandler(handler)
    assert "INSERT INTO customers" in shown.getvalue()
    assert ("Row ('memo'," in shown.getvalue()) == (echo == "debug")
    assert not hidden_in(shown.getvalue())


def test_listeners_of_errors_see_no_plaintext(world: World) -> None:
    """What handle_error is given is what monitoring records."""
    seen: list[str] = []

    def note(context: Any) -> None:
        seen.append(repr((context.parameters, context.statement, context.original_exception)))

    event.listen(Engine, "handle_error", note)
    try:
        for write in ("flush", "rows", "values", "update"):
            caught(partial(WRITES[write], world, {**ROW, "seen_at": BAD_TIME}))
    finally:
        event.remove(Engine, "handle_error", note)
    assert len(seen) == 4
    assert not any(map(hidden_in, seen))


def test_nothing_prints_a_value(world: World) -> None:
    """Statements, columns, types, tables, binding and vault."""
    statements = [insert(CUSTOMERS).values(ROW), update(CUSTOMERS).values(ROW), select(CUSTOMERS)]
    for each in (*statements, CUSTOMERS, CUSTOMERS.c.name, CUSTOMERS.c.name.type, Base.metadata, world.vault):
        assert not hidden_in(repr(each) + str(each))


def test_a_statement_s_cache_key_has_no_value(world: World) -> None:
    """Nor has the cache of compiled statements, nor the compiled statements in it."""
    world.save(Customer(**ROW))
    world.execute(insert(MEMOS).values(body=None))
    with world.vault.scope(tenant="acme"):
        world.execute(insert(MEMOS).values(body=SECRET))
        world.execute(update(MEMOS).values(body=SECRET))
    cache: Any = world.engine._compiled_cache
    assert cache
    for key, compiled in cache.items():
        assert not hidden_in(repr(key))
        assert not hidden_in(repr(compiled.params))


def test_a_value_that_cannot_be_read_is_not_shown(world: World) -> None:
    """Errors on the way out carry nothing either."""
    world.save(Customer(**ROW))
    world.raw_execute("UPDATE customers SET email = NULL, name = substr(name, 1, 60)")
    with world.session() as session:
        error = caught(lambda: session.get(Customer, "li"))
    assert isinstance(error, errors.DecryptionError)
    assert leaks(error) == []
