"""Transit keys of tenants' own, with what the page allows for them."""

from collections.abc import Callable

import pytest
from hvac.exceptions import Forbidden

from fieldvault import Vault
from fieldvault.errors import KeyShredded, KMSDenied, KMSError, KMSKeyDisabled
from fieldvault.keys.protocols import WrappedKey
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import TransitKMS
from tests.kms.transit.conftest import Tenancy

CONTEXT = {"tenant": "acme", "purpose": "data"}
OTHER = {"tenant": "globex", "purpose": "data"}
KEY = bytes(range(32))
Open = Callable[..., TransitKMS]


@pytest.fixture(autouse=True)
def tenants(tenancy: Tenancy, open_kms: Open) -> None:
    """Whose keys somebody who may begin a tenant, and nothing else, has made."""
    founder = open_kms(token=tenancy.token("Beginning a tenant"), dedicated=True)
    for tenant in ("acme", "globex", "acme"):
        founder.create_tenant_key(tenant)


@pytest.fixture
def dedicated(tenancy: Tenancy, open_kms: Open) -> TransitKMS:
    """The application."""
    return open_kms(token=tenancy.token("A key a tenant"), dedicated=True)


def _keys(tenancy: Tenancy) -> set[str]:
    names = tenancy.server.admin.secrets.transit.list_keys()["data"]["keys"]
    return {name for name in names if name.startswith(tenancy.key)}


def test_it_is_made_once_and_derived(tenancy: Tenancy, open_kms: Open, dedicated: TransitKMS) -> None:
    """As the shared one is; made again, it is the same."""
    open_kms(token=tenancy.token("Beginning a tenant"), dedicated=True).create_tenant_key("商店")
    wrapped = {
        tenant: dedicated.wrap(KEY, context={**CONTEXT, "tenant": tenant}) for tenant in ("acme", "商店")
    }
    names = {f"{tenancy.key}{end}" for end in ("", "-acme", "-globex", "-_e5_95_86_e5_ba_97")}
    assert _keys(tenancy) == names
    read = tenancy.server.admin.secrets.transit.read_key(f"{tenancy.key}-acme")["data"]
    assert (read["type"], read["derived"], read["latest_version"]) == ("aes256-gcm96", True, 1)
    items = [WrappedKey(each, {**CONTEXT, "tenant": tenant}) for tenant, each in wrapped.items()]
    assert dedicated.unwrap_many(items) == [KEY, KEY]
    for other in ({**CONTEXT, "tenant": "globex"}, {"purpose": "data"}):
        with pytest.raises(KMSError):
            dedicated.unwrap(wrapped["acme"], context=other)


def test_nothing_that_is_wrapped_makes_one(tenancy: Tenancy, open_kms: Open) -> None:
    """Whoever could make keys: a tenant that was ended would be back in the server by name."""
    kms = open_kms(token=tenancy.server.root_token, dedicated=True)
    ours = kms.wrap(KEY, context=CONTEXT)
    kms.destroy_tenant_key("acme")
    for again in (kms, open_kms(token=tenancy.server.root_token, dedicated=True)):
        with pytest.raises(KMSKeyDisabled, match=f"no transit key {tenancy.key}-acme; for a new tenant"):
            again.wrap(KEY, context=CONTEXT)
        with pytest.raises(KMSKeyDisabled):
            again.unwrap(ours, context=CONTEXT)
    assert f"{tenancy.key}-acme" not in _keys(tenancy)


def test_a_vault_does_not_hide_that_one_was_deleted(tenancy: Tenancy, open_kms: Open) -> None:
    """Neither by a rotation nor by a write after a shred."""
    kms = open_kms(token=tenancy.server.root_token, dedicated=True)
    with Vault(kms=kms, key_store=MemoryKeyStore()) as vault:
        sealed = {tenant: vault.encrypt("x", field="f", tenant=tenant) for tenant in ("acme", "globex")}
        for tenant in sealed:
            kms.destroy_tenant_key(tenant)
        vault.shred("globex", actor="ann", reason="asked to")
        with pytest.raises(KMSKeyDisabled):
            vault.rotate("acme")
        with pytest.raises(KeyShredded):
            vault.encrypt("y", field="f", tenant="globex")
        vault.ring.cache.drop(None)
        with pytest.raises(KMSKeyDisabled):
            vault.decrypt(sealed["acme"], field="f", tenant="acme")
    assert _keys(tenancy) == {tenancy.key}


def test_whoever_begins_tenants_can_do_nothing_else(
    tenancy: Tenancy, open_kms: Open, dedicated: TransitKMS
) -> None:
    """Neither read, nor make a key that can be deleted or taken away."""
    wrapped = dedicated.wrap(KEY, context=CONTEXT)
    token = tenancy.token("Beginning a tenant")
    founder = open_kms(token=token, dedicated=True)
    for forbidden in (
        lambda: founder.unwrap(wrapped, context=CONTEXT),
        lambda: founder.wrap(KEY, context=CONTEXT),
        lambda: founder.destroy_tenant_key("acme"),
    ):
        with pytest.raises(KMSDenied):
            forbidden()
    transit = tenancy.server.client(token).secrets.transit
    for options in ({"exportable": True}, {"allow_plaintext_backup": True}, {"derived": False}):
        with pytest.raises(Forbidden):
            transit.create_key(f"{tenancy.key}-x", **{"key_type": "aes256-gcm96", **options})
    with pytest.raises(Forbidden):
        transit.update_key_configuration(f"{tenancy.key}-acme", min_decryption_version=1)


def test_what_the_shared_key_wrapped_is_read_as_before(open_kms: Open, dedicated: TransitKMS) -> None:
    """And the other way round: the wrapped key says which it was."""
    shared = open_kms(token=_token_of(dedicated))
    wrapped = shared.wrap(KEY, context=CONTEXT), dedicated.wrap(KEY, context=CONTEXT)
    for kms in (shared, dedicated):
        assert [kms.unwrap(each, context=CONTEXT) for each in wrapped] == [KEY, KEY]
    assert ", and one a tenant, " in dedicated.check()


def test_a_key_moves_between_the_shared_one_and_its_own(tenancy: Tenancy, open_kms: Open) -> None:
    """By being rewrapped, in both directions."""
    root = tenancy.server.root_token
    shared, dedicated = open_kms(token=root), open_kms(token=root, dedicated=True)
    wrapped = shared.wrap(KEY, context=CONTEXT)
    assert shared.is_current(wrapped, context=CONTEXT)
    assert not dedicated.is_current(wrapped, context=CONTEXT)
    own = dedicated.rewrap(wrapped, context=CONTEXT)
    assert own[:1] == b"\x02"
    assert dedicated.is_current(own, context=CONTEXT)
    back = shared.rewrap(own, context=CONTEXT)
    assert back[:1] == b"\x01"
    assert shared.unwrap(back, context=CONTEXT) == dedicated.unwrap(own, context=CONTEXT) == KEY


def test_it_is_rotated_and_rewrapped_by_itself(tenancy: Tenancy, open_kms: Open) -> None:
    """Other tenants' are not touched."""
    kms = open_kms(token=tenancy.server.root_token, dedicated=True)
    ours, theirs = kms.wrap(KEY, context=CONTEXT), kms.wrap(KEY, context=OTHER)
    assert kms.rotate_root_key("acme") == 2
    new = kms.rewrap_many([WrappedKey(ours, CONTEXT), WrappedKey(theirs, OTHER)])
    assert [kms.version_of(each) for each in new if isinstance(each, bytes)] == [2, 1]
    assert kms.unwrap_many([WrappedKey(new[0], CONTEXT), WrappedKey(new[1], OTHER)]) == [KEY, KEY]  # type: ignore[arg-type]


def test_it_is_named_with_its_version(tenancy: Tenancy, open_kms: Open) -> None:
    """What can be refused by itself has a name of its own."""
    kms = open_kms(token=tenancy.server.root_token, dedicated=True)
    shared = open_kms(token=tenancy.server.root_token).wrap(KEY, context=CONTEXT)
    ours, theirs = kms.wrap(KEY, context=CONTEXT), kms.wrap(KEY, context=OTHER)
    kms.rotate_root_key("acme")
    new = kms.rewrap(ours, context=CONTEXT)
    named = [kms.root_key_of(each, context=CONTEXT) for each in (shared, ours, new)]
    assert named == [f"{tenancy.key}{end}" for end in (" version 1", "-acme version 1", "-acme version 2")]
    assert kms.root_key_of(theirs, context=OTHER) not in named


def test_destroyed_it_opens_nothing_and_others_do(tenancy: Tenancy, open_kms: Open) -> None:
    """Again is no error, and neither is a tenant that never had one; a mount that is not there is one."""
    kms = open_kms(token=tenancy.token("A key a tenant"), dedicated=True)
    ours, theirs = kms.wrap(KEY, context=CONTEXT), kms.wrap(KEY, context=OTHER)
    undertaker = open_kms(token=tenancy.token("Ending a tenant"), dedicated=True)
    for tenant in ("acme", "acme", "nobody"):
        undertaker.destroy_tenant_key(tenant)
    assert f"{tenancy.key}-acme" not in _keys(tenancy)
    answers = kms.unwrap_many([WrappedKey(ours, CONTEXT), WrappedKey(theirs, OTHER)])
    assert isinstance(answers[0], KMSKeyDisabled)
    assert answers[1] == KEY
    with pytest.raises(KMSKeyDisabled, match="no handler for route"):
        open_kms(token=tenancy.server.root_token, mount="nowhere").destroy_tenant_key("acme")
    with pytest.raises(KMSError, match="permission denied"):
        kms.destroy_tenant_key("globex")


def _token_of(kms: TransitKMS) -> str:
    return kms._engine._tokens.current().token.reveal()
