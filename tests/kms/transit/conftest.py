"""Transit keys of a test's own, and tokens that may do what the page says and no more."""

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fieldvault.kms import TransitKMS
from tests.servers.openbao import OpenBaoServer

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "kms" / "transit.md"


def documented_policy(title: str) -> str:
    """The policy that stands on the page under a heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n### {title}\n")[2]
    found = re.search(r"```hcl\n(.*?)```", section, re.DOTALL)
    assert found is not None, f"no policy under {title!r}"
    return found[1]


class Tenancy(NamedTuple):
    """A transit key of one test, and a policy that allows its use alone.

    The page's policies name the key ``fieldvault``; here they name this one.
    """

    server: OpenBaoServer
    key: str

    def policy(self, title: str) -> str:
        """Apply a policy of the page for this key; its name."""
        name = f"{self.key}-{title.lower().replace(' ', '-')}"
        text = documented_policy(title)
        assert "fieldvault" in text
        self.server.admin.sys.create_or_update_policy(name, text.replace("fieldvault", self.key))
        return name

    def token(self, *titles: str, **options: object) -> str:
        """A token with policies of the page."""
        policies = [self.policy(title) for title in titles or ("The application",)]
        made = self.server.admin.auth.token.create(policies=policies, **options)
        return str(made["auth"]["client_token"])

    def create(self, name: str | None = None, *, derived: bool = True) -> None:
        """Make the transit key as the page says."""
        self.server.admin.secrets.transit.create_key(
            name or self.key, key_type="aes256-gcm96", derived=derived
        )


@pytest.fixture
def tenancy(openbao_server: OpenBaoServer) -> Tenancy:
    """A key of this test's own, made as the page says."""
    made = Tenancy(openbao_server, f"k{secrets.token_hex(6)}")
    made.create()
    return made


@pytest.fixture
def open_kms(tenancy: Tenancy) -> Iterator[Callable[..., TransitKMS]]:
    """Opens the KMS of the test's key, with a token of the page's policy where no other way in is named."""
    opened = []

    def open_one(**options: object) -> TransitKMS:
        if not {"token", "auth"} & options.keys():
            options["token"] = tenancy.token()
        options = {"url": tenancy.server.url, "key": tenancy.key, **options}
        opened.append(TransitKMS(**options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()
