"""What all parts need: the device, the model, the sizes asked for, and how a part that does not fit is recorded."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration

from lookm.context import led
from lookm.decoder import decoder_of
from lookm.memory import cache_token_bytes, free_bytes

from .clock import read_bandwidth
from .shapes import SHAPES, Shape, build


@dataclass(frozen=True)
class Sizes:
    """What is measured; all of it is written into the results.

    Attributes:
        shape: key of SHAPES.
        lengths: prompt tokens of the decode grid.
        batches: prompts of the decode grid.
        table_length: prompt tokens of the paper's row (Table 4).
        prefill_lengths: prompt tokens of the prefills.
        length: prompt tokens of sweeps, of the grid's batches and of the largest batch.
        images: of a prompt where the time is split.
        new_tokens: of an answer.
        steps: decode steps of one run.
        repeats: runs after the one for warming up.
        memory: bytes of the device that the largest batch may take.
        tiny: prompts, and images a prompt, of the sweeps on the shipped tiny model; on a CPU only.
    """

    shape: str
    lengths: tuple[int, ...]
    batches: tuple[int, ...]
    table_length: int
    prefill_lengths: tuple[int, ...]
    length: int
    images: int
    new_tokens: int
    steps: int
    repeats: int
    memory: int
    tiny: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Workplace:
    """A device, what to measure on it, and the model, made when first needed."""

    device: torch.device
    sizes: Sizes

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type != "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """float32 on a CPU, bfloat16 on a GPU."""
        return torch.bfloat16 if self.on_gpu else torch.float32

    @property
    def shape(self) -> Shape:
        """Of the model."""
        return SHAPES[self.sizes.shape]

    @cached_property
    def model(self) -> LlavaForConditionalGeneration:
        """The random model."""
        return build(self.shape, self.device, self.dtype)

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second that the device reads."""
        return read_bandwidth(self.device, min(1 << 32 if self.on_gpu else 1 << 28, self.sizes.memory))

    @cached_property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        return cache_token_bytes(self.model.config, self.dtype)

    @cached_property
    def decoder_bytes(self) -> int:
        """Bytes of the weights that every decode step reads: the decoder's layers and the head."""
        decoder = decoder_of(self.model)
        weights = [weight for name, weight in decoder.named_parameters() if not name.startswith("embed_tokens")]
        return sum(weight.nbytes for weight in weights) + self.model.lm_head.weight.nbytes

    @contextmanager
    def compressing(self) -> Iterator[None]:
        """The decoder with the attention that compressing caches need."""
        with led(decoder_of(self.model)), torch.inference_mode():
            yield

    def check_room(self, needed: int) -> None:
        """Raise MemoryError where caches of so many bytes would not fit: on a CPU too much would not fail by itself."""
        free = free_bytes(self.device)
        if free is not None and needed > free:
            raise MemoryError(f"the caches take {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB may be used")

    def empty(self) -> None:
        """Give back memory that nothing holds any more."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()


def attempted(place: Workplace, case: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A case with what was measured, or, if the device's or the machine's memory did not suffice, with the reason."""
    place.empty()
    try:
        return {**case, **measure()}
    except (RuntimeError, MemoryError) as error:
        texts = ("out of memory", "can't allocate memory", "not enough memory")
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in texts):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        return {**case, "skipped": f"out of memory: {lines[0][:200]}"}
