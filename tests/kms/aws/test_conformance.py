"""``AWSKMS`` keeps every promise of the public kit, on the server that gets each of them right."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import botocore.exceptions
import pytest
from botocore.session import get_session

from fieldvault.keys.protocols import KMS
from fieldvault.kms.aws.failures import OPERATIONS, meaning_of
from fieldvault.testing import KMSConformance
from fieldvault.testing.promises.kms.root_keys import RootKeyPromises
from fieldvault.testing.vendors import Meaning, VendorError, error_codes, exceptions_of
from tests.kms.aws.conftest import RootKey, User, new_key
from tests.servers.moto import MotoServer
from tests.servers.proxy import Proxy

_OF_STATES = {
    "test_another_context_opens_nothing",
    "test_contexts_that_look_alike_are_told_apart",
    "test_a_value_does_not_run_over_into_the_next_name",
}


class TestAWSKMS(KMSConformance):
    """On moto: all but the states of keys, which it ignores."""

    @pytest.fixture(autouse=True)
    def told_apart(self, request: pytest.FixtureRequest) -> None:
        """Moto joins the names and values of a context; MiniStack does not."""
        if "[a name within a value]" in request.node.name:
            pytest.skip("moto takes two contexts for one; see TestStatesOfKeys")

    @pytest.fixture
    def proxy(self, root_key: RootKey) -> Iterator[Proxy]:
        """What stands between the KMS under test and the server."""
        proxy = Proxy(root_key.server.port)
        yield proxy
        proxy.close()

    @pytest.fixture
    def open_kms(self, root_key: RootKey, proxy: Proxy, request: pytest.FixtureRequest) -> Callable[[], KMS]:
        """Another client of the same key, patient where the server is not slow on purpose."""
        patience = 0.3 if "slow" in request.node.name else 10.0
        previous = [root_key.arn] if "rotate" in request.fixturenames else ()
        return lambda: root_key.open(
            endpoint_url=proxy.url, read_timeout=patience, parallel=16, previous=previous
        )

    @pytest.fixture
    def rotate(self, root_key: RootKey) -> Callable[[], object]:
        """The alias is pointed at another key; the service's own rotation is nobody's business but its."""
        return partial(_point_elsewhere, root_key)

    @pytest.fixture(autouse=True)
    def credentials(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        """A user's, who has no policy."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", user.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", user.secret)

    @pytest.fixture
    def secrets(self, user: User) -> Sequence[str]:
        """The secret of the credentials."""
        return [user.secret]

    @pytest.fixture
    def deny(self, moto_server: MotoServer) -> Callable[[], AbstractContextManager[None]]:
        """Policies are enforced, and this user has none."""
        return moto_server.enforcing

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """The SDK's exceptions, and what the service declares for the operations that are used."""
        model = get_session().get_service_model("kms")
        return {*exceptions_of(botocore.exceptions), *error_codes(model, OPERATIONS)}

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """The one that calls go by."""
        return meaning_of

    @pytest.fixture
    def stranger(self, root_key: RootKey) -> KMS:
        """Another key of the same account."""
        return new_key(root_key.server).open()

    @pytest.fixture
    def break_connection(self, proxy: Proxy) -> Callable[[], AbstractContextManager[None]]:
        """Connections are reset, and new ones refused."""
        return proxy.refusing

    @pytest.fixture
    def slow_down(self, moto_server: MotoServer) -> Callable[[], AbstractContextManager[None]]:
        """The process is stopped; connections still come about, and nothing answers."""
        return moto_server.stopped


class TestStatesOfKeys(KMSConformance):
    """On MiniStack: states of keys, other contexts, and nothing about tampering."""

    @pytest.fixture
    def open_kms(self, stateful_key: RootKey) -> Callable[[], KMS]:
        """Another client of the same key."""
        return stateful_key.open

    @pytest.fixture
    def open_unknown(self, stateful_key: RootKey) -> Callable[[], KMS]:
        """An alias that nobody made."""
        return stateful_key._replace(alias="alias/fieldvault-unknown").open

    @pytest.fixture
    def disable(self, stateful_key: RootKey) -> Callable[[], None]:
        """DisableKey."""
        return lambda: stateful_key.server.client("kms").disable_key(KeyId=stateful_key.key_id)

    @pytest.fixture
    def enable(self, stateful_key: RootKey) -> Callable[[], None]:
        """EnableKey."""
        return lambda: stateful_key.server.client("kms").enable_key(KeyId=stateful_key.key_id)

    @pytest.fixture
    def delete(self, stateful_key: RootKey) -> Callable[[], None]:
        """ScheduleKeyDeletion: the key is not used from that moment on."""
        client = stateful_key.server.client("kms")
        return lambda: client.schedule_key_deletion(KeyId=stateful_key.key_id, PendingWindowInDays=7)


def _point_elsewhere(root_key: RootKey) -> None:
    successor = new_key(root_key.server)
    root_key.server.client("kms").update_alias(AliasName=root_key.alias, TargetKeyId=successor.key_id)


for name in dir(KMSConformance):
    if name.startswith("test_") and name not in _OF_STATES and not hasattr(RootKeyPromises, name):
        # What is not about states is moto's: MiniStack's ciphertexts are malleable.
        setattr(TestStatesOfKeys, name, None)
