"""``fieldvault.toml``: read as it says, and every mistake told with its line."""

import re
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from fieldvault import CachePolicy, RetryPolicy, RotationPolicy, Vault, config, settings
from fieldvault.errors import ConfigurationError, KMSDenied
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.kms import LocalKMS, rootfile
from fieldvault.settings import Section
from tests.docs.pages import ROOT, pages
from tests.kms.conftest import PASSPHRASE, cheap, root_key

WHOLE = """\
[vault]
default_tenant = "shop"
suite = "XChaCha20-Poly1305"

[kms]
type = "local"
path = "root.keys"

[key_store]
type = "sql"
url = "sqlite:///keys.db"

[cache]
max_keys = 100
ttl = 60
lease = 0.5
grace = 0
refresh_ahead = 0.5
reprove = false

[rotation]
max_age_days = 30.5
max_uses = 1_000_000
block = 1_000

[retries]
deadline = 0
failures = 7
pause = 2.5
"""
LEAST = """\
[kms]
type = "local"
path = "root.keys"

[key_store]
type = "memory"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a root-key file."""
    LocalKMS.create(tmp_path / "root.keys")
    return tmp_path


def _written(folder: Path, text: str) -> Path:
    path = folder / "fieldvault.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _refused(folder: Path, text: str) -> str:
    """What the error says after the path of the file."""
    path = _written(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        Vault.open(path)
    told = str(caught.value)
    assert told.startswith(str(path))
    return told.removeprefix(str(path))


def test_a_file_is_read_as_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key of it, and its paths from its own folder."""
    monkeypatch.chdir("/")
    arguments = config.read(str(_written(folder, WHOLE)))
    store = arguments.pop("key_store")
    assert isinstance(arguments.pop("kms"), LocalKMS)
    assert isinstance(store, SQLKeyStore)
    assert store.check() == f"sqlite:///{folder / 'keys.db'}, 0 keys"
    assert arguments == {
        "default_tenant": "shop",
        "suite": "XChaCha20-Poly1305",
        "cache": CachePolicy(max_keys=100, ttl=60, lease=0.5, grace=0, refresh_ahead=0.5, reprove=False),
        "rotation": RotationPolicy(max_age=timedelta(days=30.5), max_uses=1_000_000, block=1_000),
        "retries": RetryPolicy(deadline=0, failures=7, pause=2.5),
    }
    store.close()


def test_a_vault_of_a_file_works(folder: Path) -> None:
    """What one process sealed another opens."""
    path = _written(folder, WHOLE)
    with Vault.open(path) as vault:
        sealed = vault.encrypt("张伟", field="customers.name")
    with Vault.open(path) as vault:
        assert vault.decrypt(sealed, field="customers.name", tenant="shop") == "张伟"
    with sqlite3.connect(folder / "keys.db") as connection:
        assert connection.execute("SELECT tenant FROM fieldvault_tenants").fetchall() == [("shop",)]
    connection.close()


def test_the_least_file_names_two_backends(folder: Path) -> None:
    """Everything else has a default, the one of the class."""
    arguments = config.read(_written(folder, LEAST))
    assert isinstance(arguments.pop("key_store"), MemoryKeyStore)
    arguments.pop("kms")
    assert arguments == {
        "default_tenant": None,
        "suite": "AES-256-GCM",
        "cache": CachePolicy(),
        "rotation": RotationPolicy(),
        "retries": RetryPolicy(),
    }


def test_a_mapping_of_the_same_shape_is_read_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its paths from where the process is, its mistakes by name."""
    monkeypatch.chdir(folder)
    shape: dict[str, Any] = {"kms": {"type": "local", "path": "root.keys"}, "key_store": {"type": "memory"}}
    with Vault.open(shape) as vault:
        assert vault.decrypt(vault.encrypt(5, field="a.b", tenant="t"), field="a.b", tenant="t") == 5
    shape["cache"] = {"tll": 5}
    with pytest.raises(
        ConfigurationError, match=r"^the configuration: cache\.tll is not known; here can stand: "
    ):
        Vault.open(shape)


BLOCKS = {
    f"{path.relative_to(ROOT)}, line {text.count(chr(10), 0, match.start()) + 1}": match["code"]
    for path in pages()
    for text in [path.read_text(encoding="utf-8")]
    for match in re.finditer(r"^```toml\n(?P<code>.*?)^```$", text, re.DOTALL | re.MULTILINE)
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_documented_configuration_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    """Every TOML block of README and docs, with the files and variables beside it that it names."""
    monkeypatch.setenv("ROOT_KEYS_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("KEY_STORE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    sealer = cheap() if "\npassphrase_" in BLOCKS[block] else None
    rootfile.create(tmp_path / "root.keys", [root_key()], sealer)
    with Vault.open(_written(tmp_path, BLOCKS[block])) as vault:
        assert vault.decrypt(vault.encrypt(1, field="a.b", tenant="t"), field="a.b", tenant="t") == 1


def test_the_page_lists_every_key_with_its_default(folder: Path) -> None:
    """The block of all keys says what holds where nothing is said."""
    (block,) = (
        code
        for name, code in BLOCKS.items()
        if name.startswith("docs/configuration") and "[rotation]" in code
    )
    said, unsaid = config.read(_written(folder, block)), config.read(_written(folder, LEAST))
    for name in ("default_tenant", "suite", "cache", "rotation", "retries"):
        assert said[name] == unsaid[name]
    said["key_store"].close()
    keys = set(re.findall(r"^(?:# )?(\w+) = ", block, re.MULTILINE))
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert keys == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    for section in ("vault", "kms", "key_store", "cache", "rotation", "retries"):
        told = _refused(folder, block.replace(f"[{section}]", f"[{section}]\nnot_a_key = 1"))
        known = told.partition("here can stand: ")[2].split(", ")
        assert set(known) <= keys
        keys -= set(known) - {"type"}
    assert keys <= {"type"}


MISTAKES: dict[str, tuple[Callable[[str], str], str]] = {
    "an unknown section": (
        lambda text: text + "[cahce]\n",
        ", line 30: cahce is not known; here can stand: cache, ",
    ),
    "an unknown key": (lambda text: text.replace("lease", "leese"), ", line 16: cache.leese is not known; "),
    "an unknown key of a KMS": (
        lambda text: text.replace('path = "root.keys"', 'path = "root.keys"\npasphrase_env = "X"'),
        ", line 8: kms.pasphrase_env is not known; here can stand: passphrase_env, passphrase_file, path, ",
    ),
    "a passphrase in the file": (
        lambda text: text.replace('path = "root.keys"', 'path = "root.keys"\npassphrase = "hunter2"'),
        ", line 8: kms.passphrase is not known; here can stand: passphrase_env, ",
    ),
    "an unknown key of a store": (
        lambda text: text.replace("[cache]", "pool = 5\n[cache]"),
        ", line 13: key_store.pool is not known; ",
    ),
    "a key above all sections": (lambda text: "ttl = 5\n" + text, ", line 1: ttl is not known; "),
    "no KMS": (lambda text: text.replace("[kms]", "[vault.kms]"), ": kms is missing"),
    "no key store": (lambda text: text.replace("[key_store]", "[kms.key_store]"), ": key_store is missing"),
    "a KMS without a type": (
        lambda text: text.replace('type = "local"', ""),
        ", line 5: kms.type is missing",
    ),
    "a KMS without a path": (
        lambda text: text.replace('path = "root.keys"', ""),
        ", line 5: kms.path is missing",
    ),
    "a mistyped path": (
        lambda text: text.replace("path =", "pth ="),
        ", line 7: kms.pth is not known; did you mean path, which is missing?",
    ),
    "a mistyped section": (
        lambda text: text.replace("[key_store]", "[keystore]"),
        ", line 9: keystore is not known; did you mean key_store, which is missing?",
    ),
    "a store without a URL": (
        lambda text: text.replace('url = "sqlite:///keys.db"', ""),
        ", line 9: key_store.url is missing",
    ),
    "a KMS that is text": (
        lambda text: 'kms = "local"\n' + text.replace("[kms]", "[other]"),
        ", line 1: kms is a section, not text in quotes",
    ),
    "an unknown KMS": (
        lambda text: text.replace('"local"', '"locl"'),
        ", line 6: kms.type is 'locl'; installed are: aws, local, multi, pkcs11, transit",
    ),
    "an unknown key store": (
        lambda text: text.replace('"sql"', '"sqlite"'),
        ", line 10: key_store.type is 'sqlite'; installed are: dynamodb, memory, sql",
    ),
    "a number in quotes": (
        lambda text: text.replace("ttl = 60", 'ttl = "60"'),
        ", line 15: cache.ttl is a number, not text in quotes",
    ),
    "a fraction of a key": (
        lambda text: text.replace("max_keys = 100", "max_keys = 100.5"),
        ", line 14: cache.max_keys is a whole number, not a number",
    ),
    "a negative ttl": (
        lambda text: text.replace("ttl = 60", "ttl = -1"),
        ", line 15: cache.ttl cannot be used: ",
    ),
    "an endless lease": (
        lambda text: text.replace("lease = 0.5", "lease = inf"),
        ", line 16: cache.lease cannot be used: ",
    ),
    "a grace that is no number": (
        lambda text: text.replace("grace = 0", "grace = nan"),
        ", line 17: cache.grace cannot be used: ",
    ),
    "no keys": (lambda text: text.replace("= 100\n", "= 0\n"), ", line 14: cache.max_keys cannot be used: "),
    "a negative age": (
        lambda text: text.replace("30.5", "-1"),
        ", line 22: rotation.max_age_days cannot be used: -1 days are no age; give a positive number",
    ),
    "an age of no time": (
        lambda text: text.replace("30.5", "0"),
        ", line 22: rotation.max_age_days cannot be used: ",
    ),
    "an age beyond all": (
        lambda text: text.replace("30.5", "1e300"),
        ", line 22: rotation.max_age_days cannot be used: 1e+300 days are no age",
    ),
    "an age that is none": (
        lambda text: text.replace("30.5", "nan"),
        ", line 22: rotation.max_age_days cannot be used: nan days are no age",
    ),
    "too many uses": (
        lambda text: text.replace("1_000_000", "5_000_000_000"),
        ", line 23: rotation.max_uses cannot be used: rotation wants block <= max_uses <= 2**32",
    ),
    "a share that is all": (
        lambda text: text.replace("refresh_ahead = 0.5", "refresh_ahead = 1"),
        ", line 18: cache.refresh_ahead cannot be used: refresh_ahead is a share below 1, not 1",
    ),
    "no failures at all": (
        lambda text: text.replace("failures = 7", "failures = 0"),
        ", line 28: retries.failures cannot be used: failures is a positive whole number, not 0",
    ),
    "a block above the default uses": (
        lambda text: text.replace("max_uses = 1_000_000\nblock = 1_000", "block = 5_000_000_000"),
        ", line 23: rotation.block cannot be used: ",
    ),
    "an unknown suite": (
        lambda text: text.replace("XChaCha20", "Chacha"),
        ", line 3: vault.suite cannot be used: unknown cipher suite 'Chacha-Poly1305'; there are: AES",
    ),
    "a tenant that cannot be": (
        lambda text: text.replace('"shop"', '"sh\\u0007op"'),
        ", line 2: vault.default_tenant cannot be used: a tenant has no control characters",
    ),
    "a root-key file that is not there": (
        lambda text: text.replace("root.keys", "other.keys"),
        ", line 7: kms.path cannot be used: there is no root-key file ",
    ),
    "a database URL that is none": (
        lambda text: text.replace("sqlite:///keys.db", "keys.db"),
        ", line 11: key_store.url cannot be used: the key store wants a database URL such as ",
    ),
    "an empty URL": (lambda text: text.replace("sqlite:///keys.db", ""), ", line 11: key_store.url is empty"),
    "a database in memory": (
        lambda text: text.replace("sqlite:///keys.db", "sqlite://"),
        ", line 11: key_store.url cannot be used: SQLite in memory is one database a connection; ",
    ),
    "a URL from a variable that is not set": (
        lambda text: text.replace('url = "sqlite:///keys.db"', 'url_env = "SHOP_NO_SUCH_VARIABLE"'),
        ", line 11: key_store.url_env names the environment variable SHOP_NO_SUCH_VARIABLE, which is not set",
    ),
    "a URL from a file that is not there": (
        lambda text: text.replace('url = "sqlite:///keys.db"', 'url_file = "url"'),
        ", line 11: key_store.url_file names 'url', which cannot be read: No such file or directory",
    ),
    "a passphrase for a file without": (
        lambda text: text.replace(
            'path = "root.keys"', 'path = "root.keys"\npassphrase_file = "fieldvault.toml"'
        ),
        ", line 7: kms.path cannot be used: the root-key file ",
    ),
    "a statement without an end": (lambda text: text.replace('"shop"', '"shop'), " is not TOML: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_line(folder: Path, mistake: str) -> None:
    """The exact one, and what to write there."""
    edit, told = MISTAKES[mistake]
    text = edit(WHOLE)
    assert text != WHOLE
    answer = _refused(folder, text)
    assert answer.startswith(told)
    assert "hunter2" not in answer


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            '[kms]\ntype = "local"\npath = "root.keys"\n',
            'kms.type = "local"\nkms.path = "root.keys"\nkms.x = 1\n',
            3,
        ),
        (
            '[kms]\ntype = "local"\npath = "root.keys"\n',
            'kms = { type = "local", path = "root.keys", x = 1 }\n',
            1,
        ),
        ("[kms]\n", '[ "kms" ]\n\n"x" = """\n"""\n', 3),
        ("[kms]", "# kms.x = 1\n[kms]\nx = 1", 3),
        ('[key_store]\ntype = "memory"', '[key_store]\ntype = "memory"\n[kms.x]\ny = 1', 7),
    ],
    ids=["dotted keys", "an inline table", "quoted, over several lines", "a comment", "a section of its own"],
)
def test_a_line_is_found_however_it_is_written(folder: Path, old: str, new: str, line: int) -> None:
    """TOML has many ways to say one thing."""
    answer = _refused(folder, LEAST.replace(old, new))
    assert answer.startswith(f", line {line}: kms.x is not known")


def test_what_is_no_toml_names_its_line(folder: Path) -> None:
    """In the parser's words."""
    assert re.match(r" is not TOML: .*line 6, column", _refused(folder, WHOLE.replace('"local"', "local")))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Missing, a folder, or in another encoding."""
    with pytest.raises(ConfigurationError, match=r"there is no fieldvault\.toml in ") as caught:
        Vault.open(tmp_path / "fieldvault.toml")
    assert str(tmp_path.resolve()) in str(caught.value)
    assert "for a new vault, run `fieldvault init`" in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        Vault.open(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(ConfigurationError, match=r"latin\.toml is not UTF-8"):
        Vault.open(tmp_path / "latin.toml")


def test_secrets_come_from_where_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase from the environment or a file, a URL with a password likewise."""
    rootfile.create(tmp_path / "root.keys", [root_key()], cheap())
    monkeypatch.setenv("SHOP_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("SHOP_KEYS", "sqlite:///from_env.db")
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n", encoding="utf-8")
    (tmp_path / "url").write_text("sqlite:///from_file.db\n")
    for kms, store in (
        ('passphrase_env = "SHOP_PASSPHRASE"', 'url_env = "SHOP_KEYS"'),
        ('passphrase_file = "passphrase"', 'url_file = "url"'),
    ):
        text = f'[kms]\ntype = "local"\npath = "root.keys"\n{kms}\n[key_store]\ntype = "sql"\n{store}\n'
        Vault.open(_written(tmp_path, text)).close()
    assert (tmp_path / "from_env.db").exists()
    assert (tmp_path / "from_file.db").exists()
    monkeypatch.setenv("SHOP_PASSPHRASE", "another")
    text = LEAST.replace("[key_store]", 'passphrase_env = "SHOP_PASSPHRASE"\n[key_store]')
    with pytest.raises(KMSDenied):
        Vault.open(_written(tmp_path, text))
    assert _refused(tmp_path, text.replace("passphrase_env", "# passphrase_env")).endswith(
        "wants a passphrase"
    )


class _Recorded(LocalKMS):
    """A KMS of somebody else's."""

    closed = 0

    def close(self) -> None:
        """Counted."""
        type(self).closed += 1


def _installed(monkeypatch: pytest.MonkeyPatch, **backends: str) -> None:
    points = [metadata.EntryPoint(name, value, "fieldvault.kms") for name, value in backends.items()]
    known = metadata.entry_points(group="fieldvault.key_stores")
    monkeypatch.setattr(
        settings, "entry_points", lambda group: points if group == "fieldvault.kms" else known
    )


def test_a_backend_of_others_is_found_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point; it is closed if the rest cannot be opened."""
    _installed(monkeypatch, theirs=f"{__name__}:_Recorded")
    text = LEAST.replace('"local"', '"theirs"')
    with Vault.open(_written(folder, text)) as vault:
        assert type(vault.kms).__name__ == "_Recorded"
    closed = type(vault.kms).closed  # type: ignore[attr-defined]
    _refused(folder, text.replace('"memory"', '"sql"\nurl = "sqlite://"'))
    assert type(vault.kms).closed == closed + 1  # type: ignore[attr-defined]


def test_a_backend_whose_vendor_is_not_installed_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the module that is missing."""
    _installed(monkeypatch, vendor="no_such_vendor.kms:VendorKMS")
    answer = _refused(folder, LEAST.replace('"local"', '"vendor"'))
    assert answer == (
        ", line 2: kms.type needs the module no_such_vendor, which is not installed; "
        "install fieldvault[vendor]"
    )


def test_a_backend_may_be_any_class_with_a_constructor_from_its_section(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes its members and complains of what it does not know."""
    taken: list[str] = []

    class Theirs(LocalKMS):
        @classmethod
        def from_config(cls, section: Section) -> "Theirs":
            taken.append(section.text("endpoint"))
            section.finish()
            return cls(folder / "root.keys")

    class Point:
        name = "theirs"

        def load(self) -> type[Theirs]:
            return Theirs

    known = metadata.entry_points(group="fieldvault.key_stores")
    monkeypatch.setattr(
        settings, "entry_points", lambda group: [Point()] if group == "fieldvault.kms" else known
    )
    text = LEAST.replace('"local"\npath = "root.keys"', '"theirs"\nendpoint = "https://kms.example"')
    Vault.open(_written(folder, text)).close()
    assert taken == ["https://kms.example"]
    assert _refused(folder, text + "[kms.more]\n").startswith(
        ", line 7: kms.more is not known; here can stand: endpoint, "
    )
