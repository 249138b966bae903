"""What a prompt batch left behind in numbers: sizes of every layer, times of every stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lookm.errors import BudgetError
from lookm.report import Report
from lookm.stopwatch import Mark, Stopwatch
from lookm.strategy import Strategy


@dataclass(frozen=True)
class LayerSizes:
    """What one layer held of each row: tokens kept, bytes kept, bytes of the whole prompt; or of it as it is."""

    tokens: tuple[float, ...]
    kept_bytes: tuple[int, ...]
    full_bytes: tuple[int, ...]
    compressed: bool = True


def peak_bytes(layers: Sequence[LayerSizes], *, whole_prompt: bool) -> tuple[int, ...]:
    """The most bytes that the keys and values of each row take at once while its prompt is encoded.

    When a layer is compressed it lies in memory twice, in full and as what is kept of it, unless it is kept whole;
    beside it what is left of the earlier layers. With `whole_prompt` all layers are held in full until the last one.
    """
    peaks = []
    for row in range(len(layers[0].full_bytes)):
        held = sum(layer.full_bytes[row] for layer in layers) if whole_prompt else 0
        moments = []
        for layer in layers:
            kept, full = layer.kept_bytes[row], layer.full_bytes[row]
            held += 0 if whole_prompt else full
            moments.append(held + (0 if kept == full else kept))
            held += kept - full
        peaks.append(max(moments))
    return tuple(peaks)


@dataclass(frozen=True)
class Times:
    """The times of a report, in milliseconds, and how many rows a decode step had."""

    compress_ms: float
    prefill_ms: float
    decode_ms_per_token: float | None
    decode_rows: int


@dataclass
class PromptRecord:
    """Sizes and times of one prompt batch; holds no keys or values, so it may outlive the cache."""

    strategy: Strategy
    prompt_tokens: tuple[int, ...]
    image_tokens: Tensor
    layers: list[LayerSizes | None]
    compressing: Stopwatch = field(default_factory=Stopwatch)
    steps: list[Mark] = field(default_factory=list)
    """The beginning of each forward pass: prefill first, then the decode steps."""
    prefill_end: Mark | None = None
    aside: bool = False
    """Whether the prompt was encoded while another one was being answered, as classifier-free guidance does."""

    def again(self) -> "PromptRecord":
        """The same sizes for another answer to the prompt, whose steps are still to come."""
        return replace(self, layers=list(self.layers), steps=self.steps[:1], aside=False)

    def begin_pass(self, new_tokens: int, device: torch.device) -> None:
        """Note the beginning of a pass; a turn of several tokens begins the count of decode steps anew."""
        if new_tokens == 1 or not self.steps:
            self.steps.append(Mark.now(device))
        else:
            del self.steps[1:]

    def evicted_nothing(self) -> bool:
        """Whether every row is still whole in every layer, though the strategy's budget is smaller."""
        whole = [
            layer is not None and (layer.tokens == self.prompt_tokens or not layer.compressed) for layer in self.layers
        ]
        return self.strategy.evicts and all(whole)

    def stored_nothing_smaller(self) -> bool:
        """Whether what is kept takes as many bytes as its tokens have, though they are to be stored in another form."""
        if self.strategy.stores_plainly:
            return False
        return not any(
            size * prompt < full * tokens
            for layer in self.layers
            if layer is not None and layer.compressed
            for size, full, tokens, prompt in zip(
                layer.kept_bytes, layer.full_bytes, layer.tokens, self.prompt_tokens, strict=True
            )
        )

    def check_complete(self) -> list[LayerSizes]:
        """Raise BudgetError unless every layer was compressed; return their sizes."""
        missing = [index for index, layer in enumerate(self.layers) if layer is None]
        if missing:
            raise BudgetError(
                f"layers {missing} of {len(self.layers)} were not compressed by {self.strategy.name}: "
                "their attention did not pass through the model's attention interface"
            )
        return [layer for layer in self.layers if layer is not None]

    def report(self) -> Report:
        """The numbers so far."""
        layers = self.check_complete()
        decode = None
        if len(self.steps) > 2:
            decode = self.steps[1].milliseconds_until(self.steps[-1]) / (len(self.steps) - 2)
        assert self.prefill_end is not None
        times = Times(
            compress_ms=self.compressing.milliseconds(),
            prefill_ms=self.steps[0].milliseconds_until(self.prefill_end),
            decode_ms_per_token=decode,
            decode_rows=len(self.prompt_tokens),
        )
        return report_of(self.strategy, self.prompt_tokens, self.image_tokens.tolist(), layers, times)


def report_of(
    strategy: Strategy,
    prompt_tokens: Sequence[int],
    image_tokens: Sequence[int],
    layers: Sequence[LayerSizes],
    times: Times,
) -> Report:
    """The report of one strategy on one prompt batch."""
    whole = [layer for layer in layers if layer.compressed]
    shares = [
        sum(layer.tokens[row] for layer in whole) / (len(whole) * length) if whole else 1.0
        for row, length in enumerate(prompt_tokens)
    ]
    return Report(
        strategy=strategy.name,
        semantics=strategy.semantics,
        alpha1=strategy.alpha1,
        alpha2=strategy.alpha2,
        prompt_tokens=tuple(prompt_tokens),
        image_tokens=tuple(image_tokens),
        kept_tokens=tuple(layer.tokens for layer in layers),
        kept_bytes=tuple(layer.kept_bytes for layer in layers),
        full_bytes=tuple(layer.full_bytes for layer in layers),
        peak_bytes=peak_bytes(layers, whole_prompt=strategy.whole_prompt),
        nominal_budget=strategy.nominal_budget,
        budget=strategy.budget,
        realised_budget=tuple(shares),
        compress_ms=times.compress_ms,
        prefill_ms=times.prefill_ms,
        decode_ms_per_token=times.decode_ms_per_token,
        decode_rows=times.decode_rows,
        untouched_layers=tuple(index for index, layer in enumerate(layers) if not layer.compressed),
        storage=strategy.storage.name,
    )
