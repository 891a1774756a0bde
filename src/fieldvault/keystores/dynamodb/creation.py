"""Making the table."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import WaiterError

from fieldvault.errors import KeyStoreError
from fieldvault.keystores.dynamodb.table import Table

__all__ = ["create_table", "definition"]


_KEY_SCHEMA = [
    {"AttributeName": "pk", "KeyType": "HASH"},
    {"AttributeName": "sk", "KeyType": "RANGE"},
]


def definition(name: str) -> dict[str, Any]:
    """What CreateTable is told: two text keys, no index, paid by request, kept from being deleted."""
    return {
        "TableName": name,
        "AttributeDefinitions": [{"AttributeName": each, "AttributeType": "S"} for each in ("pk", "sk")],
        "KeySchema": _KEY_SCHEMA,
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": True,
    }


def create_table(table: Table) -> None:
    """Make the table, unless it is there, and wait until it can be used.

    Raises:
        KeyStoreError: it cannot be made, or there is one of that name with other keys.
    """
    try:
        table.call("create_table", **definition(table.name))
    except KeyStoreError as error:
        if "ResourceInUseException" not in str(error):
            raise
    _wait(table)
    if table.call("describe_table", TableName=table.name)["Table"]["KeySchema"] != _KEY_SCHEMA:
        raise KeyStoreError(f"the table {table.name} is there, and its keys are not pk and sk")


def _wait(table: Table) -> None:
    waiter = table.clients.get().get_waiter("table_exists")
    try:
        waiter.wait(TableName=table.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    except WaiterError:
        pass
    else:
        return
    raise KeyStoreError(f"the table {table.name} was made, and is not ready after a minute")
