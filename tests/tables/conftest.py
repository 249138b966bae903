"""Fixtures of the runner that tables need as well."""

from tests.runner.conftest import settings_of

__all__ = ["settings_of"]
