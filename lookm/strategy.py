"""What a compression strategy is: importance × eviction × merge, as one small frozen dataclass."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from lookm.budgets import budget_sizes, split_budget
from lookm.errors import LookmError
from lookm.fields import Named
from lookm.layer import Layer
from lookm.merging import Kept
from lookm.prompt import on_host
from lookm.registry import resolve_storage
from lookm.statistics import Needs
from lookm.storage.base import PLAIN, Storage
from lookm.storage.rows import CompressedRow
from lookm.storage.stored import Stored

Semantics = Literal["paper", "release"]
Choice = Tensor | list[Tensor]
"""Positions that stay: (Hkv, K) int64, or for each head (K_h,)."""


@dataclass(frozen=True, kw_only=True)
class Strategy(Named, ABC):
    """Base of all strategies: which attention statistics it `needs`, which positions it `keep`s of a layer, and what
    it makes of the rest (`merge_into`).

    A subclass answers `keep`, and whatever of the others differs from its default:

    - `needs(is_image)`: the sums over the attention weights that `keep` will read; none by default.
    - `keep(layer)`: the positions that stay. A `lookm.layer.Layer` holds queries, keys, values, the layer's place, the
      sums asked for, and what the strategy `remember`ed in earlier layers.
    - `selection_key(length)`: strategies of equal keys share one `keep`.
    - `promised_tokens(is_image)`, `promised_recent(length)`: what `keep` must fulfil; it is compared in every layer.
    - `layer_tokens(layer)`, `whole_prompt` and `observe(layer)`: budgets that differ between layers.
    - `ragged_heads`, `fixed_size`: heads that keep different numbers of tokens; numbers that no budget tells.
    - `merge_into(kept)`: keys and values to store; those of the kept tokens as they are by default.

    Attributes:
        name: as in `configs/strategy/<name>.yaml`.
        alpha1: share of the prompt kept as the recent window, M = int(α1 · L).
        alpha2: share of the prompt kept as important tokens, N = int(α2 · L).
        budget: what is kept at most, split as α1 : α2: a share of the prompt, above 0 and up to 1, or a whole number
            of tokens a layer and head, above 1. None: α1 + α2, which a union text prior exceeds. α1 and α2 are
            rescaled to what the budget is split into, or under a number of tokens to a sum of 1.
        semantics: "paper" follows the paper's equations, "release" what the authors' code computes.
        storage: how what it left is stored; a name stands for `configs/storage/<name>.yaml`.
    """

    kind: ClassVar[str] = "strategy"

    alpha1: float = 0.1
    alpha2: float = 0.1
    budget: float | int | None = None
    semantics: Semantics = "paper"
    storage: Storage = PLAIN

    divides_budget: ClassVar[bool] = False
    """Whether layers keep different numbers of tokens, on their mean what is promised."""

    whole_prompt: ClassVar[bool] = False
    """Whether layers are cut after the last one was attended, so that all are held in full until then."""

    ragged_heads: ClassVar[bool] = False
    """Whether the heads of a layer may keep different numbers of tokens: `keep` then gives a list of positions."""

    shortens_prompt: ClassVar[bool] = False
    """Whether the prompt loses tokens inside the model, before its cache (`lookm.shortening`)."""

    noted_bytes: ClassVar[int] = 0
    """Bytes held beside each kept token of a head, to choose again while decoding, at most."""

    compresses_again: ClassVar[bool] = False
    """Whether it may compress a cache that has grown (`lookm.again`): it reads keys, values and sums of attention."""

    heads_apart: ClassVar[bool] = False
    """Whether a head's choice and merge read its own queries, keys, values and sums alone, and which tokens are images:
    a sweep then cuts prompts of one layout together, as the heads of one (under paper semantics)."""

    compresses_text_only: ClassVar[bool] = False
    """Whether the released code compresses a prompt without images under this strategy."""

    def __post_init__(self) -> None:
        self._check_share("alpha1", self.alpha1)
        self._check_share("alpha2", self.alpha2)
        if self.alpha1 + self.alpha2 > 1 + 1e-9:
            total = self.alpha1 + self.alpha2
            raise LookmError(f"alpha1={self.alpha1} + alpha2={self.alpha2} is {total:g}; their sum may be 1 at most")
        if self.budget is not None:
            budget, alpha1, alpha2 = split_budget(self.budget, self.alpha1, self.alpha2)
            for field, value in {"budget": budget, "alpha1": alpha1, "alpha2": alpha2}.items():
                object.__setattr__(self, field, value)
        self._check_choice("semantics", get_args(Semantics))
        object.__setattr__(self, "storage", resolve_storage(self.storage))

    @property
    def stores_plainly(self) -> bool:
        """Whether what it left is stored as it is."""
        return self.storage == PLAIN

    @property
    def label(self) -> str:
        """Its name, and that of its storage unless that is the plain one: `tp_pmerge + kivi2`."""
        return self.name if self.stores_plainly else f"{self.name} + {self.storage.name}"

    @property
    def nominal_budget(self) -> float | None:
        """The share of the prompt that the tables name: the budget, or α1 + α2; None for a number of tokens."""
        if self.budget is None:
            return self.alpha1 + self.alpha2
        return None if self.budget > 1 else self.budget

    @property
    def evicts(self) -> bool:
        """Whether less than the whole prompt is asked for, as far as that does not depend on its length."""
        return self.nominal_budget is None or self.nominal_budget < 1

    @property
    def fixed_size(self) -> bool:
        """Whether the budget tells how many tokens stay; otherwise `promised_tokens` is the most that may."""
        return True

    @property
    def joins_sweeps(self) -> bool:
        """Whether a sweep decodes this row together with others; otherwise alone, with the same answers."""
        return self.fixed_size and not self.ragged_heads and self.stores_plainly

    @property
    def missing(self) -> str | None:
        """What the strategy cannot do without and was not given, such as a file, in one line; None where it has all."""
        return None

    @property
    def contents(self) -> dict[str, Any]:
        """What the files hold that fields name, by field: it decides the answers, and where the files lie does not."""
        return {}

    def chooses(self, is_image: Tensor) -> bool:
        """Whether something of this prompt stays and something may go, so that `keep` is asked."""
        return not self.fixed_size or 0 < self.promised_tokens(is_image) < is_image.numel()

    def window_sizes(self, length: int) -> tuple[int, int]:
        """M recent and N important tokens of a prompt of L tokens: int(α1 · L) and int(α2 · L).

        A `budget` of int(budget · L), or so many tokens, is split without a rest, N rounded down. Where M + N would be
        0 though the budget is not, the prompt is too short for its shares: its last token stays.
        """
        if self.budget is not None:
            return budget_sizes(self.budget, self.alpha1, self.alpha2, length)
        recent, important = int(self.alpha1 * length), int(self.alpha2 * length)
        if recent + important == 0 < self.alpha1 + self.alpha2:
            recent = min(1, length)
        return recent, important

    def needs(self, is_image: Tensor) -> Needs:
        """The sums over attention weights that `keep` will read for a prompt, is_image (L,) bool; none by default."""
        return Needs()

    @abstractmethod
    def keep(self, layer: Layer) -> Choice:
        """Choose what stays of one prompt in one layer, where the budget is below L.

        Returns:
            Positions (Hkv, K) int64, ascending, with K = `layer_tokens`; with `ragged_heads` also a list of (K_h,) for
            each head, `layer_total` in all.
        """

    def selection_key(self, length: int) -> Hashable:
        """What `keep` depends on besides the prompt: strategies with equal keys must keep equal positions.

        By default every field but the name and the storage. A strategy that also merges, or that chooses as another one
        does, may answer less, and then shares the choice with the others of its key.
        """
        return type(self), *(
            getattr(self, field.name) for field in fields(self) if field.name not in ("name", "storage")
        )

    def promised_tokens(self, is_image: Tensor) -> int:
        """How many tokens of this prompt every head keeps, by definition: min(L, M + N) unless a subclass says more."""
        length = is_image.numel()
        return length if self._keeps_all(is_image) else min(length, sum(self.window_sizes(length)))

    def layer_tokens(self, layer: Layer) -> int:
        """How many tokens a head of this layer keeps: `promised_tokens`, unless the strategy divides its budget.

        A strategy that gives layers different numbers (`divides_budget`) keeps `promised_tokens` on their mean.
        """
        return self.promised_tokens(layer.is_image)

    def layer_total(self, layer: Layer) -> int:
        """How many tokens all heads of this layer keep together."""
        return layer.kv_heads * self.layer_tokens(layer)

    def observe(self, layer: Layer) -> None:
        """With `whole_prompt`: read a layer just after its attention, and `remember` what the choice will need."""

    def promised_recent(self, length: int) -> int:
        """How many of the prompt's last tokens every head keeps, by definition: M unless a subclass says otherwise."""
        return self.window_sizes(length)[0]

    def broken_promises(self, kept: Tensor, is_image: Tensor) -> list[tuple[Tensor, str]]:
        """What else could be wrong with kept positions (Hkv, K) of the promised number: a bool scalar and what to say.

        That they ascend and end with the recent window is compared for all strategies.
        """
        return []

    def merge_into(self, kept: Kept) -> tuple[Tensor, Tensor]:
        """Make the kept cache of one prompt, keys (Hkv, K, D) and values (Hkv, K, Dv); by default those kept."""
        return kept.keys, kept.values

    def store(self, rows: Sequence[CompressedRow], layers: Sequence[Layer]) -> Stored:
        """Put away what was left of a batch of prompts in one layer, in the form that stays in memory."""
        return self.storage.store(rows, layers)

    def _keeps_all(self, is_image: Tensor) -> bool:
        """The released code leaves prompts without images alone (SnapKV apart)."""
        return self.semantics == "release" and not self.compresses_text_only and not bool(on_host(is_image).any())
