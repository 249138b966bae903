"""SparseMM (arXiv 2506.05344): few heads look at pictures; those keep more. Their scores come from a calibration file.

What counts as a hit in the calibration (`visual_hits`) is this file's reading of the method: the authors' pictures and
word boxes are theirs. `lookm head-scores` makes a file for any model with pictures of handwritten numbers.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from baselines.snapkv import SnapKV
from lookm.budgets import apportion
from lookm.errors import LookmError
from lookm.eviction import ragged_top
from lookm.layer import Layer
from lookm.observation import observe_prefill
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class SparseMM(SnapKV):
    """Beside the window, a head keeps `floor` · b of SnapKV's choice and its score's share of the rest; b = M + N − w.

    The budget of all heads of all layers together is what is promised; heads are stored without padding.

    Attributes:
        scores: a JSON file that `save_head_scores` wrote: a list for each layer with a number for each query head.
        floor: the share that every head has.
    """

    ragged_heads: ClassVar[bool] = True
    divides_budget: ClassVar[bool] = True

    scores: str | None = None
    floor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("floor", self.floor)
        if self.scores is not None:
            read_head_scores(str(self.scores))

    @property
    def missing(self) -> str | None:
        if self.scores is None:
            return f"{self.name} needs a file of head scores: make one with `lookm head-scores`, and set scores=FILE"
        return None

    @property
    def contents(self) -> dict[str, Any]:
        return {} if self.scores is None else {"scores": read_head_scores(str(self.scores))}

    def needs(self, is_image: Tensor) -> Needs:
        if self.missing:
            raise LookmError(self.missing)
        return super().needs(is_image)

    def layer_total(self, layer: Layer) -> int:
        return sum(self._slots(layer)) + layer.kv_heads * self.promised_recent(layer.length)

    def keep(self, layer: Layer) -> list[Tensor]:
        recent = self.promised_recent(layer.length)
        return ragged_top(self.pooled_votes(layer), self._slots(layer), layer.length, recent)

    def _slots(self, layer: Layer) -> list[int]:
        """Tokens of each key/value head of the layer beside the window."""
        assert self.scores is not None
        scores, heads = read_head_scores(str(self.scores)), layer.kv_heads
        if len(scores) != layer.n_layers or len(scores[0]) != layer.queries.shape[0]:
            raise LookmError(
                f"{self.scores} has scores of {len(scores)} layers and {len(scores[0])} heads, the model compresses "
                f"{layer.n_layers} layers with {layer.queries.shape[0]} heads; make a file for this model"
            )
        weights = [sum(group) for row in scores for group in torch.tensor(row).view(heads, -1).tolist()]
        recent = self.promised_recent(layer.length)
        slots = self.promised_tokens(layer.is_image) - recent
        least = int(self.floor * slots)
        most = layer.length - recent
        rest = apportion(weights, len(weights) * (slots - least), 0, most - least)
        return [least + n for n in rest[layer.index * heads : (layer.index + 1) * heads]]


@lru_cache
def read_head_scores(path: str) -> tuple[tuple[float, ...], ...]:
    """Scores of [layer][query head] from a file that `save_head_scores` wrote.

    Raises:
        LookmError: no such file, or another content.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["heads"]
        scores = tuple(tuple(float(score) for score in row) for row in rows)
    except OSError as error:
        raise LookmError(f"head scores {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        scores = ()
    if not scores or len(set(map(len, scores))) > 1 or not scores[0] or min(map(min, scores)) < 0:
        raise LookmError(f"{path} holds no head scores: a JSON object with heads, a list of equal lists of numbers ≥ 0")
    return scores


def save_head_scores(path: Path, scores: Tensor, **about: Any) -> None:
    """Write scores (layers, query heads) of a model, and what is to be known about them, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(json.dumps(about | {"heads": scores.tolist()}) + "\n", encoding="utf-8")
    unfinished.replace(path)


def visual_hits(model: PreTrainedModel, prompts: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> Tensor:
    """The share of prompts in which each head looks where the answer is to be seen.

    Args:
        model: as for `look_once`.
        prompts: inputs of one prompt, `input_ids` (1, L), up to the token before the one that is to be read in a
            picture; and which of its tokens show it, (L,) bool.

    Returns:
        (layers, query heads) float32: how often the last query's largest weight lies on one of these tokens.
    """
    hits: list[Tensor] = []
    for inputs, region in prompts:
        rows: list[Tensor] = []

        def look(layer: Layer, region: Tensor = region, rows: list[Tensor] = rows) -> None:
            layer.make_statistics(Needs(windows=frozenset({1})))
            rows.append(region.to(layer.keys.device)[layer.window(1).argmax(1)].float().cpu())

        observe_prefill(model, inputs, look)
        hits.append(torch.stack(rows))
    return torch.stack(hits).mean(0)
