"""What single steps of the hot path cost by themselves, beside a floor; they explain the rows above them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.measure import Call, interleaved
from benchmarks.report import Row, ratio_row
from fieldvault.context import associated_data
from fieldvault.envelope import HEADER_SIZE, NONCE_SIZES, header
from fieldvault.keys.clock import boot_clock
from fieldvault.suites import AES_256_GCM

__all__ = ["part_rows"]

SECTION = "Steps by themselves"
OPEN_FLOOR = "bare AESGCM.decrypt: the floor of opening"


def part_rows(*, rounds: int, calls: int) -> Iterator[Row]:
    """The rows for single steps, each called as every other candidate is."""
    samples = interleaved(_steps(), rounds=rounds, calls=calls)
    for name, sample in samples.items():
        yield ratio_row(SECTION, name, sample, samples[OPEN_FLOOR], unit="× open floor")


def _steps() -> dict[str, Call]:
    aead = AESGCM(AESGCM.generate_key(256))
    random, clock = os.urandom, boot_clock()
    front = header(AES_256_GCM.number, 1, random(16))
    nonce, value = random(12), random(32)
    bound = associated_data(front, tenant="acme", field="customers.email", subject=None)
    free_sealed, bound_sealed = aead.encrypt(nonce, value, None), aead.encrypt(nonce, value, bound)
    end = HEADER_SIZE + NONCE_SIZES[AES_256_GCM.number]
    blob = front + nonce + bound_sealed
    keys = {random(HEADER_SIZE): None for _ in range(1_000)} | {front: None}
    text = b"0123456789abcdef0123456789abcdef"
    return {
        OPEN_FLOOR: lambda: aead.decrypt(nonce, free_sealed, None),
        "the same with associated data": lambda: aead.decrypt(nonce, bound_sealed, bound),
        "an empty function": lambda: None,
        "cutting a ciphertext in three": lambda: (blob[:HEADER_SIZE], blob[HEADER_SIZE:end], blob[end:]),
        "looking a key up by header": lambda: keys[blob[:HEADER_SIZE]],
        "reading CLOCK_BOOTTIME": lambda: clock(),  # noqa: PLW0108 - called as all others are
        "bytes to text": lambda: text.decode(),  # noqa: PLW0108
        "os.urandom(12)": lambda: random(12),
    }
