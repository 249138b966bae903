"""Errors that a user can cause; each message is one line that names the value and the way out."""


class LookmError(ValueError):
    """Wrong input: the command line prints its one line and exits with status 2."""


class BudgetError(LookmError, RuntimeError):
    """A cache holds something else than its strategy promises (a silent no-op included)."""
