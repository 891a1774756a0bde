"""``DynamoDBKeyStore``: what it asks the service, what it makes of trouble, and a shred in several steps."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fieldvault.aws.clients import ClientOptions
from fieldvault.errors import ConfigurationError, KeyShredded, KeyStoreError
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from fieldvault.keystores.dynamodb.items import HEAD
from fieldvault.settings import Section, Source
from fieldvault.testing.samples import acme, add, fence, first_key, record, successor, wrap_key
from tests.keystores.dynamodb.hooks import answering, counted, hooked, losing_answers
from tests.servers.ministack import CREDENTIALS, REGION, MinistackServer
from tests.servers.tcp import LOOPBACK, free_port

# -- what it asks -------------------------------------------------------------------------------------------


def test_every_read_is_consistent_and_none_is_a_scan(client: Any, store: DynamoDBKeyStore) -> None:
    """An eventual read could show a key whose destruction it has not heard of."""
    with counted(client) as calls:
        key = first_key(store, acme("ann"), parent=wrap_key(store).key_id)
        store.fetch([key.key_id])
        store.current([key.slot])
        store.changes(0)
        assert [*store.tenants(), *store.all_keys("acme"), *store.fences(), *store.keys("acme", "ann")]
        store.shred(fence(subject="ann"))
    for name, parameters in calls:
        if name in {"GetItem", "Query"}:
            assert parameters["ConsistentRead"] is True
        elif name == "BatchGetItem":
            assert all(each["ConsistentRead"] is True for each in parameters["RequestItems"].values())
        else:
            assert name == "TransactWriteItems"


def test_a_lease_is_looked_after_by_one_read(client: Any, store: DynamoDBKeyStore) -> None:
    """Of one small item."""
    with counted(client) as calls:
        store.generation()
    assert [name for name, _ in calls] == ["GetItem"]


def test_a_page_of_subjects_is_read_in_batches(client: Any, store: DynamoDBKeyStore) -> None:
    """A thousand keys under one parent: the head, ten batches, and the parent."""
    keys = [record(acme(f"subject {number}"), parent=bytes(16)) for number in range(300)]
    store.add_active([Addition(key, None) for key in keys])
    with counted(client) as calls:
        assert len(store.fetch([key.key_id for key in keys] + [os.urandom(16) for _ in range(700)]).records)
    assert sorted(name for name, _ in calls) == ["BatchGetItem"] * 11 + ["GetItem"]


def test_a_first_key_is_made_in_three_calls(client: Any, store: DynamoDBKeyStore) -> None:
    """Two reads, one transaction."""
    with counted(client) as calls:
        first_key(store, acme())
    assert [name for name, _ in calls] == ["BatchGetItem", "GetItem", "TransactWriteItems"]


# -- trouble ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("TransactWriteItems", "ThrottlingException"),
        ("TransactWriteItems", "TransactionInProgressException"),
        ("BatchGetItem", "ProvisionedThroughputExceededException"),
        ("GetItem", "InternalServerError"),
    ],
)
def test_a_throttled_call_is_made_again(
    client: Any, store: DynamoDBKeyStore, operation: str, code: str
) -> None:
    """And nobody hears of it."""
    with answering(client, operation, code, times=3) as met:
        key = first_key(store, acme())
        assert store.fetch([key.key_id]).records == {key.key_id: key}
    assert len(met) == 3


def test_an_outage_ends_in_an_error_that_says_so(
    client: Any, table: str, store: DynamoDBKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two seconds, and never as "there is one already"."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name.upper(), value)
    # A client that is throttled for so long stays slow, so it is not the one that tests share.
    slow = ClientOptions(region_name=REGION, endpoint_url=client.meta.endpoint_url).open("dynamodb", 1)
    with (
        answering(slow, "TransactWriteItems", "ThrottlingException", times=10_000),
        pytest.raises(KeyStoreError, match=f"table {table} in {REGION}: (ThrottlingException|throttled)"),
    ):
        first_key(DynamoDBKeyStore(table, slow), acme())
    assert list(store.all_keys("acme")) == []
    nowhere = DynamoDBKeyStore("keys", region_name=REGION, endpoint_url=f"http://{LOOPBACK}:{free_port()}")
    with pytest.raises(KeyStoreError):
        nowhere.generation()


@pytest.mark.parametrize(
    "code", ["AccessDeniedException", "ResourceNotFoundException", "ValidationException"]
)
def test_what_does_not_get_better_is_not_asked_again(client: Any, store: DynamoDBKeyStore, code: str) -> None:
    """It is an error at once."""
    with (
        answering(client, "TransactWriteItems", code, times=10) as met,
        pytest.raises(KeyStoreError, match=code),
    ):
        first_key(store, acme())
    assert len(met) == 1


def test_a_transaction_whose_answer_was_lost_is_done_once(client: Any, store: DynamoDBKeyStore) -> None:
    """The service knows its token, and answers as it did; nobody takes it for another's work."""
    with losing_answers(client, "TransactWriteItems", times=1):
        key = first_key(store, acme())
    with losing_answers(client, "TransactWriteItems", times=1):
        new = successor(store, key)
    assert new.wrapped is not None
    with losing_answers(client, "TransactWriteItems", times=1):
        assert store.rewrap(new.key_id, expect=new.wrapped, wrapped=b"again") is True
    assert store.generation() == 1


def test_uses_whose_answer_was_lost_are_lost(client: Any, store: DynamoDBKeyStore) -> None:
    """They count twice, and are granted once: the bound holds."""
    key = first_key(store, acme())
    with losing_answers(client, "UpdateItem", times=1):
        assert store.reserve([key.key_id], 10, limit=100) == {key.key_id: 20}


def test_what_a_batch_left_out_is_asked_for_again(client: Any, store: DynamoDBKeyStore) -> None:
    """And only that."""
    keys = [first_key(store, acme(f"subject {number}")) for number in range(3)]
    asked: list[int] = []

    def leave_out(parsed: dict[str, Any], **_: object) -> None:
        (found,) = parsed["Responses"].values()
        asked.append(len(found))
        if len(asked) == 1:
            left = found.pop()
            (name,) = parsed["Responses"]
            key = {part: left[part] for part in ("pk", "sk")}
            parsed["UnprocessedKeys"] = {name: {"Keys": [key], "ConsistentRead": True}}

    with hooked(client, "after-call.dynamodb.BatchGetItem", leave_out):
        assert len(store.fetch([key.key_id for key in keys]).records) == 3
    assert asked == [3, 1]


def test_a_batch_of_which_nothing_is_read_ends(client: Any, store: DynamoDBKeyStore) -> None:
    """In an error, not in a loop, and not in keys that seem unknown."""
    key = first_key(store, acme())

    def leave_out(parsed: dict[str, Any], **_: object) -> None:
        name = store._table.name
        left = {"pk": {"S": f"key\x1f{key.key_id.hex()}"}, "sk": {"S": "key"}}
        parsed["Responses"] = {name: []}
        parsed["UnprocessedKeys"] = {name: {"Keys": [left], "ConsistentRead": True}}

    with (
        hooked(client, "after-call.dynamodb.BatchGetItem", leave_out),
        pytest.raises(KeyStoreError, match="throttled"),
    ):
        store.fetch([key.key_id])


# -- the table ----------------------------------------------------------------------------------------------


def test_the_table_is_made_once(client: Any, table: str) -> None:
    """Again it stays as it is; another one of that name is refused."""
    store = DynamoDBKeyStore(table, client)
    key = first_key(store, acme())
    assert store.create_table() == f"DynamoDB table {table} in {REGION}"
    assert store.check() == f"DynamoDB table {table} in {REGION}, 1 tenant"
    assert store.keys("acme", None) == [key]
    about = client.describe_table(TableName=table)["Table"]
    assert about["DeletionProtectionEnabled"] is True
    assert about["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    other = {"AttributeName": "id", "AttributeType": "S"}
    client.create_table(
        TableName=f"{table}-other",
        AttributeDefinitions=[other],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(KeyStoreError, match="pk and sk"):
        DynamoDBKeyStore(f"{table}-other", client).create_table()
    client.delete_table(TableName=f"{table}-other")


def test_a_table_that_is_not_there_is_an_error(client: Any) -> None:
    """Not an empty store."""
    store = DynamoDBKeyStore("no-such-table", client)
    with pytest.raises(KeyStoreError, match="ResourceNotFoundException"):
        store.generation()
    with pytest.raises(KeyStoreError, match="ResourceNotFoundException"):
        store.fetch([os.urandom(16)])


@pytest.mark.parametrize("name", ["", "ab", "a b", "x" * 256, "arn:aws:dynamodb:x"])
def test_what_names_no_table_is_refused(name: str) -> None:
    """Before anything is called."""
    with pytest.raises(ConfigurationError, match="names no table"):
        DynamoDBKeyStore(name, region_name=REGION)


def test_a_store_that_lost_its_head_serves_nobody(client: Any, store: DynamoDBKeyStore) -> None:
    """Its generation would begin anew, below what every cache has seen."""
    first_key(store, acme())
    client.delete_item(TableName=store._table.name, Key=HEAD.key)
    for call in (store.generation, lambda: store.fetch([]), lambda: add(store, record(KeySlot("globex")))):
        with pytest.raises(KeyStoreError, match="head"):
            call()


def test_changes_that_were_pruned_are_not_known(client: Any, store: DynamoDBKeyStore) -> None:
    """At either end; whoever asks drops all it has."""
    key = first_key(store, acme())
    for _ in range(3):
        key = successor(store, key)
    assert len(store.changes(0) or ()) == 3
    client.delete_item(TableName=store._table.name, Key={"pk": {"S": "changes"}, "sk": {"S": f"{1:020}"}})
    assert store.changes(0) is None
    assert len(store.changes(1) or ()) == 2
    client.delete_item(TableName=store._table.name, Key={"pk": {"S": "changes"}, "sk": {"S": f"{3:020}"}})
    assert store.changes(1) is None


def test_a_damaged_record_is_told_as_such(client: Any, store: DynamoDBKeyStore) -> None:
    """It is neither a key nor no key."""
    key = first_key(store, acme())
    client.update_item(
        TableName=store._table.name,
        Key={"pk": {"S": f"key\x1f{key.key_id.hex()}"}, "sk": {"S": "key"}},
        UpdateExpression="SET #state = :x",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":x": {"S": "gone"}},
    )
    with pytest.raises(KeyStoreError, match="damaged"):
        store.fetch([key.key_id])


def test_a_configuration_describes_it(
    ministack_server: MinistackServer, client: Any, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a mistake in it is told with its place."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    key = first_key(DynamoDBKeyStore(table, client), acme())
    members = {"table": table, "region": REGION, "endpoint_url": ministack_server.url, "read_timeout": 5}
    store = DynamoDBKeyStore.from_config(_section(members))
    assert store.keys("acme", None) == [key]
    store.close()
    for mistake in ({"tabel": "x"}, {"parallel": "many"}, {"region": 7}):
        with pytest.raises(ConfigurationError, match=f"key_store.{next(iter(mistake))}"):
            DynamoDBKeyStore.from_config(_section({**members, **mistake}))


def _section(members: Mapping[str, object]) -> Section:
    return Section(members, ("key_store",), Source("the configuration", Path(), None))


# -- many keys ----------------------------------------------------------------------------------------------


def test_a_fence_among_many_additions_stops_all(store: DynamoDBKeyStore) -> None:
    """More than one transaction holds, and the fenced one last."""
    store.shred(fence("zeta"))
    additions = [Addition(record(KeySlot(f"tenant {number}")), None) for number in range(120)]
    with pytest.raises(KeyShredded):
        store.add_active([*additions, Addition(record(KeySlot("zeta")), None)])
    assert list(store.tenants()) == ["zeta"]


def _history(subject: str, number: int) -> list[KeyRecord]:
    retired = [replace(record(acme(subject), each), state=KeyState.RETIRED) for each in range(1, number)]
    return [*retired, record(acme(subject), number)]


@pytest.fixture
def long_lived(store: DynamoDBKeyStore) -> Mapping[str, list[KeyRecord]]:
    """Subjects with more keys than two transactions hold."""
    subjects = {name: _history(name, 220) for name in ("ann", "bob", "cyd", "dan")}
    token = store.begin_copy()
    assert token is not None
    store.take_over([key for keys in subjects.values() for key in keys], [], token=token)
    store.finish_copy(token=token, generation=1, lease=0)
    return subjects


def _shred_and_die(store: DynamoDBKeyStore, client: Any, subject: str, step: int) -> bool:
    """Shred in a forked child that is killed before a step; whether it was."""
    child = os.fork()
    if child == 0:
        steps: list[int] = []

        def die(**_: object) -> None:
            steps.append(1)
            if len(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            client.meta.events.register("before-send.dynamodb.TransactWriteItems", die)
            store.shred(fence(subject=subject))
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_shred_killed_at_any_step_shows_nothing_behind_the_fence(
    client: Any,
    store: DynamoDBKeyStore,
    open_store: Callable[[], DynamoDBKeyStore],
    long_lived: Mapping[str, list[KeyRecord]],
) -> None:
    """And the next one finishes it: three transactions, killed before each of them, and not at all."""
    killed = []
    for step, (subject, keys) in enumerate(long_lived.items(), start=1):
        killed.append(_shred_and_die(store, client, subject, step))
        other, before = open_store(), store.generation()
        fenced = other.fence("acme", subject) is not None
        assert fenced is (step > 1)
        ids = [key.key_id for key in keys]
        for found in (
            other.fetch(ids).records.values(),
            other.current([acme(subject)]).records.values(),
            other.keys("acme", subject),
            [key for key in other.all_keys("acme") if key.subject == subject],
        ):
            assert {key.wrapped is None for key in found} == {fenced}
            assert {key.state is KeyState.DESTROYED for key in found} == {fenced}
        late = keys[0]
        assert late.wrapped is not None
        if fenced:
            assert not other.transition(late.key_id, expect=KeyState.RETIRED, to=KeyState.SUSPENDED)
            assert not other.rewrap(late.key_id, expect=late.wrapped, wrapped=b"again")
            assert other.reserve([keys[-1].key_id], 1, limit=100) == {}
        assert other.shred(fence(subject=subject, reason="resumed")) == ids
        assert store.generation() == before + (0 if fenced else 1)
        assert "wiping" not in client.get_item(TableName=store._table.name, Key=HEAD.key)["Item"]
        raw = client.get_item(
            TableName=store._table.name,
            Key={"pk": {"S": f"key\x1f{late.key_id.hex()}"}, "sk": {"S": "key"}},
        )["Item"]
        assert "wrapped" not in raw
    assert killed == [True, True, True, False]
