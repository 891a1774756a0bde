"""What comes between a client and the server: who counts calls, and who spoils them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: object) -> list[bytes]:
        """As urllib3 does."""
        return [self._body]


@contextmanager
def hooked(client: Any, event: str, hook: Callable[..., object]) -> Iterator[None]:
    """Have the hook asked at an event of the client for the length of a block."""
    client.meta.events.register(event, hook)
    try:
        yield
    finally:
        client.meta.events.unregister(event, hook)


@contextmanager
def counted(client: Any) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The calls that are made within a block, with their parameters."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def note(params: dict[str, Any], model: Any, **_: object) -> None:
        calls.append((model.name, params))

    with hooked(client, "before-parameter-build.dynamodb", note):
        yield calls


@contextmanager
def answering(client: Any, operation: str, code: str, times: int, status: int = 400) -> Iterator[list[int]]:
    """The first calls of an operation are answered with an error and do not reach the server."""
    done: list[int] = []

    def answer(**_: object) -> AWSResponse | None:
        if len(done) >= times:
            return None
        done.append(1)
        body = json.dumps({"__type": code}).encode()
        return AWSResponse("http://dynamodb", status, {}, _Raw(body))

    with hooked(client, f"before-send.dynamodb.{operation}", answer):
        yield done


@contextmanager
def losing_answers(client: Any, operation: str, times: int) -> Iterator[None]:
    """The first calls of an operation are done by the server, and their answers never arrive."""
    session = URLLib3Session()
    done: list[object] = []

    def lose(request: Any, **_: object) -> None:
        if len(done) < times:
            done.append(session.send(request))
            raise ConnectionClosedError(endpoint_url=request.url, request=request)

    with hooked(client, f"before-send.dynamodb.{operation}", lose):
        yield
    session.close()


@contextmanager
def meanwhile(client: Any, operation: str, nth: int, work: Callable[[], object]) -> Iterator[None]:
    """Have the work done just before the n-th call of an operation is sent; calls of its own do not count."""
    sent: list[int] = []

    def interfere(**_: object) -> None:
        sent.append(1)
        if len(sent) == nth:
            work()

    with hooked(client, f"before-send.dynamodb.{operation}", interfere):
        yield
    assert len(sent) >= nth
