"""Advice on the length of a truncated blind index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fieldvault.errors import ConfigurationError
from fieldvault.search.tokens import MAX_BITS

__all__ = ["MAX_ROWS", "Advice", "plan"]

MAX_ROWS = 2**62
"""More rows than any table has."""


@dataclass(frozen=True, slots=True)
class Advice:
    """The lengths in bits, ``least`` to ``most``, that suit one more index of a field; ``None``: none does.

    The rule is that of CipherSweet's planner (https://ciphersweet.paragonie.com/php/blind-index-planning): of
    ``rows`` rows, at least 2 and at most sqrt(rows) should be expected to agree in a token by chance. With
    fewer, a thief knows that rows which agree have the same value; with more, the index is useless.
    ``existing`` are the bits of the indexes that the field has already: a thief reads all of them together.
    ``values`` is the number of distinct values of the field, ``None`` where it is large; where there are more
    tokens than values, a token names its value.

    It counts on values that are equally frequent. Where they are not, the frequent ones show at any length.
    """

    rows: int
    existing: tuple[int, ...]
    values: int | None
    least: int | None
    most: int | None

    def coincidences(self, bits: int) -> float:
        """The rows that agree, on average, with one in the tokens of all indexes, the new one with ``bits``.

        However many the indexes, they tell apart no more values than there are.
        """
        classes = 1 << (sum(self.existing) + bits)
        return self.rows / (classes if self.values is None else min(classes, self.values))

    def alone(self, bits: int) -> float | None:
        """The share, 0 to 1, of values that share their tokens with no other; ``None`` without ``values``."""
        if self.values is None:
            return None
        return math.exp((self.values - 1) * math.log1p(-(0.5 ** (sum(self.existing) + bits))))

    def verdict(self, bits: int) -> str:
        """What speaks against a length, or ``fits``."""
        found = self.coincidences(bits)
        if found < 2:
            return "proves that rows agree"
        if self.values is not None and 1 << (sum(self.existing) + bits) > self.values:
            return "names the value"
        return "finds too much" if found * found > self.rows else "fits"

    def lengths(self) -> list[int]:
        """The lengths worth showing: those that suit with their neighbours, or some; and the full one."""
        if self.least is None or self.most is None:
            return [1, 2, 4, 8, 16, 32, MAX_BITS]
        return [*range(max(1, self.least - 1), min(self.most + 2, MAX_BITS)), MAX_BITS]

    def summary(self) -> str:
        """What to do, in some sentences for a person."""
        if self.least is not None and self.most is not None:
            span = str(self.least) if self.least == self.most else f"{self.least} to {self.most}"
            return (
                f"Take {span} bits. More bits find less beside what is sought, and tell a thief more."
                f"{self._doubt()}"
            )
        if self.values is not None and self.values * self.values < self.rows:
            return (
                f"No length suits: of {self.values} values each has 1 row in {self.values}, whatever the "
                f"length, and how many rows share a token tells which value it is. Index the field together "
                f"with another one, or not at all."
            )
        if self.existing:
            return (
                "No length suits beside the indexes that the field has already: shorten or drop one of "
                "those, or index the field together with another one."
            )
        return (
            "No length suits: with so few rows or values a token either finds too much or proves that rows "
            "agree. Search by decrypting the rows, or take a full-length index and know what it tells."
        )

    def _doubt(self) -> str:
        alone = None if self.least is None else self.alone(self.least)
        if alone is None:
            return ""
        return (
            f" At {self.least} bits {1 - alone:.0%} of the values share their token with another one, which "
            f"hides the rare ones; a frequent one shows all the same."
        )


def plan(rows: int, *, existing: Sequence[int] = (), values: int | None = None) -> Advice:
    """Advice for one more index of a field; see ``Advice``.

    Raises:
        ConfigurationError: no rows or values, too many, or a length that no index has.
    """
    for name, given in (("rows", rows), ("values", rows if values is None else values)):
        if type(given) is not int or not 1 <= given <= MAX_ROWS:
            raise ConfigurationError(
                f"give the number of {name} as a whole number from 1 to 2**62; count those that you expect"
            )
    if any(type(bits) is not int or not 1 <= bits <= MAX_BITS for bits in existing):
        raise ConfigurationError(f"give the length of each index that there is in bits, 1 to {MAX_BITS}")
    used = sum(existing)
    # The smallest length with rows / 2**length <= sqrt(rows), the largest with rows / 2**length >= 2.
    least: int | None = max(1, ((rows - 1).bit_length() + 1) // 2 - used)
    most: int | None = rows.bit_length() - 2 - used
    if values is not None:
        most = min(rows.bit_length() - 2, values.bit_length() - 1) - used
    if least is None or most is None or most < least:
        least = most = None
    return Advice(rows, tuple(existing), values, least, most)
