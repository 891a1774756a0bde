"""Binding: contexts that something between here and the root key may take for one another."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Mapping

from fieldvault.errors import KMSError, KMSUnavailable
from fieldvault.keys.protocols import KMS, WrappedKey
from fieldvault.testing.promises.kms.samples import CONTEXT

__all__ = ["BindingPromises"]

Context = Mapping[str, str]

_ALIKE: Mapping[str, tuple[str, str]] = {
    "in a script that is no ASCII": ("\u5546\u5e97", "\u5ba2\u6237"),
    "in no script at all": ("\U0001f511", "\U0001f512"),
    "composed and decomposed": ("caf\u00e9", "cafe\u0301"),
    "of wide and narrow letters": ("\uff41cme", "acme"),
    "in capitals of another script": ("\u0416", "\u0436"),
    "with a space before": (" acme", "acme"),
    "with a space behind": ("acme ", "acme"),
    "with two spaces": ("a  b", "a b"),
    "with an invisible letter": ("acme\u200b", "acme"),
    "of which the last letter differs": ("x" * 254 + "a", "x" * 254 + "b"),
    "of which the last letter of three bytes differs": ("\u5e97" * 84 + "\u4e00", "\u5e97" * 84 + "\u4e8c"),
    "of which the first letter differs": ("a" + "x" * 254, "b" + "x" * 254),
    "with an escape for a URL": ("a%20b", "a b"),
    "with a plus": ("a+b", "a b"),
    "with an escape for JSON": ("\\u0041cme", "Acme"),
    "that are numbers": ("01", "1"),
}
"""Names that are two to the vault."""

_JOINTS = ["&=", ",=", ";=", "|=", " =", ",:", ";:", "::", "||", "//", "--", "__", "=="]
_QUOTED = ['","zone":"', '", "zone": "', "', 'zone': '", "}{zone}{"]


class BindingPromises:
    """Every name and value of a context, by itself, for one wrapped key and for many."""

    def test_contexts_that_look_alike_are_told_apart(self, kms: KMS, key: bytes) -> None:
        """Nothing folds, cuts, trims or decodes them, neither in ``unwrap`` nor in ``unwrap_many``."""
        pairs: dict[str, tuple[Context, Context]] = {}
        for names, (one, other) in _ALIKE.items():
            pairs[f"tenants {names}"] = {**CONTEXT, "tenant": one}, {**CONTEXT, "tenant": other}
        for member, one, other in (
            ("key_id", "00" * 16, "00" * 15 + "01"),
            ("purpose", "data", "index"),
            ("tenant", "acme", "globex"),
            ("subject", "ann", "bob"),
            ("subject", "\u5f20\u4f1f", "\u738b\u82b3"),
        ):
            pairs[f"another {member} than {one}"] = {**CONTEXT, member: one}, {**CONTEXT, member: other}
        pairs["tenant and subject exchanged"] = (
            {**CONTEXT, "tenant": "acme", "subject": "ann"},
            {**CONTEXT, "tenant": "ann", "subject": "acme"},
        )
        wrapped = {name: kms.wrap(key, context=one) for name, (one, _) in pairs.items()}
        assert _opened(kms, {name: (wrapped[name], other) for name, (_, other) in pairs.items()}) == set()
        right = [WrappedKey(wrapped[name], one) for name, (one, _) in pairs.items()]
        assert list(kms.unwrap_many(right)) == [key] * len(right)

    def test_a_value_does_not_run_over_into_the_next_name(self, kms: KMS, key: bytes) -> None:
        """Whatever names and values are joined by."""
        wrapped = kms.wrap(key, context={**CONTEXT, "zone": "b"})
        joined = [f"{joint[0]}zone{joint[1]}" for joint in _JOINTS] + _QUOTED
        tries = {each: (wrapped, {**CONTEXT, "tenant": f"acme{each}b"}) for each in joined}
        assert _opened(kms, tries) == set()


def _opened(kms: KMS, tries: Mapping[str, tuple[bytes, Context]]) -> set[str]:
    """The names of those that were opened, or told as an outage, one by one or all at once."""
    opened = {name for name, (wrapped, context) in tries.items() if not _refused(kms, wrapped, context)}
    items = [WrappedKey(wrapped, context) for wrapped, context in tries.values()]
    answers = zip(tries, kms.unwrap_many(items), strict=True)
    return opened | {name for name, answer in answers if not _is_refusal(answer)}


def _refused(kms: KMS, wrapped: bytes, context: Context) -> bool:
    try:
        kms.unwrap(wrapped, context=context)
    except KMSError as error:
        return _is_refusal(error)
    return False


def _is_refusal(answer: bytes | KMSError) -> bool:
    return isinstance(answer, KMSError) and not isinstance(answer, KMSUnavailable)
