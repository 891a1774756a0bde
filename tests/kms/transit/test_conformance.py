"""``TransitKMS`` on a real OpenBao keeps every promise of the public kit."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import hvac
import pytest
import requests.exceptions

from fieldvault.keys.protocols import KMS
from fieldvault.kms import TransitKMS
from fieldvault.kms.transit.mapping import MEANING
from fieldvault.testing import KMSConformance
from fieldvault.testing.vendors import Meaning, VendorError, exceptions_of
from tests.kms.transit.conftest import Tenancy


class TestTransitKMS(KMSConformance):
    """One transit key, used with the least that the page allows, and rotated by its operator."""

    @pytest.fixture
    def token(self, tenancy: Tenancy) -> str:
        """What application and operator may do together."""
        return tenancy.token("The application", "The operator")

    @pytest.fixture
    def open_kms(self, tenancy: Tenancy, token: str, request: pytest.FixtureRequest) -> Callable[[], KMS]:
        """Another client of the same key, impatient where the server is made slow."""
        limit = 1 if "slow_down" in request.fixturenames else 5
        return lambda: TransitKMS(tenancy.server.url, tenancy.key, token=token, read_timeout=limit)

    @pytest.fixture
    def secrets(self, token: str) -> Sequence[str]:
        """The token."""
        return [token]

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """The client's exceptions, and those of what it asks through."""
        return exceptions_of(hvac, requests.exceptions)

    @pytest.fixture
    def meaning_of(self) -> Meaning:
        """The table that calls go by."""
        return MEANING.__getitem__  # type: ignore[return-value]  # a code is no key of it

    @pytest.fixture
    def stranger(self, tenancy: Tenancy) -> KMS:
        """Another key of the same server."""
        tenancy.create(f"{tenancy.key}-other")
        return TransitKMS(tenancy.server.url, f"{tenancy.key}-other", token=tenancy.server.root_token)

    @pytest.fixture
    def open_unknown(self, tenancy: Tenancy) -> Callable[[], KMS]:
        """A key that is not there, asked for with a token that could make it."""
        root = tenancy.server.root_token
        return lambda: TransitKMS(tenancy.server.url, f"{tenancy.key}-unknown", token=root)

    @pytest.fixture
    def disable(self, tenancy: Tenancy) -> Callable[[], None]:
        """OpenBao's soft deletion."""
        adapter = tenancy.server.admin.adapter

        def soft_delete() -> None:
            adapter.post(f"/v1/transit/keys/{tenancy.key}/config", json={"deletion_allowed": True})
            adapter.delete(f"/v1/transit/keys/{tenancy.key}/soft-delete")

        return soft_delete

    @pytest.fixture
    def enable(self, tenancy: Tenancy) -> Callable[[], None]:
        """And its undoing."""
        adapter = tenancy.server.admin.adapter
        return lambda: adapter.post(f"/v1/transit/keys/{tenancy.key}/soft-delete-restore")

    @pytest.fixture
    def disable_one(self, tenancy: Tenancy) -> Callable[[bytes], None]:
        """The floor is raised above its version."""
        configure = tenancy.server.admin.secrets.transit.update_key_configuration
        return lambda wrapped: configure(
            tenancy.key, min_decryption_version=TransitKMS.version_of(wrapped) + 1
        )

    @pytest.fixture
    def delete(self, tenancy: Tenancy) -> Callable[[], None]:
        """As the page says."""
        transit = tenancy.server.admin.secrets.transit

        def delete_key() -> None:
            transit.update_key_configuration(tenancy.key, deletion_allowed=True)
            transit.delete_key(tenancy.key)

        return delete_key

    @pytest.fixture
    def deny(self, tenancy: Tenancy) -> Callable[[], AbstractContextManager[None]]:
        """The policies allow something else, then what they allowed before."""

        @contextmanager
        def other_policies() -> Iterator[None]:
            titles = ("The application", "The operator")
            for title in titles:
                tenancy.server.admin.sys.create_or_update_policy(
                    tenancy.policy(title), 'path "elsewhere" { capabilities = ["read"] }'
                )
            yield
            for title in titles:
                tenancy.policy(title)

        return other_policies

    @pytest.fixture
    def break_connection(self, tenancy: Tenancy) -> Callable[[], AbstractContextManager[None]]:
        """A sealed server answers nobody."""
        return tenancy.server.sealed

    @pytest.fixture
    def slow_down(self, tenancy: Tenancy) -> Callable[[], AbstractContextManager[None]]:
        """The process is stopped; connections still come about, and nothing answers."""
        return tenancy.server.stopped
