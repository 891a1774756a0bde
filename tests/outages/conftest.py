"""What all laboratories of AWS find."""

import pytest
from botocore.loaders import Loader, create_loader
from botocore.session import Session, get_session

from tests.servers.moto import CREDENTIALS

pytest.register_assert_rewrite("tests.outages.playing")


@pytest.fixture(scope="session")
def loader() -> Loader:
    """The SDK's descriptions of services, which take longer to read than anything else about a client."""
    return create_loader()


@pytest.fixture(autouse=True)
def credentials(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """What AWS's standard chain finds, and nothing of this machine's."""

    def session() -> Session:
        opened = get_session()
        opened.register_component("data_loader", loader)
        return opened

    monkeypatch.setattr("fieldvault.aws.clients.get_session", session)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name.upper(), value)
