"""Sign up and login."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from examples.shop.errors import EmailTaken, LoginFailed
from examples.shop.models import Customer
from examples.shop.passwords import hash_password, is_password
from examples.shop.services.service import Service


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SignUp:
    """What a customer fills in."""

    name: str
    email: str
    password: str
    phone: str | None = None
    birthday: date | None = None
    identity_number: str | None = None


class Accounts(Service):
    """Who the customers are."""

    async def sign_up(self, form: SignUp) -> Customer:
        """A new customer, who can log in at once.

        Raises:
            EmailTaken: there is one with this address, in whatever case it is written.
        """
        customer = Customer(
            tenant_id=self.tenant,
            name=form.name,
            email=form.email,
            phone=form.phone,
            birthday=form.birthday,
            identity_number=form.identity_number,
            password_hash=await hash_password(form.password),
        )
        self.session.add(customer)
        refused = None
        try:
            await self.session.flush()
        except IntegrityError as error:
            refused = error
        if refused is not None:
            # Raised here, where the database's own words, which may quote the address, do not hang on to it.
            raise EmailTaken if "email_index" in str(refused.orig) else refused
        return customer

    async def log_in(self, email: str, password: str) -> Customer:
        """The customer with this address and password.

        Raises:
            LoginFailed: there is none.
        """
        mine = Customer.tenant_id == self.tenant
        customer = await self.session.scalar(select(Customer).where(mine, Customer.email == email))
        if not await is_password(password, None if customer is None else customer.password_hash):
            raise LoginFailed
        assert customer is not None
        return customer
