"""What the services refuse, in words for the customer."""

from __future__ import annotations


class ShopError(Exception):
    """Base of the errors of the shop."""


class EmailTaken(ShopError):
    """The tenant already has a customer with this e-mail address."""

    def __init__(self) -> None:
        super().__init__("there is an account with this e-mail address already")


class LoginFailed(ShopError):
    """No such customer, or another password: which of them is not told."""

    def __init__(self) -> None:
        super().__init__("the e-mail address or the password is wrong")


class NotFound(ShopError):
    """The tenant has no such customer."""

    def __init__(self) -> None:
        super().__init__("there is no such customer")
