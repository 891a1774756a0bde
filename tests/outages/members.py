"""What can befall the members of a ``MultiKMS``: a ``TransitKMS`` on OpenBao, and behind it an ``AWSKMS``."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from fieldvault.kms import MultiKMS
from tests.outages.aws import AWSLab
from tests.outages.transit import TransitLab

_PLAYED: Mapping[str, Mapping[str, str]] = {
    "one_refused": {"first": "refused"},
    "one_refused_of_required": {"first": "refused"},
    "one_denied": {"first": "denied"},
    "one_deleted": {"first": "deleted"},
    "one_swapped": {"first": "swapped"},
    "all_refused": {"first": "refused", "second": "refused"},
    "refused_and_denied": {"first": "refused", "second": "denied"},
    "all_denied": {"first": "denied", "second": "denied"},
    "all_gone": {"first": "deleted", "second": "disabled"},
}
"""What befalls which member."""


class MembersLab:
    """Two members, each with a root key of its own and a proxy before its server."""

    def __init__(self, first: TransitLab, second: AWSLab, *, required: int) -> None:
        self._labs: Mapping[str, TransitLab | AWSLab] = {"first": first, "second": second}
        self._required = required

    def open(self) -> MultiKMS:
        """A process's KMS."""
        members = {name: lab.open() for name, lab in self._labs.items()}
        return MultiKMS(members, required=self._required)

    @contextmanager
    def failure(self, played: str) -> Iterator[None]:
        """What the table calls so."""
        with ExitStack() as stack:
            for name, each in _PLAYED[played].items():
                stack.enter_context(self._labs[name].failure(each))
            yield
