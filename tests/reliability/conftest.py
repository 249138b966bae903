"""The runner's settings over a random model, here as well."""

from tests.runner.conftest import settings_of

__all__ = ["settings_of"]
