"""Wrapping a key anew by its members: who may wrap and not unwrap here cannot prove anything."""

from collections.abc import Sequence

from fieldvault.errors import KMSDenied, KMSError
from fieldvault.keys.protocols import WrappedKey
from fieldvault.kms import MultiKMS
from fieldvault.kms.multi.container import Container
from fieldvault.testing.fakes import FaultyKMS

KEY = bytes(range(32))
CONTEXT = {"tenant": "a"}


class WrapsOnly(FaultyKMS):
    """A recovery key whose private half is in the safe."""

    def unwrap_many(self, items: Sequence[WrappedKey]) -> Sequence[bytes | KMSError]:
        """See ``KMS.unwrap_many``."""
        return [KMSDenied("the private key is not here") for _ in items]


def test_an_unproved_part_is_taken_where_there_was_none(east: FaultyKMS, west: FaultyKMS) -> None:
    """Better than no way back, and it is told."""
    wrapped = MultiKMS({"east": east}).wrap(KEY, context=CONTEXT)
    multi = MultiKMS({"east": east, "west": WrapsOnly(west)})
    again, missed = multi.rewrap_by_member(wrapped, context=CONTEXT, every=False)
    assert list(missed) == ["west"]
    assert type(missed["west"]) is KMSDenied
    assert str(missed["west"]).startswith("wrapped it, and may not unwrap it to prove that: ")
    assert MultiKMS({"west": west}).unwrap(again, context=CONTEXT) == KEY
    assert multi.is_current(again, context=CONTEXT)


def test_an_unproved_part_takes_no_other_one_s_place(east: FaultyKMS, west: FaultyKMS) -> None:
    """What was there may be good, and nobody knows of the new one."""
    wrapped = MultiKMS({"east": east, "west": west}).wrap(KEY, context=CONTEXT)
    multi = MultiKMS({"east": east, "west": WrapsOnly(east)})
    again, missed = multi.rewrap_by_member(wrapped, context=CONTEXT, every=True)
    assert list(missed) == ["west"]
    assert Container.parse(again).parts["west"] == Container.parse(wrapped).parts["west"]


def test_a_part_that_opens_into_nothing_is_not_taken(east: FaultyKMS, west: FaultyKMS) -> None:
    """Though the member had none before."""
    wrapped = MultiKMS({"east": east}).wrap(KEY, context=CONTEXT)
    west.fail_items(KMSError("changed"))
    multi = MultiKMS({"east": east, "west": west}, required=1)
    again, missed = multi.rewrap_by_member(wrapped, context=CONTEXT, every=False)
    assert list(Container.parse(again).parts) == ["east"]
    assert str(missed["west"]) == "changed"
