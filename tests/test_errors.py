"""One tree of errors, as drawn, that travels between processes and past SQLAlchemy unharmed."""

import ast
import copy
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import LargeBinary, TypeDecorator, create_engine, literal, select
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DontWrapMixin

from fieldvault import errors

SOURCE = Path(errors.__file__).parent
CLASSES = [getattr(errors, name) for name in errors.__all__]


def drawn() -> Iterator[tuple[str, str | None]]:
    """Each class of the drawing at the top of the module, with its parent."""
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│├└─ ]{4})*)([A-Za-z]+)(?:  |$)", line)
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            yield match[2], above[depth - 1] if depth else None


def example(cls: type[errors.FieldVaultError]) -> errors.FieldVaultError:
    """An error of a class, with a message where the class takes one."""
    return cls() if cls is errors.DecryptionError else cls(f"what happened to {cls.__name__}")


def test_the_drawn_tree_is_the_real_one() -> None:
    """Every class is in the drawing, under its real parent, and nothing else is."""
    real = {cls.__name__: cls.__base__.__name__ for cls in CLASSES if cls is not errors.FieldVaultError}
    assert dict(drawn()) == {"FieldVaultError": None, **real}


@pytest.mark.parametrize("cls", CLASSES)
def test_what_a_backend_derives_from_an_error_is_told_by_its_name(cls: type[errors.FieldVaultError]) -> None:
    """Whoever counts errors, or waits for one by its name, finds the names of this module alone."""

    class Derived(cls):  # type: ignore[misc,valid-type]  # whatever it is
        pass

    derived = Derived() if cls is errors.DecryptionError else Derived("what happened")
    assert errors.kind_of(derived) == errors.kind_of(example(cls)) == cls.__name__
    assert errors.kind_of(TimeoutError()) == "TimeoutError"


def test_all_names_every_class_of_the_module() -> None:
    """No error hides from a star import or from these tests."""
    own = {
        name for name, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__
    }
    assert own == set(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_pickling_and_copying(cls: type[errors.FieldVaultError]) -> None:
    """Class and message come back, whatever the protocol: worker pools send errors home this way."""
    error = example(cls)
    pickled = [pickle.dumps(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    travelled = [pickle.loads(blob) for blob in pickled]  # noqa: S301 - pickled one line above
    for found in (*travelled, copy.copy(error), copy.deepcopy(error)):
        assert type(found) is cls
        assert str(found) == str(error)
        assert found.args == error.args


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_passes_through_sqlalchemy_unwrapped(cls: type[errors.FieldVaultError]) -> None:
    """Raised while a statement is bound, it arrives as itself, and not in one that quotes the parameters."""
    error = example(cls)

    class Failing(TypeDecorator[bytes]):
        impl = LargeBinary
        cache_ok = True

        def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes:  # noqa: ARG002
            raise error

    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(errors.FieldVaultError) as caught:
        connection.execute(select(literal(b"plaintext", Failing())))
    engine.dispose()
    assert caught.value is error
    assert isinstance(error, DontWrapMixin)
    assert "plaintext" not in str(caught.value)


def test_every_failed_authentication_has_the_same_message() -> None:
    """The class takes no message, so no place that raises it can say more than another."""
    assert str(errors.DecryptionError()) == str(errors.DecryptionError())
    assert "could not be authenticated" in str(errors.DecryptionError())
    assert list(inspect.signature(errors.DecryptionError).parameters) == []


def test_an_unknown_key_is_a_failed_decryption_with_a_message_of_its_own() -> None:
    """Whoever catches failed decryptions catches it too: a changed key id names a key that is not there."""
    error = errors.KeyNotFound("the key store has no such key")
    assert isinstance(error, errors.DecryptionError)
    assert str(error) == "the key store has no such key"


def test_a_shredded_scope_is_named_in_full() -> None:
    """The message says whose keys are gone: a tenant's, or one subject's."""
    assert str(errors.KeyShredded.of_scope("acme", None)).startswith("tenant 'acme' was shredded")
    assert str(errors.KeyShredded.of_scope("acme", "42")).startswith(
        "subject '42' of tenant 'acme' was shredded"
    )


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SOURCE.rglob("*.py")) if SOURCE / "cli" not in path.parents],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_no_module_raises_while_it_handles_another_error(path: Path) -> None:
    """A new error raised inside ``except`` would carry the old one, and what that quotes, in its context.

    Handlers may raise again what they caught. The command line handles no values, and is free.
    """
    guilty = [
        f"{path.name}:{raised.lineno}"
        for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(handler, ast.ExceptHandler)
        for raised in ast.walk(handler)
        if isinstance(raised, ast.Raise) and raised.exc is not None
    ]
    assert guilty == []
