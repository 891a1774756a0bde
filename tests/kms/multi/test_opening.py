"""An offline member may be absent. A mistake in its section is one all the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fieldvault import Vault
from fieldvault.errors import ConfigurationError, FieldVaultError, KMSDenied, KMSUnavailable
from fieldvault.kms import LocalKMS, MultiKMS
from fieldvault.kms.multi.container import Container

Describe = Callable[[str], Path]


@pytest.fixture
def describe(tmp_path: Path) -> Describe:
    """A function that writes a configuration with these lines as its offline member."""
    LocalKMS.create(tmp_path / "here.keys").close()
    (tmp_path / "safe").mkdir()
    LocalKMS.create(tmp_path / "safe" / "root.keys").close()

    def write(member: str) -> Path:
        file = tmp_path / "fieldvault.toml"
        file.write_text(
            '[kms]\ntype = "multi"\n[kms.members.here]\ntype = "local"\npath = "here.keys"\n'
            f"[kms.members.recovery]\noffline = true\n{member}\n"
            '[key_store]\ntype = "memory"\n'
        )
        return file

    return write


LOCAL = 'type = "local"\npath = "safe/root.keys"\n'


def away(describe: Describe, member: str) -> str | None:
    """Why the member is absent; nothing where it is at hand."""
    with Vault.open(describe(member)) as vault:
        assert isinstance(vault.kms, MultiKMS)
        return vault.kms.absent.get("recovery")


def test_a_member_that_is_there_takes_part(describe: Describe) -> None:
    """As any other."""
    with Vault.open(describe(LOCAL)) as vault:
        assert vault.kms.check().count("root-key file") == 2
        assert sorted(Container.parse(vault.kms.wrap(bytes(32), context={})).parts) == ["here", "recovery"]


MISTAKES = [
    ('type = "local"\npth = "safe/root.keys"', r"recovery\.pth is not known; did you mean path"),
    ('type = "local"\npath = 7', r"recovery\.path is text"),
    ('type = "lokal"\npath = "safe/root.keys"', r"recovery\.type is 'lokal'"),
    (
        LOCAL + 'passphrase_env = "NOT_SET"',
        r"recovery\.passphrase_env names the environment variable NOT_SET",
    ),
    (LOCAL + "offlin = true", r"recovery\.offlin is not known; .*did you mean offline"),
]


@pytest.mark.parametrize(("member", "told"), MISTAKES, ids=[told.split(" ")[0] for _, told in MISTAKES])
def test_a_mistake_is_told_though_the_member_may_be_absent(
    describe: Describe, member: str, told: str
) -> None:
    """Otherwise new keys would go without a way back, and nobody would know."""
    with pytest.raises(ConfigurationError, match=told):
        Vault.open(describe(member))


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_file_that_is_there_has_to_be_usable(describe: Describe, tmp_path: Path, mode: int) -> None:
    """Others may read it, or it is damaged, or its passphrase is wrong."""
    file = tmp_path / "safe" / "root.keys"
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="open to others"):
        Vault.open(describe(LOCAL))
    file.chmod(0o600)
    file.write_bytes(b"no root keys")
    with pytest.raises(FieldVaultError):
        Vault.open(describe(LOCAL))


def test_a_wrong_passphrase_is_no_absence(
    describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was fetched, and somebody mistyped."""

    def denied(*_: object) -> None:
        raise KMSDenied("the passphrase is wrong")

    config = describe(LOCAL)
    monkeypatch.setattr("fieldvault.kms.local.rootfile.read", denied)
    config.write_text(config.read_text().replace("here.keys", "safe/root.keys"))
    with pytest.raises(KMSDenied):
        Vault.open(config)
    assert tmp_path.is_dir()


def test_a_file_that_is_not_there_is_absent(
    describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor need its passphrase be there, which lies in the safe too. A mistyped member is told even now."""
    (tmp_path / "safe" / "root.keys").rename(tmp_path / "carried off")
    assert away(describe, LOCAL) == f"{tmp_path / 'safe' / 'root.keys'} is not there"
    assert away(describe, LOCAL + 'passphrase_env = "NOT_SET"') is not None
    (tmp_path / "safe").rmdir()
    assert away(describe, LOCAL) is not None
    with pytest.raises(ConfigurationError, match=r"recovery\.passphrase_evn is not known"):
        Vault.open(describe(LOCAL + 'passphrase_evn = "RECOVERY"'))
    monkeypatch.setattr(Path, "stat", _refused)
    with pytest.raises(ConfigurationError, match="there is no root-key file"):
        Vault.open(describe(LOCAL))


def _refused(*_: object, **__: object) -> None:
    raise PermissionError


def test_a_member_without_a_file_is_absent_where_it_is_unavailable(
    describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is not in its slot: many open without asking anybody, so it is asked once."""
    monkeypatch.setenv("RECOVERY_TOKEN", "hvs.token")
    transit = 'type = "transit"\nurl = "http://127.0.0.1:1"\ntoken_env = "RECOVERY_TOKEN"\n'
    assert "127.0.0.1" in (away(describe, transit) or "")
    with pytest.raises(ConfigurationError, match=r"recovery\.token_env is missing"):
        Vault.open(describe(transit.replace("token_env", "tokn_env")))


def test_what_is_wrong_with_a_member_that_answers_is_told_when_it_is_asked(
    describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denial is no absence: the member is at hand, and ``doctor`` says what it says."""
    whole = LocalKMS.check

    def check(kms: LocalKMS) -> str:
        if "safe" in repr(kms):
            raise KMSDenied("revoked")
        return whole(kms)

    monkeypatch.setattr(LocalKMS, "check", check)
    with Vault.open(describe(LOCAL)) as vault:
        assert isinstance(vault.kms, MultiKMS)
        assert set(vault.kms.members) == {"here", "recovery"}
        with pytest.raises(KMSDenied, match="1 of 2 members fail: recovery"):
            vault.kms.check()


def test_a_member_found_absent_is_closed(describe: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it."""
    closed: list[str] = []

    def check(kms: LocalKMS) -> str:
        raise KMSUnavailable(f"{kms} cannot be read now")

    def close(kms: LocalKMS) -> None:
        closed.append(repr(kms))

    monkeypatch.setattr(LocalKMS, "check", check)
    monkeypatch.setattr(LocalKMS, "close", close)
    config = describe(LOCAL)
    with Vault.open(config) as vault:
        assert isinstance(vault.kms, MultiKMS)
        assert list(vault.kms.members) == ["here"]
        assert [each for each in closed if "safe" in each]
