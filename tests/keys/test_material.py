"""Data keys: their ids, their wrapping, and what is refused after unwrapping."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fieldvault.errors import KMSDenied, KMSError, KMSUnavailable
from fieldvault.keys.material import LocalWrapper, checked, key_context, key_id_of, new_record, unwrap_records
from fieldvault.keys.protocols import WrappedKey
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.kms import LocalKMS
from fieldvault.secret import Secret
from fieldvault.testing.fakes import FaultyKMS
from tests.keys.test_retrying import Miscounting

SUBJECT = KeySlot("acme", "alice")


@pytest.fixture
def wrapper() -> LocalWrapper:
    """Return what wraps subjects' keys."""
    return LocalWrapper(Secret(bytes(range(32))), b"w" * 16)


def test_a_new_record_is_active_and_names_its_key(local_kms: LocalKMS) -> None:
    """The id commits to the material; the maker's block counts as used."""
    before = datetime.now(UTC)
    record, secret = new_record(KeySlot("acme"), 3, local_kms, uses=7)
    assert record.key_id == key_id_of(secret)
    assert (record.version, record.state, record.uses, record.parent) == (3, KeyState.ACTIVE, 7, None)
    assert before <= record.created_at <= datetime.now(UTC)
    (answer,) = unwrap_records(local_kms, [record]).values()
    assert isinstance(answer, Secret)
    assert answer.reveal() == secret.reveal()


def test_every_key_is_another(local_kms: LocalKMS) -> None:
    """Keys are random."""
    made = {new_record(KeySlot("acme"), 1, local_kms, uses=0)[0].key_id for _ in range(100)}
    assert len(made) == 100


@pytest.mark.parametrize(
    ("slot", "context"),
    [
        (KeySlot("acme"), {"key_id": "61" * 16, "purpose": "data", "tenant": "acme"}),
        (KeySlot("acme", None, Purpose.WRAP), {"key_id": "61" * 16, "purpose": "wrap", "tenant": "acme"}),
        (SUBJECT, {"key_id": "61" * 16, "purpose": "data", "subject": "alice", "tenant": "acme"}),
    ],
)
def test_the_context_says_whose_key_it_is_and_what_for(slot: KeySlot, context: dict[str, str]) -> None:
    """As the format has it."""
    assert key_context(slot, b"a" * 16) == context


def test_a_subjects_key_opens_under_its_wrap_key(wrapper: LocalWrapper) -> None:
    """Locally, and only so."""
    record, secret = new_record(SUBJECT, 1, wrapper, uses=0)
    assert record.parent == wrapper.key_id
    assert wrapper.open(record).reveal() == secret.reveal()


@pytest.mark.parametrize(
    "moved",
    [
        {"tenant": "globex"},
        {"subject": "bob"},
        {"subject": None},
        {"purpose": Purpose.INDEX},
        {"key_id": b"k" * 16},
        {"wrapped": None},
        {"wrapped": b""},
        {"wrapped": b"\x01"},
        {"wrapped": b"\x01" + bytes(15)},
        {"wrapped": b"\x02" + bytes(48)},
    ],
)
def test_a_subjects_record_that_was_moved_or_changed_does_not_open(
    wrapper: LocalWrapper, moved: dict[str, Any]
) -> None:
    """The wrapping is bound to tenant, subject, purpose and key id."""
    record, _ = new_record(SUBJECT, 1, wrapper, uses=0)
    with pytest.raises(KMSError):
        wrapper.open(replace(record, **moved))


def test_every_byte_of_a_wrapped_key_counts(wrapper: LocalWrapper) -> None:
    """Any flipped bit is found out."""
    record, _ = new_record(SUBJECT, 1, wrapper, uses=0)
    wrapped = record.wrapped or b""
    for index in range(len(wrapped)):
        flipped = bytes((*wrapped[:index], wrapped[index] ^ 1, *wrapped[index + 1 :]))
        with pytest.raises(KMSError):
            wrapper.open(replace(record, wrapped=flipped))


def test_another_tenants_wrap_key_opens_nothing(wrapper: LocalWrapper) -> None:
    """Even where the record was pointed at it."""
    record, _ = new_record(SUBJECT, 1, wrapper, uses=0)
    with pytest.raises(KMSError):
        LocalWrapper(Secret(bytes(32)), wrapper.key_id).open(record)


@pytest.mark.parametrize("answer", [bytes(32), b"short", b"", bytes(33), None, "a" * 32])
def test_a_key_that_is_not_the_records_is_refused(local_kms: LocalKMS, answer: Any) -> None:
    """A KMS that answers with another key, or with no key at all, is found out."""
    record, _ = new_record(KeySlot("acme"), 1, local_kms, uses=0)
    with pytest.raises(KMSError, match="another key"):
        checked(record, answer)


def test_each_record_of_a_batch_has_its_own_outcome(local_kms: LocalKMS) -> None:
    """A good key, a lie and a denial in one call."""
    kms = FaultyKMS(local_kms)
    records = [new_record(KeySlot(tenant), 1, kms, uses=0)[0] for tenant in ("good", "lied", "denied")]
    kms.calls.clear()
    kms.lie(when=lambda context: context["tenant"] == "lied")
    kms.fail_items(KMSDenied("no"), when=lambda context: context["tenant"] == "denied")
    good, lied, denied = unwrap_records(kms, records).values()
    assert isinstance(good, Secret)
    assert type(lied) is KMSError
    assert type(denied) is KMSDenied
    assert len(kms.calls) == 1


def test_a_batch_of_another_size_is_refused(local_kms: LocalKMS) -> None:
    """Answers could have been shifted by one."""
    records: list[KeyRecord] = [new_record(KeySlot("acme"), 1, local_kms, uses=0)[0]]
    with pytest.raises(KMSError, match="0 of 1"):
        unwrap_records(Miscounting(local_kms), records)


_Answers = list[bytes | KMSError]
_LIES: dict[str, Callable[[_Answers], _Answers]] = {
    "in another order": lambda answers: answers[::-1],
    "one too few": lambda answers: answers[:-1],
    "one of another size": lambda answers: [answers[0], bytes(answers[1])[:-1], answers[2]],  # type: ignore[arg-type]
    "one unavailable": lambda answers: [answers[0], KMSUnavailable("throttled"), answers[2]],
}


class _Lying(LocalKMS):
    """Answers a batch as it is told to, in frames that have the keys in their locals."""

    lie: Callable[[_Answers], _Answers]

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """Answer otherwise."""
        answers = list(super().unwrap_many(items))
        told = self.lie(answers)
        if any(isinstance(answer, KMSUnavailable) for answer in told):
            self._raised(told, answers)
        return told

    @staticmethod
    def _raised(told: _Answers, answers: _Answers) -> None:  # noqa: ARG004 - a local, as in a real batch
        for number, answer in enumerate(told):
            try:
                if isinstance(answer, KMSError):
                    raise answer
            except KMSError as error:
                told[number] = error


@pytest.mark.parametrize("lie", _LIES)
def test_no_key_stands_in_the_traceback_of_what_is_handed_out(tmp_path: Path, lie: str) -> None:
    """Trackers of errors keep the locals of every frame; a batch's frames have all of its keys."""
    LocalKMS.create(tmp_path / "lying.keys").close()
    kms = _Lying(tmp_path / "lying.keys")
    made = [new_record(KeySlot(tenant), 1, kms, uses=0) for tenant in "abc"]
    kms.lie = _LIES[lie]
    told: list[Exception] = []
    try:
        outcome = unwrap_records(kms, [record for record, _ in made])
    except KMSError as error:
        told.append(error)
    else:
        told += [each for each in outcome.values() if isinstance(each, KMSError)]
    assert told
    for problem in told:
        report = traceback.TracebackException.from_exception(problem, capture_locals=True)
        assert not any(repr(secret.reveal()) in "".join(report.format()) for _, secret in made)
