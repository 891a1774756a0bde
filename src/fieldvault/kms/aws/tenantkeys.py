"""Root keys of single tenants: made before the tenant's first data key, scheduled for deletion with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from fieldvault.errors import ConfigurationError, KMSKeyDisabled
from fieldvault.kms.aws.calls import Calls
from fieldvault.kms.aws.names import TenantAlias

__all__ = ["TenantKey", "TenantKeys"]

MIN_DAYS, MAX_DAYS = 7, 30


class TenantKey(NamedTuple):
    """A tenant's own root key: its alias, its ARN, and when it is deleted, if it is to be (aware UTC)."""

    alias: str
    arn: str
    deleted_at: datetime | None


class TenantKeys:
    """Makes tenants' own root keys and has them deleted.

    It takes rights that the vault itself does not need: kms:CreateKey and kms:CreateAlias, kms:DescribeKey,
    kms:ScheduleKeyDeletion. Give them to the operator, not to the application.
    """

    def __init__(self, calls: Calls, aliases: TenantAlias) -> None:
        self._calls = calls
        self._aliases = aliases

    def find(self, tenant: str) -> TenantKey | None:
        """A tenant's root key, or ``None`` where there is none, or none any more."""
        alias = self._aliases.of(tenant)
        try:
            about = self._calls.ask("describe_key", KeyId=alias)["KeyMetadata"]
        except KMSKeyDisabled:
            return None
        deleted = about.get("DeletionDate")
        return TenantKey(alias, about["Arn"], None if deleted is None else deleted.astimezone(UTC))

    def create(self, tenant: str, *, multi_region: bool = False) -> TenantKey:
        """Make a tenant's root key; one that is there already is left as it is.

        The alias comes after the key: interrupted in between, a key without an alias is left, which wraps
        nothing and costs what a key costs until it is deleted.

        Raises:
            KMSKeyDisabled: it is scheduled for deletion.
        """
        found = self.find(tenant)
        if found is None:
            made = self._calls.ask("create_key", Description="fieldvault", MultiRegion=multi_region)
            found = TenantKey(self._aliases.of(tenant), made["KeyMetadata"]["Arn"], None)
            self._calls.ask("create_alias", AliasName=found.alias, TargetKeyId=made["KeyMetadata"]["KeyId"])
        if found.deleted_at is not None:
            raise KMSKeyDisabled(f"the key {found.arn} is scheduled for deletion")
        return found

    def schedule_deletion(self, tenant: str, *, days: int = MAX_DAYS) -> TenantKey:
        """Have AWS KMS refuse the use of a tenant's root key, and delete it after so many days, 7 to 30.

        Until then CancelKeyDeletion brings it back; then it is final, for every backup too. Called again it
        tells the day that was set first.

        Raises:
            ConfigurationError: another number of days.
            KMSKeyDisabled: the tenant has no root key.
        """
        if not MIN_DAYS <= days <= MAX_DAYS:
            raise ConfigurationError(f"AWS KMS deletes a key after {MIN_DAYS} to {MAX_DAYS} days, not {days}")
        found = self.find(tenant)
        if found is None:
            raise KMSKeyDisabled(f"there is no key {self._aliases.of(tenant)}")
        if found.deleted_at is None:
            answer = self._calls.ask(
                "schedule_key_deletion", KeyId=found.arn.rpartition("/")[2], PendingWindowInDays=days
            )
            found = found._replace(deleted_at=answer["DeletionDate"].astimezone(UTC))
        return found
