"""Complaints about searching encrypted columns of sqlalchemy-utils, and about their constraints.

A docstring names the threads by repository and number; `utils#` is kvesteri/sqlalchemy-utils. What has no
thread was seen in its source, and the docstring says so.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, String, Table, func, select

from fieldvault import errors
from fieldvault.sqlalchemy import Encrypted, NotUnique
from tests.sqlalchemy.complaints.accounts import Account
from tests.sqlalchemy.world import World


def test_equality_is_answered_with_any_suite(any_firm: World) -> None:
    """With every engine but the unsafe one a filter found nothing, silently: utils#417, utils#470."""
    any_firm.save(
        Account(id="li", firm="acme", email="Li@Example.com"),
        Account(id="wu", firm="acme", email="wu@example.com"),
    )
    with any_firm.vault.scope(tenant="acme"), any_firm.session() as session:
        assert session.scalars(select(Account.id).filter_by(email="li@example.com")).all() == ["li"]
        assert session.scalars(select(Account.id).where(Account.email == "no@example.com")).all() == []


QUESTIONS: Mapping[str, Callable[[], Any]] = {
    "like": lambda: select(Account.id).where(Account.email.like("%user%")),
    "ilike": lambda: select(Account.id).where(Account.email.ilike("Created account for user")),
    "regexp_match": lambda: select(Account.id).where(Account.email.regexp_match(r"\+999\d{9}")),
    "lower": lambda: select(Account.id).where(func.lower(Account.email) == "x"),
    "order_by": lambda: select(Account.id).order_by(Account.email),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_about_ciphertexts_is_refused_and_not_answered_with_no_rows(
    firm: World, question: str
) -> None:
    """They were sent, and answered as of base64: utils#454, utils#762; sorting: utils#417."""
    with firm.statements() as sent, firm.vault.scope(tenant="acme"), firm.session() as session:
        with pytest.raises(errors.UnsupportedQuery, match="email"):
            session.execute(QUESTIONS[question]())
        assert sent == []


@pytest.mark.parametrize("options", [{"unique": True}, {"index": True}, {"primary_key": True}])
def test_a_constraint_that_would_never_hold_is_refused(options: dict[str, Any]) -> None:
    """Declared on values that never repeat, they did nothing: utils#608, utils#771, sqlalchemy#7054."""
    with pytest.raises(errors.ConfigurationError, match=r"users\.email is encrypted and"):
        Table("users", MetaData(), Column("email", Encrypted(String(64)), **options))


def test_uniqueness_is_the_index_s(any_firm: World) -> None:
    """As declared in sqlalchemy/sqlalchemy#7054 and utils#771, and kept."""
    any_firm.save(Account(id="li", firm="acme", email="li@example.com"))
    with pytest.raises(NotUnique, match=r"accounts\.email"):
        any_firm.save(Account(id="wu", firm="acme", email="LI@example.com"))
    any_firm.save(Account(id="ada", firm="nordwind", email="li@example.com"))
