"""``fieldvault index``: planning blind indexes, and rotating their keys."""

from __future__ import annotations

import click

from fieldvault.cli.commands.index_rotation import drop, rebuild, rotate, status
from fieldvault.cli.options import everywhere
from fieldvault.cli.terminal import Listing, Terminal
from fieldvault.search.advice import MAX_ROWS, Advice
from fieldvault.search.advice import plan as advise
from fieldvault.search.tokens import MAX_BITS

__all__ = ["index"]


@click.group()
@everywhere
def index() -> None:
    """Plan blind indexes, and rotate their keys."""


for _command in (rotate, status, rebuild, drop):
    index.add_command(_command)


@index.command()
@everywhere
@click.option(
    "--rows",
    metavar="N",
    type=click.IntRange(1, MAX_ROWS),
    required=True,
    help="The rows that one tenant will have, at most.",
)
@click.option(
    "--index",
    "existing",
    metavar="BITS",
    type=click.IntRange(1, MAX_BITS),
    multiple=True,
    help="The length of an index that the field has already; may be repeated.",
)
@click.option(
    "--values",
    metavar="V",
    type=click.IntRange(1, MAX_ROWS),
    help="The distinct values that the field can have, where those are few.",
)
@click.pass_obj
def plan(terminal: Terminal, rows: int, existing: tuple[int, ...], values: int | None) -> None:
    """Advise how many bits a truncated blind index should have.

    Of N rows, at least 2 and at most sqrt(N) should agree in a token by chance. Opens no vault. What each
    kind of index tells a thief of the database is in docs/search.md.
    """
    advice = advise(rows, existing=existing, values=values)
    terminal.emit(
        {
            "rows": rows,
            "existing_bits": list(existing),
            "values": values,
            "least_bits": advice.least,
            "most_bits": advice.most,
            "lengths": [
                {
                    "bits": bits,
                    "coincidences": advice.coincidences(bits),
                    "values_alone": advice.alone(bits),
                    "verdict": advice.verdict(bits),
                }
                for bits in advice.lengths()
            ],
            "advice": advice.summary(),
        },
        _table(advice),
        advice.summary(),
    )


def _table(advice: Advice) -> Listing:
    heads = ("BITS", "ROWS A TOKEN", "VALUES THAT STAND ALONE", "VERDICT")
    rows = [
        (
            str(bits),
            _count(advice.coincidences(bits)),
            _share(advice.alone(bits)),
            advice.verdict(bits),
        )
        for bits in advice.lengths()
    ]
    if advice.values is None:
        return Listing((*heads[:2], heads[3]), [(*row[:2], row[3]) for row in rows])
    return Listing(heads, rows)


def _count(number: float) -> str:
    """A number for a person: one decimal where that says something."""
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
