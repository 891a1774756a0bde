"""Two customers, and where they live."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from examples.shop.services.accounts import SignUp
from examples.shop.services.orders import Item, PostalAddress

PHRASE = "correct horse battery staple"
LI = SignUp(
    name="李雷",
    email="Li.Lei@Example.com",
    password=PHRASE,
    phone="+86 138-0013-8000",
    birthday=date(1990, 5, 17),
    identity_number="11010519491231002X",
)
ADA = replace(LI, name="Ada Lovelace", email="ada@example.net", phone="+44 20 7946 0958", birthday=None)
HOME = PostalAddress(recipient="李雷", street="南京西路1266号", city="上海", postcode="200040")
WORK = PostalAddress(recipient="Li Lei", street="Speicherstadt 12", city="Hamburg")
TEA = Item("Longjing tea, 250 g", 2, 1950)
CUP = Item("Cup", 1, 800)
NOTE = "leave it with the neighbour"

SECRETS = [
    "李雷", "Li.Lei", "li.lei", "138-0013-8000", "13800138000", "1990-05-17", "11010519491231002X",
    "南京西路1266号", "200040", "Speicherstadt", NOTE, "DE02 1203",
]  # fmt: skip
