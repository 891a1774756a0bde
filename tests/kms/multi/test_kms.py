"""``MultiKMS``: any member unwraps, and which error it is when none does."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fieldvault import RetryPolicy, Vault
from fieldvault.errors import ConfigurationError, KMSDenied, KMSError, KMSKeyDisabled, KMSUnavailable
from fieldvault.keys.material import key_id_of
from fieldvault.keys.protocols import NotAsked, WrappedKey
from fieldvault.keystores import MemoryKeyStore
from fieldvault.kms import LocalKMS, MultiKMS
from fieldvault.kms.multi.container import Container
from fieldvault.secret import Secret
from fieldvault.testing.fakes import FaultyKMS, ManualClock

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
A, B = {"tenant": "a"}, {"tenant": "b"}


@pytest.fixture
def clock() -> ManualClock:
    """A clock set by hand."""
    return ManualClock()


@pytest.fixture
def multi(east: FaultyKMS, west: FaultyKMS, clock: ManualClock) -> MultiKMS:
    """Two members, both required."""
    return MultiKMS({"east": east, "west": west}, clock=clock)


def asked(*members: FaultyKMS) -> list[int]:
    """How many calls each member has met since this was last asked."""
    counts = [len(member.calls) for member in members]
    for member in members:
        member.calls.clear()
    return counts


def parts(wrapped: bytes) -> list[str]:
    """Who holds a part."""
    return sorted(Container.parse(wrapped).parts)


# -- unwrapping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KMSUnavailable, KMSDenied, KMSKeyDisabled, KMSError])
@pytest.mark.parametrize("dead", ["east", "west"])
def test_any_one_member_is_enough(
    multi: MultiKMS, request: pytest.FixtureRequest, dead: str, error: type[KMSError]
) -> None:
    """Whatever the other one answers."""
    wrapped = multi.wrap(KEY, context=A)
    request.getfixturevalue(dead).fail(error("out"))
    assert multi.unwrap(wrapped, context=A) == KEY
    assert list(multi.unwrap_many([WrappedKey(wrapped, A)])) == [KEY]


def test_a_root_key_is_that_of_every_member_that_holds_a_part(east: FaultyKMS, west: FaultyKMS) -> None:
    """Only those of all of them together can be refused."""

    class Named(FaultyKMS):
        def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
            assert self.unwrap(wrapped, context=context) == KEY
            return context["tenant"]

    multi = MultiKMS({"east": Named(east), "west": west})
    a, b = multi.wrap(KEY, context=A), multi.wrap(KEY, context=B)
    assert multi.root_key_of(a, context=A) == "east: a; west: "
    assert multi.root_key_of(b, context=B) == "east: b; west: "
    both = MultiKMS({"east": None, "west": west})
    assert both.root_key_of(a, context=A) == both.root_key_of(b, context=B) == "east: ; west: "


def test_the_preferred_member_is_asked_alone(multi: MultiKMS, east: FaultyKMS, west: FaultyKMS) -> None:
    """As long as it answers."""
    wrapped = multi.wrap(KEY, context=A)
    asked(east, west)
    multi.unwrap(wrapped, context=A)
    assert asked(east, west) == [1, 0]


def test_a_dead_member_is_not_asked_first_each_time(
    multi: MultiKMS, east: FaultyKMS, west: FaultyKMS, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It would cost its timeout each time; after the cooldown it is tried again."""
    wrapped = multi.wrap(KEY, context=A)
    east.fail(KMSUnavailable("no route"))
    asked(east, west)
    with caplog.at_level(logging.WARNING, "fieldvault"):
        for _ in range(3):
            assert multi.unwrap(wrapped, context=A) == KEY
    assert asked(east, west) == [1, 3]
    assert caplog.messages == ["the KMS member east is unavailable; others are asked first"]
    clock.advance(15)
    multi.unwrap(wrapped, context=A)
    assert asked(east, west) == [1, 1]
    east.heal()
    clock.advance(15)
    multi.unwrap(wrapped, context=A)
    assert asked(east, west) == [1, 0]


def test_an_ailing_member_is_still_asked_where_the_others_fail(
    multi: MultiKMS, east: FaultyKMS, west: FaultyKMS
) -> None:
    """It may be back already."""
    wrapped = multi.wrap(KEY, context=A)
    east.fail(KMSUnavailable("no route"), times=1)
    multi.unwrap(wrapped, context=A)
    west.fail(KMSUnavailable("no route"))
    assert multi.unwrap(wrapped, context=A) == KEY


def test_of_a_batch_only_what_failed_goes_to_the_next_member(
    multi: MultiKMS, east: FaultyKMS, west: FaultyKMS
) -> None:
    """One call a member, whatever the number of items."""
    items = [WrappedKey(multi.wrap(KEY, context=context), context) for context in (A, B, A)]
    east.fail_items(KMSDenied("no"), when=lambda context: context == B)
    asked(east, west)
    assert list(multi.unwrap_many(items)) == [KEY] * 3
    assert [len(call.contexts) for call in (*east.calls, *west.calls)] == [3, 1]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ((KMSUnavailable, KMSUnavailable), KMSUnavailable),
        ((NotAsked, KMSUnavailable), KMSUnavailable),
        ((NotAsked, KMSDenied), NotAsked),
        ((KMSDenied, KMSUnavailable), KMSUnavailable),
        ((KMSError, KMSUnavailable), KMSUnavailable),
        ((KMSKeyDisabled, KMSUnavailable), KMSUnavailable),
        ((KMSDenied, KMSDenied), KMSDenied),
        ((KMSError, KMSDenied), KMSDenied),
        ((KMSKeyDisabled, KMSDenied), KMSDenied),
        ((KMSKeyDisabled, KMSKeyDisabled), KMSKeyDisabled),
        ((KMSError, KMSKeyDisabled), KMSKeyDisabled),
        ((KMSError, KMSError), KMSError),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_key_is_wrong_only_where_everybody_says_so(
    *,
    multi: MultiKMS,
    east: FaultyKMS,
    west: FaultyKMS,
    answers: tuple[type[KMSError], type[KMSError]],
    told: type[KMSError],
    turned: bool,
) -> None:
    """Whoever could not be asked, or would not say, may have known it."""
    wrapped = multi.wrap(KEY, context=A)
    for member, error in zip((east, west), reversed(answers) if turned else answers, strict=True):
        member.fail(error("as it said"))
    with pytest.raises(KMSError) as caught:
        multi.unwrap(wrapped, context=A)
    assert type(caught.value) is told
    assert "east: " in str(caught.value)
    assert "west: " in str(caught.value)


def test_a_member_that_answers_another_key_is_passed_over(
    multi: MultiKMS, east: FaultyKMS, west: FaultyKMS, caplog: pytest.LogCaptureFixture
) -> None:
    """Alone it opens nothing; and it is told."""
    wrapped = multi.wrap(KEY, context=A)
    east.lie()
    with caplog.at_level(logging.WARNING, "fieldvault"):
        assert multi.unwrap(wrapped, context=A) == KEY
    assert caplog.messages == ["the KMS member east answered with another key than was wrapped"]
    west.fail(KMSDenied("no"))
    with pytest.raises(KMSDenied, match="east: KMSError: answered with another key"):
        multi.unwrap(wrapped, context=A)


def test_a_member_that_answers_too_little_is_passed_over(
    multi: MultiKMS, east: FaultyKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say which items it answered."""
    wrapped = multi.wrap(KEY, context=A)
    monkeypatch.setattr(east, "unwrap_many", lambda _: [])
    assert multi.unwrap(wrapped, context=A) == KEY


# -- wrapping --------------------------------------------------------------------------------------------


def test_all_members_have_to_wrap_unless_fewer_are_required(
    east: FaultyKMS, west: FaultyKMS, clock: ManualClock
) -> None:
    """What is missing is not missed before the other one fails as well."""
    west.fail(KMSUnavailable("no route"))
    with pytest.raises(KMSUnavailable, match="fewer than 2 members wrapped the key: west"):
        MultiKMS({"east": east, "west": west}).wrap(KEY, context=A)
    fewer = MultiKMS({"east": east, "west": west}, required=1, clock=clock)
    assert parts(fewer.wrap(KEY, context=A)) == ["east"]
    asked(east, west)
    assert parts(fewer.wrap(KEY, context=A)) == ["east"]
    assert asked(east, west) == [1, 0]
    west.heal()
    clock.advance(15)
    assert parts(fewer.wrap(KEY, context=A)) == ["east", "west"]


@pytest.mark.parametrize("required", [0, 3, -1])
def test_a_number_that_cannot_be_reached_is_refused(east: FaultyKMS, west: FaultyKMS, required: int) -> None:
    """When the KMS is opened."""
    with pytest.raises(ConfigurationError, match="give 1 to 2"):
        MultiKMS({"east": east, "west": west, "recovery": None}, required=required)


@pytest.mark.parametrize("name", ["", "East", "a b", "x" * 64, "-a", "é"])
def test_a_name_is_plain(east: FaultyKMS, name: str) -> None:
    """It is kept with every key."""
    with pytest.raises(ConfigurationError, match="cannot name a member"):
        MultiKMS({name: east})


def test_somebody_has_to_be_at_hand(east: FaultyKMS) -> None:
    """And whoever wraps alone."""
    with pytest.raises(ConfigurationError, match="at hand"):
        MultiKMS({"recovery": None})
    for alone in ("west", "recovery"):
        with pytest.raises(ConfigurationError, match="no member that is at hand"):
            MultiKMS({"east": east, "recovery": None}, alone=alone)


def test_only_keys_of_32_bytes_are_wrapped(multi: MultiKMS) -> None:
    """A KMS is for keys."""
    with pytest.raises(ConfigurationError, match="not of 16"):
        multi.wrap(KEY[:16], context=A)


# -- members that come, go, and are away -----------------------------------------------------------------


def test_a_rewrap_fills_in_who_was_missing(east: FaultyKMS, west: FaultyKMS) -> None:
    """And then there is nothing more to do."""
    west.fail(KMSUnavailable("no route"))
    multi = MultiKMS({"east": east, "west": west}, required=1, cooldown=0)
    wrapped = multi.wrap(KEY, context=A)
    assert not multi.is_current(wrapped, context=A)
    assert parts(multi.rewrap(wrapped, context=A)) == ["east"]
    west.heal()
    again = multi.rewrap(wrapped, context=A)
    assert parts(again) == ["east", "west"]
    assert multi.is_current(again, context=A)
    east.fail(KMSDenied("no"))
    assert multi.unwrap(again, context=A) == KEY


def test_the_part_of_a_member_that_is_away_is_kept(east: FaultyKMS, west: FaultyKMS) -> None:
    """An offline recovery key wraps when its disk is there, and lies in the safe otherwise."""
    wrapped = MultiKMS({"east": east, "recovery": west}).wrap(KEY, context=A)
    away = MultiKMS({"east": east, "recovery": None})
    assert away.is_current(wrapped, context=A)
    again = away.rewrap(wrapped, context=A)
    assert parts(again) == ["east", "recovery"]
    assert MultiKMS({"recovery": west}).unwrap(again, context=A) == KEY
    assert parts(away.wrap(KEY, context=A)) == ["east"]


def test_the_part_of_a_member_that_fails_is_kept_by_a_rewrap(multi: MultiKMS, west: FaultyKMS) -> None:
    """An outage takes nothing away."""
    wrapped = multi.wrap(KEY, context=A)
    west.fail(KMSUnavailable("no route"))
    again = multi.rewrap(wrapped, context=A)
    west.heal()
    assert parts(again) == ["east", "west"]
    assert all(answers == [KEY] for answers in multi.unwrap_by_member([WrappedKey(again, A)]).values())


def test_the_part_of_a_former_member_goes(multi: MultiKMS, west: FaultyKMS) -> None:
    """With the next rewrap, so that nobody depends on it unknowingly."""
    wrapped = multi.wrap(KEY, context=A)
    alone = MultiKMS({"west": west})
    assert not alone.is_current(wrapped, context=A)
    again = alone.rewrap(wrapped, context=A)
    assert parts(again) == ["west"]
    assert alone.is_current(again, context=A)


def test_a_member_whose_root_key_was_rotated_is_not_current(tmp_path: Path, west: FaultyKMS) -> None:
    """As far as a member can tell."""
    local = LocalKMS.create(tmp_path / "local.keys")
    multi = MultiKMS({"local": local, "west": west})
    wrapped = multi.wrap(KEY, context=A)
    assert multi.is_current(wrapped, context=A)
    local.rotate_root_key()
    assert not multi.is_current(wrapped, context=A)
    assert multi.is_current(multi.rewrap(wrapped, context=A), context=A)


def test_what_only_strangers_wrapped_is_not_taken_for_tampering(east: FaultyKMS, west: FaultyKMS) -> None:
    """Members that were removed too soon, or are in the safe."""
    wrapped = MultiKMS({"west": west}).wrap(KEY, context=A)
    with pytest.raises(KMSKeyDisabled, match="wrapped by west, none of them a member any more"):
        MultiKMS({"east": east}).unwrap(wrapped, context=A)
    away = MultiKMS({"east": east, "west": None})
    with pytest.raises(KMSKeyDisabled, match="only west can unwrap the key, and west is not at hand"):
        away.unwrap(wrapped, context=A)


def test_that_a_member_is_absent_is_no_outage(multi: MultiKMS, east: FaultyKMS, west: FaultyKMS) -> None:
    """Nobody is to try again, and one such key is nothing against the KMS. A real outage is one."""
    wrapped = multi.wrap(KEY, context=A)
    away = MultiKMS({"east": east, "west": None})
    east.fail(KMSError("changed"), times=1)
    with pytest.raises(KMSKeyDisabled, match="east: KMSError: changed; west: KMSKeyDisabled: is not at hand"):
        away.unwrap(wrapped, context=A)
    east.fail(KMSUnavailable("no route"), times=1)
    with pytest.raises(KMSUnavailable):
        away.unwrap(wrapped, context=A)
    store = MemoryKeyStore()
    with Vault(kms=MultiKMS({"west": west}), key_store=store) as vault:
        theirs = vault.encrypt("x", field="f", tenant="theirs")
    with Vault(kms=away, key_store=store, retries=RetryPolicy(failures=1)) as vault:
        ours = vault.encrypt("x", field="f", tenant="ours")
        asked(east)
        with pytest.raises(KMSKeyDisabled):
            vault.decrypt(theirs, field="f", tenant="theirs")
        assert vault.stats().breaker == "closed"
    with Vault(kms=away, key_store=store, retries=RetryPolicy(failures=1)) as vault:
        with pytest.raises(KMSKeyDisabled):
            vault.decrypt(theirs, field="f", tenant="theirs")
        assert vault.decrypt(ours, field="f", tenant="ours") == "x"


def test_what_a_member_wrapped_by_itself_is_unwrapped(east: FaultyKMS, west: FaultyKMS) -> None:
    """So that a vault can take on a second KMS while it runs."""
    multi = MultiKMS({"west": west, "east": east})
    for member in (east, west):
        old = member.wrap(KEY, context=A)
        assert multi.unwrap(old, context=A) == KEY
        assert not multi.is_current(old, context=A)
        assert parts(multi.rewrap(old, context=A)) == ["east", "west"]
        with pytest.raises(KMSError):
            multi.unwrap(old, context=B)


@pytest.mark.parametrize("answer", [OTHER_KEY, b"", KEY[:31], "key", None])
def test_of_what_a_member_wrapped_by_itself_the_key_id_tells(
    east: FaultyKMS, west: FaultyKMS, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    """Nothing is sealed there: a member that lies, or has wrapped another key so, is passed over."""
    context = {"key_id": key_id_of(Secret(KEY)).hex()}
    multi = MultiKMS({"east": east, "west": west}, alone="west")
    bare = multi.wrap(KEY, context=context)
    monkeypatch.setattr(east, "unwrap_many", lambda items: [answer for _ in items])
    assert multi.unwrap(bare, context=context) == KEY
    west.fail(KMSError("changed"))
    with pytest.raises(KMSError, match="east: KMSError: answered with another key"):
        multi.unwrap(bare, context=context)


def test_a_member_that_cannot_read_the_others_wraps_joins_while_the_vault_is_used(
    east: FaultyKMS, west: FaultyKMS
) -> None:
    """It is asked for its root key of a key that another one wrapped by itself, and refuses."""

    class Strict(FaultyKMS):
        def root_key_of(self, wrapped: bytes, *, context: Mapping[str, str]) -> str:
            self.unwrap(wrapped, context=context)
            return "mine"

    store = MemoryKeyStore()
    with Vault(kms=west, key_store=store) as vault:
        blob = vault.encrypt("x", field="f", tenant="acme")
    for alone in ("west", None):
        kms = MultiKMS({"strict": Strict(east), "west": west}, alone=alone)
        with Vault(kms=kms, key_store=store) as vault:
            assert vault.decrypt(blob, field="f", tenant="acme") == "x"
            new = vault.encrypt("x", field="f", tenant=f"new {alone}")
            assert vault.decrypt(new, field="f", tenant=f"new {alone}") == "x"


def test_one_may_wrap_alone(tmp_path: Path, west: FaultyKMS) -> None:
    """The first step from one KMS to several, and the last one back: nothing but it is needed to unwrap."""
    local = LocalKMS.create(tmp_path / "local.keys")
    both, alone = (
        MultiKMS({"local": local, "west": west}),
        MultiKMS({"west": west, "local": local}, alone="local"),
    )
    for wrapped in (alone.wrap(KEY, context=A), alone.rewrap(both.wrap(KEY, context=A), context=A)):
        assert local.unwrap(wrapped, context=A) == KEY
        assert alone.is_current(wrapped, context=A)
        assert both.unwrap(wrapped, context=A) == KEY
    for other in (both.wrap(KEY, context=A), west.wrap(KEY, context=A)):
        assert not alone.is_current(other, context=A)
        assert alone.unwrap(other, context=A) == KEY
    assert not MultiKMS({"local": local, "west": west}, alone="west").is_current(
        west.wrap(KEY, context=A), context=A
    )


def test_each_member_is_proved_by_itself(multi: MultiKMS, east: FaultyKMS, west: FaultyKMS) -> None:
    """An item's error stands with the member that met it."""
    items = [WrappedKey(multi.wrap(key, context=A), A) for key in (KEY, OTHER_KEY)]
    items.append(WrappedKey(MultiKMS({"east": east}).wrap(KEY, context=A), A))
    west.fail_items(KMSDenied("no"), times=1)
    proof = multi.unwrap_by_member(items)
    assert list(proof["east"]) == [KEY, OTHER_KEY, KEY]
    assert [type(answer) for answer in proof["west"]] == [KMSDenied, bytes, KMSError]
    assert str(proof["west"][2]) == "it has not wrapped this key"


def test_a_check_fails_where_any_member_does(multi: MultiKMS, west: FaultyKMS) -> None:
    """The others may do; whoever is asked before a disaster wants to know."""
    assert multi.check().startswith("east: root-key file")
    west.fail(KMSDenied("no"))
    with pytest.raises(KMSDenied, match="1 of 2 members fail: west"):
        multi.check()


# -- configuration ---------------------------------------------------------------------------------------


@pytest.fixture
def describe(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a configuration of two root-key files."""
    for name in ("a", "b"):
        LocalKMS.create(tmp_path / f"{name}.keys").close()

    def write(more: str = "") -> Path:
        file = tmp_path / "fieldvault.toml"
        file.write_text(
            f'[kms]\ntype = "multi"\n{more}\n'
            '[kms.members.a]\ntype = "local"\npath = "a.keys"\n'
            '[kms.members.b]\ntype = "local"\npath = "b.keys"\noffline = true\n'
            '[key_store]\ntype = "sql"\nurl = "sqlite:///keys.db"\n'
        )
        return file

    return write


def test_a_vault_is_opened_by_configuration(describe: Callable[[str], Path], tmp_path: Path) -> None:
    """Each member as it would stand alone; one that is offline may be missing."""
    config = describe("required = 1\ncooldown = 5")
    with Vault.open(config) as vault:
        blob = vault.encrypt("x", field="f", tenant="acme")
    (tmp_path / "b.keys").rename(tmp_path / "safe")
    with Vault.open(config) as vault:
        assert vault.decrypt(blob, field="f", tenant="acme") == "x"
        assert vault.kms.check().endswith(f"b: not at hand: {tmp_path / 'b.keys'} is not there")
    (tmp_path / "safe").rename(tmp_path / "b.keys")
    (tmp_path / "a.keys").rename(tmp_path / "lost")
    with pytest.raises(ConfigurationError, match=r"a\.path cannot be used"):
        Vault.open(config)
    config.write_text(config.read_text().replace('path = "a.keys"', 'path = "a.keys"\noffline = true'))
    with Vault.open(config) as vault:
        assert vault.decrypt(blob, field="f", tenant="acme") == "x"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("required = 3", "line 3: kms.required cannot be used: 3 members cannot be required"),
        ("\nalone = 'c'", "line 4: kms.alone cannot be used: alone names 'c', which is no member"),
        ("cooldown = -1", "line 3: kms.cooldown cannot be used: cooldown is a number of seconds, 0 or more"),
        ("cooldown = inf", "line 3: kms.cooldown cannot be used: cooldown is a number of seconds"),
        ("requird = 1", "kms.requird is not known"),
    ],
)
def test_a_mistake_is_told_with_its_place(describe: Callable[[str], Path], more: str, told: str) -> None:
    """As for every section."""
    with pytest.raises(ConfigurationError, match=told):
        Vault.open(describe(more))


def test_a_member_is_of_an_installed_type(describe: Callable[[str], Path]) -> None:
    """Its section says which, and its mistakes are its own."""
    config = describe("")
    text = config.read_text()
    config.write_text(text.replace('[kms.members.a]\ntype = "local"', '[kms.members.a]\ntype = "lokal"'))
    with pytest.raises(ConfigurationError, match=r"kms\.members\.a\.type is 'lokal'; installed are: "):
        Vault.open(config)
    config.write_text(text.replace('path = "a.keys"', 'pth = "a.keys"'))
    with pytest.raises(ConfigurationError, match=r"kms\.members\.a\.pth is not known"):
        Vault.open(config)


def test_members_are_closed_where_another_cannot_be_opened(
    describe: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of an attempt."""
    closed: list[str] = []

    def close(kms: LocalKMS) -> None:
        closed.append(repr(kms))

    monkeypatch.setattr(LocalKMS, "close", close)
    config = describe("")
    config.write_text(config.read_text().replace('path = "b.keys"\noffline = true', 'path = "c.keys"'))
    with pytest.raises(ConfigurationError, match=r"kms\.members\.b\.path cannot be used"):
        Vault.open(config)
    assert len(closed) == 1
    assert "a.keys" in closed[0]
