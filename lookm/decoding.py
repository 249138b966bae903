"""Strategies that evict while decoding."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.errors import LookmError
from lookm.held import Held
from lookm.layer import Layer
from lookm.storage.rows import CompressedRow
from lookm.storage.stored import Stored
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class DecodingStrategy(Strategy):
    """Base of strategies that also evict a token after a new one, as soon as a row holds more than `held_tokens`.

    A subclass answers `step`, and whatever of the others differs from its default. At a budget of 1 nothing is evicted.
    """

    noted_bytes: ClassVar[int] = 8  # its position, and one number

    reads_attention: ClassVar[bool] = False
    """Whether `step` reads `Held.weights`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stores_plainly:
            raise LookmError(
                f"storage={self.storage.name} stores a prompt once, and strategy={self.name} evicts from it while "
                "decoding; use storage=plain, or another strategy"
            )

    @property
    def joins_sweeps(self) -> bool:
        return False

    def store(self, rows: Sequence[CompressedRow], layers: Sequence[Layer]) -> Stored:
        return Held(self, rows, layers) if self.evicts else super().store(rows, layers)

    def notes(self, layer: Layer, positions: Tensor) -> dict[str, Tensor]:
        """What is noted of each kept token, at positions (Hkv, K) of the prompt: (Hkv, K) float32 by name."""
        return {}

    def constants(self, layer: Layer, positions: Tensor) -> dict[str, Tensor]:
        """What is noted of the prompt as a whole, of which positions (Hkv, K) were kept: (n,) float32 by name."""
        return {}

    def held_tokens(self, length: int, kept: int, seen: int) -> int:
        """How many tokens a row may hold: of a prompt of `length` tokens it kept `kept`, now it has seen `seen`."""
        return kept if self.budget is None or self.budget <= 1 else max(kept, int(self.budget))

    @abstractmethod
    def step(self, held: Held) -> Tensor:
        """Bring the notes up to date, and choose the token that goes if its row holds too many.

        Args:
            held: of a layer; the new token is in the last slot, its notes are 0, and it may be the one that goes.

        Returns:
            Slots (B, Hkv) int64.
        """

    def turn(self, held: Held) -> tuple[Tensor, Tensor] | None:
        """Which tokens are seen at other positions, (B, Hkv, S) bool, and by which angles (B, R) they are moved on."""
        return None
