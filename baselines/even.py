"""Evenly spaced tokens, text first: what every comparison needs. No attention is read."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lookm.layer import Layer
from lookm.prompt import on_host
from lookm.ranking import ScoreStrategy, TextPrior


@dataclass(frozen=True, kw_only=True)
class Even(ScoreStrategy):
    """Keep a small recent window, the text, and evenly spaced image tokens; all tokens alike without a text prior."""

    heads_apart: ClassVar[bool] = True

    text_prior: TextPrior = "strict"
    recent: int = 4

    def score_key(self, length: int) -> Hashable:
        return self.selection_key(length)  # where an even grid lies depends on its size

    def scores(self, layer: Layer) -> Tensor:
        is_image, slots = on_host(layer.is_image), self.slots(layer.is_image)
        past = torch.arange(layer.length) < layer.length - self.promised_recent(layer.length)
        groups = [past] if self.text_prior == "off" else [past & ~is_image, past & is_image]
        scores = torch.zeros(1, layer.length)
        for group in groups:
            members = int(group.sum())
            chosen = min(slots, members)
            steps = torch.arange(members + 1) * chosen // max(1, members)  # one more at each evenly spaced member
            scores[0, group] = steps.diff().float()
            slots -= chosen
        return scores.to(layer.keys.device)
