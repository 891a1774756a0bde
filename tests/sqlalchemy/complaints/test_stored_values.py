"""Complaints about the encrypted types of sqlalchemy-utils: what came back, if anything did.

A docstring names the threads by repository and number; `utils#` is kvesteri/sqlalchemy-utils. What has no
thread was seen in its source, and the docstring says so.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from fieldvault import errors
from tests.sqlalchemy.complaints.accounts import Account, Role, loaded
from tests.sqlalchemy.world import World, caught

# attribute: value, of a type that came back as another or not at all
VALUES: Mapping[str, Any] = {
    # a ValueError from dict(), or text instead of a dictionary: utils#789, utils#532, utils#177
    "settings": {"message": "x", "nested": [1, None, {"y": True}]},
    "credentials": [{"client_secret": "s"}],
    # could not be parsed with microseconds and a zone, needs python-dateutil since: utils#184, utils#280
    "seen_at": datetime(2016, 1, 27, 9, 8, 7, 6, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "opens_at": time(23, 59, 59, 999999),
    "born": date(1815, 12, 10),
    # "Can't crypt decimal column": AnyBlok/AnyBlok#117
    "balance": Decimal("0.10"),
    # "can't crypt LargeBinary column": AnyBlok/AnyBlok#118
    "photo": b"\xff\x00\xd8*",
    # incorrect padding where a hash was stored: utils#465
    "password": "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b/dWg==",
    # no thread: a type that is not known is asked for its Python type, and text is passed to it
    "role": Role.GUEST,
    "is_active": False,
    "logins": 0,
}


def test_each_type_comes_back_as_it_went_in(any_firm: World) -> None:
    """utils#177, utils#184, utils#280, utils#465, utils#532, utils#789, AnyBlok/AnyBlok#117 and #118."""
    any_firm.save(Account(id="li", firm="acme", **VALUES))
    account = loaded(any_firm, "li")
    back = {name: getattr(account, name) for name in VALUES}
    assert back == VALUES
    assert {name: type(value) for name, value in back.items()} == {
        name: type(value) for name, value in VALUES.items()
    }
    assert account.seen_at is not None
    assert account.seen_at.utcoffset() == timedelta(hours=5, minutes=30)


def test_a_moment_is_the_same_moment(any_firm: World) -> None:
    """Only a moment without a zone could be read back: utils#184."""
    moments = [datetime(2024, 2, 29, 12, tzinfo=UTC), datetime(2024, 2, 29, 12, 0, 0, 1)]  # noqa: DTZ001 - one has none
    any_firm.save(*(Account(id=str(n), firm="acme", seen_at=each) for n, each in enumerate(moments)))
    assert [loaded(any_firm, str(n)).seen_at for n in range(len(moments))] == moments


ENDINGS = ("*", "a****", " ", "a\x00", "\x80", "\x01", "\x10" * 16, "", "李雷*")


def test_no_character_at_the_end_is_lost(any_firm: World) -> None:
    """Values that end with what the padding is made of came back without it: utils#212, utils#496."""
    any_firm.save(
        *(
            Account(id=str(number), firm="acme", email=f"{number}{end}", password=end)
            for number, end in enumerate(ENDINGS)
        )
    )
    for number, end in enumerate(ENDINGS):
        account = loaded(any_firm, str(number))
        assert (account.email, account.password) == (f"{number}{end}", end)


def test_an_empty_text_is_a_value_and_none_is_not(firm: World) -> None:
    """utils#762 asks to leave empty text as it is: whoever reads the database would see which are empty."""
    firm.save(Account(id="li", firm="acme", password=""), Account(id="wu", firm="acme", password=None))
    (empty,), (missing,) = firm.raw("SELECT password FROM accounts ORDER BY id")
    assert len(empty) > 40
    assert missing is None
    assert (loaded(firm, "li").password, loaded(firm, "wu").password) == ("", None)


def test_no_length_is_wanted_and_no_value_is_too_long(any_firm: World) -> None:
    """MySQL wanted a length, and cut at it; its driver gave text where bytes were expected.

    "VARCHAR requires a length": utils#109, utils#477, utils#610, sqlalchemy/alembic#912. "string argument
    without an encoding": utils#366, sqlalchemy/sqlalchemy#5365. Long values: utils#730,
    thunderbird/appointment#853.
    """
    long = "李雷🙂" * 30_000
    any_firm.save(Account(id="li", firm="acme", password=long, settings={"notes": long}))
    account = loaded(any_firm, "li")
    assert account.password == long
    assert account.settings == {"notes": long}


def test_a_damaged_value_is_never_a_value_nor_a_codec_s_error(firm: World) -> None:
    """InvalidPaddingError, binascii.Error, or text that nobody wrote: utils#771, utils#465, utils#722.

    Text that was cut off, as by a column that is too short: thunderbird/appointment#853.
    """
    firm.save(Account(id="li", firm="acme", password="s3cret"))
    ((text,),) = firm.raw("SELECT password FROM accounts")
    wrecks = [text[:length] for length in range(len(text))]
    wrecks += [text + "A", text[:-1] + ("A" if text[-1] != "A" else "B"), "Lt/AAG0KXbsqlIeNZMiQUQ==", "x"]
    for wreck in wrecks:
        firm.raw_execute("UPDATE accounts SET password = ?", (wreck,))
        raised = caught(lambda: loaded(firm, "li"))
        assert isinstance(raised, errors.MalformedCiphertext | errors.DecryptionError)
    firm.raw_execute("UPDATE accounts SET password = ?", (text,))
    assert loaded(firm, "li").password == "s3cret"
