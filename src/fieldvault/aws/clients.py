"""Clients of AWS services: credentials, regions, time limits, forks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, InvalidRegionError, NoRegionError
from botocore.session import Session, get_session

from fieldvault.aws.pacing import pace
from fieldvault.errors import ConfigurationError
from fieldvault.forks import in_forked_children
from fieldvault.settings import Section

__all__ = ["ClientOptions", "Clients", "MemberError", "blaming_members"]

_ROLE_METHOD = "fieldvault-assume-role"
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
_CONNECT_TIMEOUT, _READ_TIMEOUT = 1.0, 2.0


class MemberError(ConfigurationError):
    """A configuration that cannot work, and ``member``, the one of its section that is to be mended."""

    def __init__(self, message: str, member: str) -> None:
        super().__init__(message)
        self.member = member

    def __reduce__(self) -> tuple[type[MemberError], tuple[str, str]]:
        return type(self), (str(self), self.member)


@contextmanager
def blaming_members(section: Section) -> Iterator[None]:
    """What is found wrong in this block with any member of a section, told with its place."""
    try:
        yield
    except MemberError as error:
        member, problem = error.member, str(error)
    else:
        return
    with section.blaming(member):
        raise ConfigurationError(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How to reach a service, and as whom.

    Credentials come from the SDK's standard chain. With ``role_arn`` they are those of the role, fetched from
    the token service with the chain's ones, and fetched again before they expire; ``external_id`` is what its
    trust policy may ask for. ``endpoint_url`` is a VPC endpoint, or a server for tests. Time limits are
    seconds: ``connect_timeout`` to connect, ``read_timeout`` without a byte of the answer.
    """

    region_name: str | None = None
    endpoint_url: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    connect_timeout: float = _CONNECT_TIMEOUT
    read_timeout: float = _READ_TIMEOUT

    def __post_init__(self) -> None:
        for name in ("connect_timeout", "read_timeout"):
            if getattr(self, name) <= 0:
                raise MemberError(f"{name} is a number of seconds, more than 0", name)

    @classmethod
    def from_config(cls, section: Section) -> ClientOptions:
        """Take the members from a section of a configuration."""
        with blaming_members(section):
            return cls(
                region_name=section.optional_text("region"),
                endpoint_url=section.optional_text("endpoint_url"),
                role_arn=section.optional_text("role_arn"),
                external_id=section.optional_text("external_id"),
                connect_timeout=section.number("connect_timeout", _CONNECT_TIMEOUT),
                read_timeout=section.number("read_timeout", _READ_TIMEOUT),
            )

    def open(self, service: str, connections: int) -> Any:
        """A new client with so many pooled connections.

        When the service throttles this process it slows down, as in the SDK's adaptive mode, and a call that
        would have to wait for long fails (``pace``). Nothing is repeated: who calls has a deadline, and
        repeats it himself.

        Raises:
            ConfigurationError: no region, no such profile, a malformed endpoint.
        """
        try:
            # A session of its own: boto3's default one is shared, and not made for threads.
            session = boto3.Session(botocore_session=self._session())
            client = session.client(
                service,
                region_name=self.region_name,
                endpoint_url=self.endpoint_url,
                config=self._config(connections),
            )
        except (BotoCoreError, ValueError) as error:
            problem, member = str(error), _blamed(error)
        else:
            pace(client)
            return client
        raise MemberError(f"no client for AWS {service}: {problem}", member)

    def _config(self, connections: int) -> Config:
        return Config(
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=connections,
            # What is sent is made here; looking it over again took half the time of a large transaction.
            parameter_validation=False,
            user_agent_extra="fieldvault",
        )

    def _session(self) -> Session:
        session = get_session()
        if self.role_arn is not None:
            creator = partial(
                get_session().create_client, region_name=self.region_name, config=self._config(1)
            )
            resolver = session.get_component("credential_provider")
            resolver.providers.insert(0, _Role(get_session(), creator, self))
        return session


class _Role:
    """A credential provider, in the SDK's sense, of an assumed role."""

    METHOD = _ROLE_METHOD
    CANONICAL_NAME = None

    def __init__(self, source: Session, creator: Callable[..., Any], options: ClientOptions) -> None:
        self._source = source
        self._creator = creator
        self._options = options

    def load(self) -> DeferredRefreshableCredentials | None:
        """Credentials that fetch themselves when first used, and again before they expire."""
        chain = self._source.get_credentials()
        if chain is None:
            return None
        extra = {"RoleSessionName": "fieldvault"}
        if self._options.external_id is not None:
            extra["ExternalId"] = self._options.external_id
        fetcher = AssumeRoleCredentialFetcher(
            client_creator=self._creator,
            source_credentials=chain,
            role_arn=self._options.role_arn,
            extra_args=extra,
        )
        return DeferredRefreshableCredentials(method=_ROLE_METHOD, refresh_using=fetcher.fetch_credentials)


def _blamed(error: BotoCoreError | ValueError) -> str:
    """The member of a configuration that an error at the opening is about."""
    if isinstance(error, (NoRegionError, InvalidRegionError)):
        return "region"
    # The SDK has no class of its own for an endpoint that is no URL. The rest, a profile that is not there or
    # a setting of the SDK, stands in no configuration of ours.
    return "type" if isinstance(error, BotoCoreError) else "endpoint_url"


def _require_privacy(endpoint: str) -> None:
    """Refuse to show data keys, wrapped or not, to the network.

    Raises:
        ConfigurationError: plain HTTP to another machine.
    """
    url = urlsplit(endpoint)
    if url.scheme != "https" and url.hostname not in _THIS_MACHINE:
        raise MemberError(f"the endpoint {endpoint} is not https, and not on this machine", "endpoint_url")


class Clients:
    """One client a process, of a service: one that was given, or one that is opened with options.

    Clients are made for threads, not for forks. A forked child opens its own, and drops the connections that
    it inherited from one that was given.
    """

    def __init__(self, service: str, given: Any, options: ClientOptions, connections: int) -> None:
        if given is not None and options != ClientOptions():
            raise ConfigurationError(
                "a client that is passed in has a region, an endpoint, a role and time limits; leave them out"
            )
        if given is not None and given.meta.service_model.service_name != service:
            raise ConfigurationError(
                f"a client for {service} is wanted, not one for {given.meta.service_model.service_name}"
            )
        self._service = service
        self._given = given
        self._options = options
        self._connections = connections
        self._lock = threading.Lock()
        self._client: Any = given
        _require_privacy(str(self.get().meta.endpoint_url))
        in_forked_children(self, Clients._after_fork)

    def get(self) -> Any:
        """The client of this process."""
        client = self._client
        if client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._options.open(self._service, self._connections)
                client = self._client
        return client

    def close(self) -> None:
        """Give up connections; those of a client that was given are its owner's."""
        with self._lock:
            if self._given is None and self._client is not None:
                self._client.close()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        if self._given is None:
            self._client = None
        else:
            self._given.close()
