"""Errors that a user can cause; each message is one line that names the value and the way out."""

from collections.abc import Collection


class LookmError(ValueError):
    """Wrong input: the command line prints its one line and exits with status 2."""


class BudgetError(LookmError, RuntimeError):
    """A cache holds something else than its strategy promises (a silent no-op included)."""


def check_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Raises LookmError for a value that is none of those allowed."""
    if value not in allowed:
        raise LookmError(f"unknown {name} {str(value)!r}; choose one of {', '.join(allowed)}")


def check_whole_number(name: str, value: object, least: int) -> None:
    """Raises LookmError for what is no whole number, or a smaller one than `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise LookmError(f"{name} must be a whole number of at least {least}, not {value!r}")


def message_of(error: BaseException) -> str:
    """What an exception says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
