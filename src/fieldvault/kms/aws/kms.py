"""``AWSKMS``: root keys in AWS KMS."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from fieldvault.aws.clients import ClientOptions, Clients, MemberError, blaming_members
from fieldvault.aws.workers import Workers
from fieldvault.errors import ConfigurationError, KMSError, KMSUnavailable
from fieldvault.keys.protocols import NotAsked, WrappedKey
from fieldvault.kms.aws.calls import MAX_CONTEXT_SIZE, Calls, fits
from fieldvault.kms.aws.failures import NoRootKey, Unreachable, WrongRootKey
from fieldvault.kms.aws.logs import silence_key_material
from fieldvault.kms.aws.names import KeyName, TenantAlias
from fieldvault.kms.aws.tenantkeys import TenantKeys
from fieldvault.secret import KEY_SIZE
from fieldvault.settings import Section

__all__ = ["AWSKMS"]

_PARALLEL = 32


class AWSKMS:
    """Wraps data keys with Encrypt and Decrypt under a symmetric key of AWS KMS that never leaves it.

    ``key`` is a key ARN, a key id or an alias; of a multi-region key any region's ARN will do. Decrypt names
    the key, so that nothing is opened that a stranger's key wrapped. ``previous`` are further keys that may
    have wrapped what is not rewrapped yet: each costs a call more for what the key did not wrap.
    ``tenant_key`` gives each tenant a root key of its own, under an alias made of this template. The context
    goes along as the encryption context, which CloudTrail logs: tenants' names are no secret from AWS.

    ``client`` is a boto3 client for KMS to share; without it one is opened, with ``region_name``,
    ``endpoint_url``, the role ``role_arn`` (with ``external_id``), and time limits in seconds, on the SDK's
    standard chain of credentials. AWS KMS has no batches: ``parallel`` calls are made at a time.

    Protects against whoever gets the key store or its backups. Does not protect against whoever may call
    Decrypt as this process may, nor does it outlive the root key: once that is deleted, all is unreadable.

    Raises:
        ConfigurationError: a name that is no key's, another region's key, no region, an impossible client.
    """

    def __init__(
        self,
        key: str,
        client: Any = None,
        region_name: str | None = None,
        endpoint_url: str | None = None,
        *,
        tenant_key: str | None = None,
        previous: Sequence[str] = (),
        grant_tokens: Sequence[str] = (),
        parallel: int = _PARALLEL,
        **options: Any,
    ) -> None:
        names = [KeyName.parse(each) for each in (key, *previous)]
        aliases = None if tenant_key is None else TenantAlias(tenant_key)
        if parallel < 1:
            raise MemberError("parallel is the number of calls at a time, at least 1", "parallel")
        if client is None and region_name is None:
            region_name = names[0].region
        clients = Clients(
            "kms",
            client,
            ClientOptions(region_name=region_name, endpoint_url=endpoint_url, **options),
            connections=parallel,
        )
        region = str(clients.get().meta.region_name)
        self._key, *self._previous = [each.in_region(region).text for each in names]
        self._aliases = aliases
        self._region = region
        self._clients = clients
        self._calls = Calls(clients, grant_tokens)
        self._workers = Workers(parallel, "fieldvault-aws-kms")
        silence_key_material()

    @classmethod
    def from_config(cls, section: Section) -> AWSKMS:
        """Open what a configuration describes: ``key``, and whatever else docs/kms/aws.md lists."""
        key, tenant_key = section.text("key"), section.optional_text("tenant_key")
        previous = section.optional_text("previous")
        parallel = section.whole("parallel", _PARALLEL)
        options = ClientOptions.from_config(section)
        section.finish()
        with section.blaming("key"):
            KeyName.parse(key)
        if previous is not None:
            with section.blaming("previous"):
                KeyName.parse(previous)
        with blaming_members(section):
            return cls(
                key,
                tenant_key=tenant_key,
                previous=() if previous is None else (previous,),
                parallel=parallel,
                **{name: getattr(options, name) for name in options.__slots__},
            )

    def wrap(self, key: bytes, *, context: Mapping[str, str]) -> bytes:
        """Wrap 32 bytes of key: one call of Encrypt; about 200 bytes.

        Raises:
            ConfigurationError: the key has another size, or the context is too long for AWS KMS.
        """
        if len(key) != KEY_SIZE:
            raise ConfigurationError(f"a KMS wraps keys of {KEY_SIZE} bytes, not of {len(key)}")
        if not fits(context):
            raise ConfigurationError(f"AWS KMS takes an encryption context of {MAX_CONTEXT_SIZE} bytes")
        name = self._name(context)
        try:
            return self._calls.encrypt(name, key, context).blob
        except NoRootKey as error:
            if name == self._key:
                raise
            problem = str(error)
        raise NoRootKey(
            f"{problem}; with tenant_key each tenant has a root key of its own, to be made before its first "
            "value: tenant_keys().create(tenant)"
        )

    def unwrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The key that was wrapped under this context: one call of Decrypt.

        Raises:
            KMSUnavailable: unreachable, timed out, throttled.
            KMSDenied: credentials or permissions are missing.
            KMSKeyDisabled: the root key is disabled, scheduled for deletion, or not there.
            KMSError: changed, another context, another root key.
        """
        names = (self._name(context), *self._previous)
        return _with_its_key(names, lambda name: self._calls.decrypt(name, wrapped, context))

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Each item's key, or the error that it met; ``parallel`` calls at a time.

        Once AWS KMS is unreachable, the items that were not asked for yet are ``NotAsked``: each would wait
        for its own time limit.
        """
        unreachable: list[KMSError] = []

        def ask(item: WrappedKey) -> bytes | KMSError:
            if unreachable:
                return NotAsked(str(unreachable[0]))
            try:
                return self.unwrap(item.wrapped, context=item.context)
            except Unreachable as error:
                unreachable.append(error)
                return error
            except KMSError as error:
                return error

        return self._workers.map(ask, items)

    def is_current(self, wrapped: bytes, *, context: Mapping[str, str]) -> bool:
        """Whether the root key that wraps in this context now wrapped it, and opens it.

        A wrapped key does not tell which root key made it, so Decrypt is asked, naming this one. The version
        of that key's material does not matter: AWS KMS keeps them all, and none can be taken away.

        Raises:
            KMSUnavailable: unreachable, timed out, throttled.
        """
        try:
            self._calls.decrypt(self._name(context), wrapped, context)
        except KMSUnavailable:
            raise
        except KMSError:
            return False
        return True

    def rewrap(self, wrapped: bytes, *, context: Mapping[str, str]) -> bytes:
        """The same key, wrapped by the root key that wraps in this context now; raises as ``unwrap``.

        Inside AWS KMS, by ReEncrypt. Where that is refused, to this caller or by a server that has none, the
        key is unwrapped and wrapped again.
        """
        present = self._name(context)
        try:
            # Mostly it was a previous one, else there were nothing to do.
            return _with_its_key(
                (*self._previous, present),
                lambda name: self._calls.re_encrypt(name, present, wrapped, context).blob,
            )
        except KMSUnavailable:
            raise
        except KMSError:
            # Whatever it was, the calls below tell it as those of any unwrap and wrap.
            pass
        return self.wrap(self.unwrap(wrapped, context=context), context=context)

    def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
        """The root key that wraps in this context.

        With ``previous`` keys nobody can tell which one wrapped this, and it stands for itself.
        """
        name = self._name(context)
        return f"{name} {hashlib.sha256(wrapped).hexdigest()}" if self._previous else name

    def tenant_keys(self) -> TenantKeys:
        """What an operator does with the tenants' own root keys.

        Raises:
            ConfigurationError: tenants have none.
        """
        if self._aliases is None:
            raise ConfigurationError("tenants have no root keys of their own here; give tenant_key")
        return TenantKeys(self._calls, self._aliases)

    def check(self) -> str:
        """Wrap and unwrap a random key; the ARN of the root key that did it."""
        probe, context = os.urandom(KEY_SIZE), {"purpose": "check"}
        wrapped = self._calls.encrypt(self._key, probe, context)
        if self._calls.decrypt(self._key, wrapped.blob, context) != probe:
            raise KMSError("AWS KMS does not unwrap what it wraps")
        own = "" if self._aliases is None else f", tenants' keys {self._aliases.template}"
        return f"AWS KMS in {self._region}, key {wrapped.key}{own}"

    def close(self) -> None:
        """See ``KMS.close``; a client that was passed in stays open."""
        self._workers.close()
        self._clients.close()

    def __repr__(self) -> str:
        return f"AWSKMS({self._key!r}, region_name={self._region!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AWSKMS is not pickled or copied; open it in each process")

    def _name(self, context: Mapping[str, str]) -> str:
        tenant = context.get("tenant")
        return self._key if self._aliases is None or tenant is None else self._aliases.of(tenant)


def _with_its_key(names: Sequence[str], ask: Callable[[str], bytes]) -> bytes:
    """What is answered for the root key that wrapped it, one of these."""
    told: KMSError | None = None
    for name in names:
        try:
            return ask(name)
        except KMSUnavailable:
            raise
        except KMSError as error:
            # What a key says that may have wrapped it tells more than that another one did not.
            if told is None or isinstance(told, WrongRootKey):
                told = error
    raise told or KMSError("no root key to ask")
