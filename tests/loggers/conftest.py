"""A finished run of the random model on the small benchmark, and loggers that write below a temporary folder."""

from tests.runner.conftest import settings_of

__all__ = ["settings_of"]
