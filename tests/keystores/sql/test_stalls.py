"""A database that takes a statement and does not answer it holds nobody up for good."""

from functools import partial

import pytest
from sqlalchemy import Connection, make_url, text

from fieldvault.errors import KeyStoreError
from fieldvault.keystores.sql import stalls
from fieldvault.keystores.sql.engines import open_engine
from fieldvault.keystores.sql.transactions import Transactions

SLEEPS = {"postgresql": "SELECT pg_sleep(30)", "mariadb": "SELECT SLEEP(30)"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no answer longer than a moment."""
    monkeypatch.setattr(stalls, "STALL_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", SLEEPS)
def test_a_statement_that_is_not_answered_is_given_up(kind: str, request: pytest.FixtureRequest) -> None:
    """Its connection with it: a late answer is never taken for that to another statement."""
    engine = open_engine(request.getfixturevalue(f"{kind}_url"))
    transactions = Transactions(engine)
    one = transactions.read(lambda connection: connection.connection.dbapi_connection)
    for run in (transactions.read, transactions.write):
        with pytest.raises(KeyStoreError, match=r"no answer within 0\.3 s|timed out"):
            run(lambda connection: connection.execute(text(SLEEPS[kind])))
    answers = [transactions.read(partial(Connection.scalar, statement=text(f"SELECT {n}"))) for n in range(3)]
    assert answers == [0, 1, 2]
    assert transactions.read(lambda connection: connection.connection.dbapi_connection) is not one
    engine.dispose()


@pytest.mark.usefixtures("impatient")
def test_what_is_answered_in_time_is_not_given_up(postgresql_url: str) -> None:
    """Each statement has its own time, however many there are in a connection's life."""
    engine = open_engine(postgresql_url)
    transactions = Transactions(engine)

    for _ in range(3):
        transactions.write(lambda connection: connection.execute(text("SELECT pg_sleep(0.2)")))
    assert transactions.read(lambda connection: connection.scalar(text("SELECT 1"))) == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://host/keys", {"connect_timeout": 10}),
        ("postgresql+psycopg://host/keys?connect_timeout=2", {}),
        ("mysql+pymysql://host/keys", {"connect_timeout": 10, "read_timeout": 40, "write_timeout": 40}),
        ("mysql+pymysql://host/keys?read_timeout=5", {"connect_timeout": 10, "write_timeout": 40}),
        ("sqlite:///keys.db", {}),
    ],
)
def test_what_the_url_says_stands(url: str, expected: dict[str, float]) -> None:
    """The limits are for URLs that say nothing."""
    assert stalls.limits(make_url(url)) == expected
