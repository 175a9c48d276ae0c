"""Errors a user can act on."""


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, with the value, and what to do; no stack trace is shown."""
