"""A platform with two shops: what the application reads, what the database holds, and what shredding leaves.

Everything happens in a new folder under the system's temporary folder. Its name is printed, and it stays for
you to look at.
"""

from __future__ import annotations

import io
import sys
import tempfile
import uuid
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import Date, Engine, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fieldvault import ErasureReceipt, KeyScope, Vault
from fieldvault.errors import DecryptionError
from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import Encrypted, protect


class Base(DeclarativeBase):
    """Every model of the platform."""


class Customer(Base):
    """A customer of one of the shops; each has keys of their own, under their shop's."""

    __tablename__ = "customers"
    __vault__ = KeyScope(tenant="shop", subject="id")

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    shop: Mapped[str]
    name: Mapped[str | None] = mapped_column(Encrypted(String(80)))
    phone: Mapped[str | None] = mapped_column(Encrypted(String(32)))
    address: Mapped[str | None] = mapped_column(Encrypted(String(200)))
    identity_number: Mapped[str | None] = mapped_column(Encrypted(String(18), storage="text"))
    birthday: Mapped[date | None] = mapped_column(Encrypted(Date))


YUNSHANG, LUMIERE = "云裳阁", "maison-lumière"
FIELDS = ("name", "phone", "address", "identity_number", "birthday")
CUSTOMERS = [
    (
        YUNSHANG,
        "王秀英",
        "+86 138 0013 8000",
        "上海市静安区南京西路1266号",
        "31010619900307002X",
        date(1990, 3, 7),
    ),
    (
        YUNSHANG,
        "李强",
        "+86 139 1234 5678",
        "成都市锦江区春熙路8号",
        "510104198811120031",
        date(1988, 11, 12),
    ),
    (
        YUNSHANG,
        "古丽娜尔",
        "+86 991 282 3456",
        "乌鲁木齐市天山区解放南路46号",
        "650102199506154021",
        date(1995, 6, 15),
    ),
    (
        LUMIERE,
        "Zoé Lefèvre",
        "+33 1 42 68 53 00",
        "12 rue de l’Abbé-Grégoire, Paris",
        None,
        date(1979, 2, 28),
    ),
    (
        LUMIERE,
        "Jürgen Weiß",
        "+49 30 901820",
        "Straße des 17. Juni 135, Berlin",
        "L01X00T471",
        date(1964, 8, 3),
    ),
    (LUMIERE, "Łucja Wiśniewska", "+48 22 595 88 00", "ul. Świętokrzyska 14, Warszawa", None, None),
]
PERSONAL = [text for row in CUSTOMERS for text in row[1:5] if text is not None]


class Story:
    """The demo's steps, in order; no line of it is wider than 80 columns."""

    def __init__(self, folder: Path) -> None:
        self.console = Console(highlight=False)
        self.folder = folder
        self.database = folder / "shop.db"
        self.engine: Engine = create_engine(f"sqlite:///{self.database}")
        self.vault = Vault(
            kms=LocalKMS.create(folder / "root.keys"),
            key_store=SQLKeyStore(f"sqlite:///{folder / 'keys.db'}"),
        )
        Base.metadata.create_all(self.engine)
        protect(Base, self.vault)

    def tell(self) -> None:
        """Run the whole story."""
        self.heading("Two shops take in six customers")
        self.console.print(
            f"In {self.folder}:\n  shop.db (the shops), keys.db (wrapped keys), root.keys (the root key)\n",
            soft_wrap=True,
        )
        with Session(self.engine) as session:
            session.add_all(
                Customer(shop=row[0], **dict(zip(FIELDS, row[1:], strict=True))) for row in CUSTOMERS
            )
            session.commit()
        self.show_application()
        self.show_file()

        self.heading("Somebody changes one bit in the file")
        customer = self.find(YUNSHANG, "王秀英")
        self.show_tampering(customer)

        self.heading(f"The data key of {YUNSHANG} and of one of its customers are rotated")
        self.vault.encrypt("opening hours", field="shops.notice", tenant=YUNSHANG)
        for subject in (None, str(customer)):
            fresh = self.vault.rotate(YUNSHANG, subject)
            self.console.print(
                f"  {'the customer' if subject else 'the shop'}: version {fresh.version} is active now"
            )
        self.console.print(f"  What the older keys sealed is still read: {self.name_of(customer)}\n")

        self.heading("One customer asks to be forgotten")
        self.show_receipt(
            self.vault.shred(YUNSHANG, str(customer), actor="dpo@example.com", reason="erasure request 17")
        )
        self.show_application()

        self.heading(f"{LUMIERE} leaves the platform")
        self.show_receipt(self.vault.shred(LUMIERE, actor="ops@example.com", reason="contract ended"))
        self.show_application()

        self.heading("What is left")
        self.show_keys()
        self.show_file()
        self.vault.close()
        self.engine.dispose()

    def heading(self, text: str) -> None:
        """A rule with a title."""
        self.console.rule(f"[bold]{text}", align="left")

    def find(self, shop: str, name: str) -> uuid.UUID:
        """The id of a customer; names are compared here, because the database cannot."""
        with Session(self.engine) as session:
            return next(
                each.id
                for each in session.scalars(select(Customer).filter_by(shop=shop))
                if each.name == name
            )

    def name_of(self, customer: uuid.UUID) -> str | None:
        """The name as the application reads it."""
        with Session(self.engine) as session:
            return session.get_one(Customer, customer).name

    def show_application(self) -> None:
        """What the application reads; what was shredded reads as None."""
        table = _table("shop", "name\nidentity number", "phone\naddress", "birthday")
        with Session(self.engine) as session:
            for customer in session.scalars(select(Customer).order_by(Customer.shop.desc())):
                read = {
                    field: "–" if getattr(customer, field) is None else str(getattr(customer, field))
                    for field in FIELDS
                }
                table.add_row(
                    customer.shop,
                    f"{read['name']}\n{read['identity_number']}",
                    f"{read['phone']}\n{read['address']}",
                    read["birthday"],
                )
        self.console.print("The application reads")
        self.console.print(table)
        self.console.print()

    def show_file(self) -> None:
        """What someone finds who takes the database's file."""
        content = self.database.read_bytes()
        found = sum(text.encode() in content for text in PERSONAL)
        self.console.print(
            f"The file shop.db: {len(PERSONAL)} names, phones, addresses and numbers looked for, "
            f"{found} found."
        )
        query = "SELECT shop, name, identity_number FROM customers WHERE identity_number IS NOT NULL LIMIT 1"
        with self.engine.connect() as connection:
            shop, name, number = connection.exec_driver_sql(query).one()
        self.console.print(f"  a row as it lies there: {shop} | {name.hex()[:14]}… | {number[:24]}…\n")

    def show_tampering(self, customer: uuid.UUID) -> None:
        """What becomes of a ciphertext that was changed; afterwards it is as it was."""
        read, write = (
            "SELECT name FROM customers WHERE id = ?",
            "UPDATE customers SET name = ? WHERE id = ?",
        )
        with self.engine.begin() as connection:
            sealed = connection.exec_driver_sql(read, (customer.hex,)).scalar_one()
            connection.exec_driver_sql(write, (sealed[:-1] + bytes([sealed[-1] ^ 1]), customer.hex))
        try:
            answer = f"read all the same: {self.name_of(customer)}"
        except DecryptionError as error:
            answer = f"refused: {type(error).__name__}"
        with self.engine.begin() as connection:
            connection.exec_driver_sql(write, (sealed, customer.hex))
        self.console.print(f"  The changed name is {answer}.")
        self.console.print(f"  With the bit set right again: {self.name_of(customer)}\n")

    def show_receipt(self, receipt: ErasureReceipt) -> None:
        """What a shred answers."""
        number = len(receipt.key_ids)
        self.console.print(
            f"  {number} {'key' if number == 1 else 'keys'} destroyed for “{receipt.reason}”, "
            f"asked by {receipt.actor};\n"
            f"  no process reads on after {receipt.unreadable_after:%H:%M:%S} UTC\n"
        )

    def show_keys(self) -> None:
        """The keys of both shops, by state."""
        table = _table("shop", "whose", "purpose", "version", "state")
        for tenant in self.vault.tenants():
            for key in self.vault.keys(tenant):
                whose = "the shop" if key.subject is None else f"customer {key.subject[:8]}…"
                table.add_row(tenant, whose, key.purpose, str(key.version), key.state)
        self.console.print("The key store holds")
        self.console.print(table)
        self.console.print(
            "  A customer's key of a shredded shop keeps its state:\n"
            "  the shop's wrap key, which opens it, is gone.\n"
        )


def _table(*heads: str) -> Table:
    """A table without lines, which leaves the columns to the values."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table


def main() -> None:
    """Tell the story in a new folder."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of people and shops have letters that not every terminal's encoding has.
        sys.stdout.reconfigure(errors="replace")
    Story(Path(tempfile.mkdtemp(prefix="fieldvault-demo-"))).tell()


if __name__ == "__main__":
    main()
