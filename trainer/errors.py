"""Errors a user can act on."""


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, with the value, and what to do; no stack trace is shown.

    `everywhere`: every rank raises the same at the same place, so that one of them speaks for all.
    """

    def __init__(self, message: str, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere
