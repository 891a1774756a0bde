"""Single cells: what a driver may give, and what stands in a cell that is no ciphertext."""

from typing import Any

import pytest

from fieldvault import errors
from fieldvault.envelope import to_text
from fieldvault.sqlalchemy import Encrypted
from fieldvault.sqlalchemy.opening import as_blob
from tests.sqlalchemy.shop import CUSTOMERS, SECRET
from tests.sqlalchemy.world import World

BLOB = bytes(range(60))


@pytest.mark.parametrize(
    "cell", [BLOB, bytearray(BLOB), memoryview(BLOB)], ids=["bytes", "bytearray", "memoryview"]
)
def test_drivers_give_bytes_in_several_classes(cell: Any) -> None:
    """All of them are the same ciphertext."""
    assert as_blob(cell, textual=False) == BLOB
    assert as_blob(to_text(BLOB), textual=True) == BLOB


@pytest.mark.parametrize(
    ("cell", "textual"), [("x", False), (5, False), (b"x", True), (BLOB, True), (1.5, True)], ids=repr
)
def test_anything_else_is_no_ciphertext(cell: Any, textual: bool) -> None:
    """The error names its class and the form that belongs there."""
    with pytest.raises(errors.MalformedCiphertext, match=f"what is stored is {type(cell).__name__} and no"):
        as_blob(cell, textual)


@pytest.mark.parametrize("name", ["name", "email"], ids=["binary", "text"])
def test_a_single_cell_is_opened_without_its_row(world: World, name: str) -> None:
    """For whoever calls a column's result processor by hand: under the ambient scope."""
    type_ = CUSTOMERS.c[name].type
    assert isinstance(type_, Encrypted)
    process = type_.result_processor(world.engine.dialect, None)
    blob: Any = world.vault.encrypt(SECRET, field=f"customers.{name}", tenant="acme", subject="li")
    cell = to_text(blob) if name == "email" else blob
    assert process(None) is None
    with world.vault.scope(tenant="acme"):
        assert process(cell) == SECRET
    with world.vault.scope(tenant="acme", subject="ada"), pytest.raises(errors.DecryptionError):
        process(cell)
    with world.vault.scope(tenant="nordwind"), pytest.raises(errors.TenantMismatch):
        process(cell)
    with pytest.raises(errors.MalformedCiphertext):
        process(5)
    world.vault.shred("acme", "li", actor="test", reason="asked")
    with world.vault.scope(tenant="acme"):
        assert process(cell) is None
