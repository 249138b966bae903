"""What a compressed cache holds, against what it was promised to hold."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """Cache sizes and times of one prompt batch; `kept_*` and `full_*` are indexed [layer][row].

    Attributes:
        strategy: its name.
        semantics: "paper" or "release".
        alpha1: nominal share of the recent window.
        alpha2: nominal share of the important tokens.
        prompt_tokens: tokens of each row, padding not counted.
        image_tokens: image tokens of each row.
        kept_tokens: prompt tokens left in the cache, of a head; a mean where heads keep different numbers.
        kept_bytes: what they take in memory, in bytes: keys and values in the form in which they are stored, with
            scales, indices and offsets; without padding beside longer rows and room for new tokens.
        full_bytes: keys and values of the whole prompt, in bytes.
        peak_bytes: of each row, the most bytes that its keys and values take at once during the prefill, all layers:
            strategies that choose after the whole prompt hold every layer in full until then.
        nominal_budget: α1 + α2 (1 for the full cache); None where `budget` is a number of tokens.
        realised_budget: kept tokens per prompt token, of each row, mean over the layers.
        compress_ms: time spent on statistics, choice and merging, all layers and rows, in milliseconds.
        prefill_ms: time from the model's call to the end of its last layer, in milliseconds, `compress_ms` included.
        decode_ms_per_token: mean time between two decode steps of the batch; None with fewer than two steps.
        decode_rows: rows that were decoded together at the start: the prompts of the batch, in a sweep times the
            strategies. A step's time is that of all of them, so compare it only between equal `decode_rows`.
        storage: in which form the kept tokens are stored.
        untouched_layers: layers that stay as they are (a window, a state, attention on images alone); what they hold is
            in `kept_*` and, the same, in `full_*`, and the realised budget is that of the other layers.
        budget: what was asked for as `budget`, a share or a number of tokens; None where α1 and α2 alone say it.
    """

    strategy: str
    semantics: str
    alpha1: float
    alpha2: float
    prompt_tokens: tuple[int, ...]
    image_tokens: tuple[int, ...]
    kept_tokens: tuple[tuple[float, ...], ...]
    kept_bytes: tuple[tuple[int, ...], ...]
    full_bytes: tuple[tuple[int, ...], ...]
    peak_bytes: tuple[int, ...]
    nominal_budget: float | None
    realised_budget: tuple[float, ...]
    compress_ms: float
    prefill_ms: float
    decode_ms_per_token: float | None
    decode_rows: int = 1
    untouched_layers: tuple[int, ...] = ()
    budget: float | int | None = None
    storage: str = "plain"

    @property
    def byte_budget(self) -> float:
        """Bytes that the prompt's cache takes over those of its full cache, all layers and rows."""
        return sum(map(sum, self.kept_bytes)) / sum(map(sum, self.full_bytes))

    def _compressed(self) -> list[tuple[float, ...]]:
        return [kept for index, kept in enumerate(self.kept_tokens) if index not in self.untouched_layers]

    def _untouched(self) -> str:
        return f", of them {len(self.untouched_layers)} as they are" if self.untouched_layers else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = len(self.prompt_tokens)
        kept, full = (sum(map(sum, table)) for table in (self.kept_bytes, self.full_bytes))
        budgets = ", ".join(f"{budget:.1%}" for budget in self.realised_budget)
        nominal = f"{self.budget} tokens" if self.nominal_budget is None else f"{self.nominal_budget:.1%}"
        decode = "–" if self.decode_ms_per_token is None else f"{self.decode_ms_per_token:.2f} ms/token"
        together = f" of {self.decode_rows} rows together" if self.decode_rows > rows else ""
        stored = "" if self.storage == "plain" else f" + {self.storage}"
        lines = [
            f"{self.strategy}{stored} ({self.semantics}, α1 {self.alpha1:g}, α2 {self.alpha2:g}), "
            f"{rows} prompt{'s' if rows > 1 else ''}, {len(self.kept_tokens)} layers{self._untouched()}",
            f"  prompt tokens   {', '.join(map(str, self.prompt_tokens))} "
            f"(of images {', '.join(map(str, self.image_tokens))})",
            f"  kept per layer  {'; '.join(_span(layer) for layer in zip(*self._compressed(), strict=True))}",
            f"  budget          nominal {nominal}, realised {budgets}",
            f"  cache           {kept / 2**20:.2f} MiB of {full / 2**20:.2f} MiB, during the prefill at most "
            f"{sum(self.peak_bytes) / 2**20:.2f} MiB",
            f"  time            prefill {self.prefill_ms:.1f} ms, of it compressing {self.compress_ms:.1f} ms; "
            f"decode {decode}{together}",
        ]
        return "\n".join(lines)


def _span(counts: tuple[float, ...]) -> str:
    low, high = (f"{count:g}" for count in (min(counts), max(counts)))
    return low if low == high else f"{low}–{high}"
