"""The DynamoDB key store keeps every promise of the public kit."""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import botocore.exceptions
import pytest

from fieldvault.aws.faults import COMMON_CODES, SDK_FAULTS
from fieldvault.errors import KeyStoreError
from fieldvault.keys.protocols import KeyStore
from fieldvault.keystores.dynamodb import DynamoDBKeyStore
from fieldvault.keystores.dynamodb.failures import CODES, OPERATIONS
from fieldvault.testing import KeyStoreConformance
from fieldvault.testing.promises.outages import OutagePromises
from fieldvault.testing.vendors import Meaning, VendorError, error_codes, exceptions_of
from tests.servers.ministack import REGION, MinistackServer
from tests.servers.moto import MotoServer
from tests.servers.proxy import Hang, Proxy

_INTERRUPTED = {*dir(OutagePromises), "test_nothing_that_is_shown_holds_a_secret"}
_LISTINGS = {"test_all_keys_of_a_tenant_come_once", "test_all_tenants_come_once"}
_SECRET = "secretSECRETsecret"


class TestDynamoDBKeyStore(KeyStoreConformance):
    """One table, shared by all that open it."""

    page = 100

    @pytest.fixture(autouse=True)
    def paged(self, client: Any, request: pytest.FixtureRequest) -> Iterator[None]:
        """A page is a MiB by itself: several thousand items."""
        if request.function.__name__ in _LISTINGS:
            event, limited = "provide-client-params.dynamodb.Query", partial(_limited, self.page)
            client.meta.events.register(event, limited)
            yield
            client.meta.events.unregister(event, limited)
        else:
            yield

    @pytest.fixture
    def open_store(self, client: Any, table: str) -> Callable[[], KeyStore]:
        """Another store on the same table."""
        return lambda: DynamoDBKeyStore(table, client)

    @pytest.fixture
    def vendor_errors(self, client: Any) -> Collection[VendorError]:
        """The SDK's exceptions, and what the service declares for the operations that are used."""
        return {*exceptions_of(botocore.exceptions), *error_codes(client.meta.service_model, OPERATIONS)}

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """Each that has a verdict: what does not end otherwise ends as a failure of the store."""
        known = {*CODES, *COMMON_CODES, *SDK_FAULTS}

        def told(error: VendorError) -> type[KeyStoreError] | None:
            name = error if isinstance(error, str) else error.__name__
            return KeyStoreError if name in known else None

        return told


def _limited(page: int, params: dict[str, Any], **_: object) -> None:
    params["Limit"] = page


class TestInterruptedDynamoDBKeyStore(KeyStoreConformance):
    """With a client of its own, and a proxy in between."""

    @pytest.fixture
    def proxy(self, ministack_server: MinistackServer) -> Iterator[Proxy]:
        """What stands between the store under test and the server."""
        proxy = Proxy(ministack_server.port)
        yield proxy
        proxy.close()

    @pytest.fixture
    def open_store(
        self, table: str, proxy: Proxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], KeyStore]:
        """Another store on the same table, impatient where the server is made slow."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
        limit = 0.5 if "slow_down" in request.fixturenames else 10.0
        return partial(
            DynamoDBKeyStore, table, region_name=REGION, endpoint_url=proxy.url, read_timeout=limit
        )

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """The secret of the credentials."""
        return [_SECRET]

    @pytest.fixture
    def break_connection(self, proxy: Proxy) -> Callable[[], AbstractContextManager[None]]:
        """Connections are reset, and new ones refused."""
        return proxy.refusing

    @pytest.fixture
    def slow_down(self, proxy: Proxy) -> Callable[[], AbstractContextManager[None]]:
        """Requests are taken, and nothing is answered."""
        return partial(proxy.meeting, Hang())


class TestDeniedDynamoDBKeyStore(KeyStoreConformance):
    """On moto, which enforces policies, as a user who has none."""

    @pytest.fixture
    def open_store(self, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], KeyStore]:
        """Another store on the same table."""
        name = f"denied-{secrets.token_hex(6)}"
        DynamoDBKeyStore(name, moto_server.client("dynamodb")).create_table()
        iam = moto_server.client("iam")
        iam.create_user(UserName=name)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", made["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made["SecretAccessKey"])
        return partial(DynamoDBKeyStore, name, region_name=REGION, endpoint_url=moto_server.url)

    @pytest.fixture
    def deny(self, moto_server: MotoServer) -> Callable[[], AbstractContextManager[None]]:
        """Policies are enforced."""
        return moto_server.enforcing


for name in dir(KeyStoreConformance):
    if name.startswith("test_") and name not in _INTERRUPTED:
        # All else is told above, without a detour.
        setattr(TestInterruptedDynamoDBKeyStore, name, None)
    if name.startswith("test_") and name != "test_a_refused_caller_is_told_so_and_served_once_allowed":
        setattr(TestDeniedDynamoDBKeyStore, name, None)
