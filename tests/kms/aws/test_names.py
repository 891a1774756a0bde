"""Names of root keys: ARNs, aliases and ids, regions, and an alias a tenant."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldvault.errors import ConfigurationError
from fieldvault.kms.aws.names import KeyName, TenantAlias

KEY = "arn:aws:kms:eu-central-1:123456789012:key/1a1a68b6-94fd-4ce7-9c0a-8fad98a6e3fd"
EVERYWHERE = "arn:aws:kms:eu-central-1:123456789012:key/mrk-1a1a68b694fd4ce79c0a8fad98a6e3fd"
ALIAS_ARN = "arn:aws-cn:kms:cn-north-1:123456789012:alias/shop/fieldvault"


@pytest.mark.parametrize(
    ("name", "region"),
    [
        (KEY, "eu-central-1"),
        (EVERYWHERE, "eu-central-1"),
        (ALIAS_ARN, "cn-north-1"),
        ("alias/fieldvault", None),
        ("1a1a68b6-94fd-4ce7-9c0a-8fad98a6e3fd", None),
        ("mrk-1a1a68b694fd4ce79c0a8fad98a6e3fd", None),
    ],
)
def test_a_key_is_named_in_any_of_the_ways_that_the_service_knows(name: str, region: str | None) -> None:
    """An ARN says its region; the others mean the client's."""
    assert KeyName.parse(name) == KeyName(name, region)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "fieldvault",
        "alias/",
        "alias/a b",
        "alias/ä",
        KEY + "\n",
        KEY[:-2] + " x",
        "arn:aws:s3:::x",
        None,
        7,
    ],
)
def test_what_names_no_key_is_refused(name: object) -> None:
    """Before anything is called."""
    with pytest.raises(ConfigurationError, match="names no key"):
        KeyName.parse(name)


def test_of_a_multi_region_key_the_replica_here_is_named() -> None:
    """Its ARN differs in nothing but the region."""
    here = KeyName.parse(EVERYWHERE).in_region("us-east-1").text
    assert here == EVERYWHERE.replace("eu-central-1", "us-east-1")
    assert KeyName.parse(EVERYWHERE).in_region("eu-central-1").text == EVERYWHERE


@pytest.mark.parametrize("name", [KEY, ALIAS_ARN])
def test_another_key_of_another_region_is_refused(name: str) -> None:
    """The service would only say that it does not know it."""
    with pytest.raises(ConfigurationError, match="multi-region"):
        KeyName.parse(name).in_region("us-east-1")


_ALIASES = TenantAlias("alias/fieldvault-{tenant}")


@pytest.mark.parametrize(
    ("tenant", "alias"),
    [
        ("acme", "alias/fieldvault-acme"),
        ("acme-2", "alias/fieldvault-acme-2"),
        ("Acme", "alias/fieldvault-_41cme"),
        ("a_b", "alias/fieldvault-a_5fb"),
        ("a/b c", "alias/fieldvault-a_2fb_20c"),
        ("商店", "alias/fieldvault-_e5_95_86_e5_ba_97"),
        ("x" * 160, "alias/fieldvault-" + "x" * 160),
    ],
)
def test_a_tenant_has_an_alias_that_can_be_read(tenant: str, alias: str) -> None:
    """What an alias may not hold, or may confuse, is written in hexadecimal."""
    assert _ALIASES.of(tenant) == alias


def test_a_name_that_is_too_long_is_hashed() -> None:
    """SHA-256, in a form that no other name takes."""
    alias = _ALIASES.of("x" * 161)
    assert re.fullmatch(r"alias/fieldvault-__[0-9a-f]{64}", alias)
    assert alias != _ALIASES.of("x" * 162)


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(one=_NAMES, other=_NAMES)
def test_no_two_tenants_share_an_alias(one: str, other: str) -> None:
    """Not even where upper and lower case are one; and every alias is one."""
    if one != other:
        assert _ALIASES.of(one).lower() != _ALIASES.of(other).lower()
    assert KeyName.parse(_ALIASES.of(one)).region is None


@pytest.mark.parametrize(
    "template",
    [
        "alias/fieldvault",
        "fieldvault-{tenant}",
        "alias/{tenant}{tenant}",
        "alias/aws/{tenant}",
        "alias/" + "x" * 99 + "{tenant}",
    ],
)
def test_what_is_no_template_of_aliases_is_refused(template: str) -> None:
    """One that holds the longest tenant, once, and is not the service's own."""
    with pytest.raises(ConfigurationError, match="template"):
        TenantAlias(template)
