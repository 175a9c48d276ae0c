"""Errors that a user can act on: what is wrong, with the value, and what to do, in one line."""


class ModelError(ValueError):
    """A model cannot be read: not there, damaged, of another kind or version."""


class DataError(ValueError):
    """Labelled texts cannot be used: a field or a class is missing, labels contradict each other."""
