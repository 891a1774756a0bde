"""A club whose members are looked up: by e-mail, by phone, by name and birthday together."""

import uuid
from datetime import date

from sqlalchemy import Date, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fieldvault import KeyScope
from fieldvault.search.normalize import last, phone
from fieldvault.sqlalchemy import BlindIndex, Encrypted


class Club(DeclarativeBase):
    pass


class Member(Club):
    """Each row has its member's keys; tokens are made under the club's index key."""

    __tablename__ = "members"
    __table_args__ = (UniqueConstraint("email_index", name="one_email"),)
    __vault__ = KeyScope(tenant="club", subject="id")
    id: Mapped[str] = mapped_column(String(64), primary_key=True, default=lambda: uuid.uuid4().hex)
    club: Mapped[str] = mapped_column(String(64))
    email: Mapped[str | None] = mapped_column(Encrypted(String(80)))
    email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="email"))
    mobile: Mapped[str | None] = mapped_column("phone", Encrypted(String(80), storage="text"))
    phone_index: Mapped[bytes | None] = mapped_column(BlindIndex("mobile", normalize=phone(country="86")))
    phone_end: Mapped[bytes | None] = mapped_column(BlindIndex("mobile", normalize=last(4)))
    name: Mapped[str | None] = mapped_column(Encrypted(String(80)))
    birthday: Mapped[date | None] = mapped_column(Encrypted(Date))
    who_index: Mapped[bytes | None] = mapped_column(
        BlindIndex(("name", "birthday"), normalize=("casefold", "exact"))
    )
    rank: Mapped[int] = mapped_column(default=0)


MEMBERS = Club.metadata.tables["members"]
