"""What the runs of a sweep share: prompts and model inputs, made once, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


class Reuse:
    """Keeps what one model was given, first come, first kept, until `limit` bytes are full.

    The runs of a sweep ask for the same things in the same order; forgetting the oldest would forget what is needed
    next.

    Args:
        limit: bytes to hold at most; 0 keeps nothing.
    """

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit
        self._held = 0
        self._owner: object = None
        self._values: dict[Hashable, Any] = {}

    def serve(self, owner: object) -> None:
        """Says for which model things are kept; what another one was given is dropped."""
        if self._owner is not owner:
            self._owner, self._held = owner, 0
            self._values.clear()

    def find(self, key: Hashable) -> Any:
        """What was kept under this key, or None."""
        return self._values.get(key)

    def keep(self, key: Hashable, value: Any, n_bytes: int) -> None:
        """Keeps a value of this size, if there is room."""
        if key not in self._values and self._held + n_bytes <= self._limit:
            self._values[key] = value
            self._held += n_bytes
