"""Questions that are asked after their contexts were compressed: their tokens, and of which context each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.errors import LookmError


@dataclass(frozen=True)
class Questions:
    """Questions about a batch of contexts.

    Attributes:
        ids: (N, Q) int64, padded on the left.
        mask: (N, Q) int64, 1 for tokens and 0 for padding.
        contexts: for each question the row of its context.
    """

    ids: Tensor
    mask: Tensor
    contexts: tuple[int, ...]

    @classmethod
    def padded(
        cls, rows: Sequence[Sequence[int]], contexts: Sequence[int], pad: int, device: torch.device
    ) -> Questions:
        """Questions of token ids.

        Raises:
            LookmError: for a question without a token.
        """
        longest = max(map(len, rows))
        if not all(rows):
            raise LookmError("a question has no token of its own")
        ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        return cls(ids, mask, tuple(contexts))

    @property
    def length(self) -> int:
        """Tokens of the longest one, Q."""
        return self.ids.shape[1]

    def positions(self, following: Tensor) -> Tensor:
        """Positions of the questions' tokens, given those that follow each context.

        Args:
            following: (…, B or 1, Q) int64.

        Returns:
            (…, N, Q) int64; padding has some position.
        """
        place = (self.mask.cumsum(1) - 1).clamp(min=0)  # [N, Q]
        if following.shape[-2] > 1:
            following = following.index_select(-2, torch.tensor(self.contexts, device=following.device))
        following = following.expand(*following.shape[:-2], *place.shape)
        return following.gather(-1, place.expand(following.shape))


def common_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
