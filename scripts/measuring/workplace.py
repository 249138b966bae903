"""What all parts need: clocks, random LLaVA models and prompts (shapes decide time and memory, weights do not), and the
device with its model; a part that does not fit is recorded with the reason."""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lookm.context import led
from lookm.decoder import decoder_of
from lookm.memory import cache_token_bytes, free_bytes
from lookm.stopwatch import Mark

TEXT_RUN = 32
"""Text tokens before each image of a random prompt, and after the last."""


def elapsed_ms(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, until the device has finished it."""
    begin = Mark.now(device)
    work()
    return begin.milliseconds_until(Mark.now(device))


def summary(runs: list[float]) -> dict[str, Any]:
    """Median, smallest and largest of some milliseconds, and all of them."""
    return {
        "median_ms": round(statistics.median(runs), 4),
        "min_ms": round(min(runs), 4),
        "max_ms": round(max(runs), 4),
        "runs_ms": [round(run, 4) for run in runs],
    }


def in_turns(
    works: Mapping[str, Callable[[], object]], device: torch.device, repeats: int
) -> dict[str, dict[str, Any]]:
    """Measure several works in turns, so that whatever else the machine does meets all of them.

    Args:
        works: by name; the first is what the others are compared with.
        device: where they run.
        repeats: rounds after one for warming up.

    Returns:
        For each its `summary`, and `times_first`: the median over the rounds of its time by the first one's.
    """
    for work in works.values():
        elapsed_ms(work, device)
    runs: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            runs[name].append(elapsed_ms(work, device))
    first = next(iter(runs.values()))
    return {
        name: {
            **summary(values),
            "times_first": round(statistics.median(own / base for own, base in zip(values, first, strict=True)), 4),
        }
        for name, values in runs.items()
    }


def read_bandwidth(device: torch.device, size: int = 1 << 28) -> float:
    """Bytes a second that a sum over `size` bytes reads, the best of ten."""
    numbers = torch.ones(size // 4, device=device)
    numbers.sum()
    best = min(elapsed_ms(numbers.sum, device) for _ in range(10))
    return 1000 * size / best


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA: its decoder, its vision tower, and the longest prompt that makes sense on its device."""

    note: str
    text: dict[str, int]
    vision: dict[str, int]

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return (self.vision["image_size"] // self.vision["patch_size"]) ** 2


SHAPES = {
    "llava7b": Shape(
        "LLaVA-1.5-7B in full size, random weights",
        {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "vocab_size": 32064},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "image_size": 336, "patch_size": 14},
    ),
    "qwen2_5vl7b": Shape(
        "decoder of Qwen2.5-VL-7B in full size (7 query heads share a key/value head), LLaVA's eyes, random weights",
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152064},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "image_size": 336, "patch_size": 14},
    ),
    "small": Shape(
        "scaled down for a CPU: 8 layers of width 512, random weights; no number of it belongs beside the paper's",
        {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8,
         "vocab_size": 1000},
        {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
         "image_size": 96, "patch_size": 8},
    ),
    "nano": Shape(
        "for trying the script out",
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "vocab_size": 100},
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "image_size": 16, "patch_size": 4},
    ),
}  # fmt: skip


def build(shape: Shape, device: torch.device, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """The random model, made on the device. Its last token stands for images; no token ends an answer."""
    torch.manual_seed(0)
    text: dict[str, Any] = {**shape.text, "max_position_embeddings": 1 << 17, "eos_token_id": None}
    vision: dict[str, Any] = {**shape.vision}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision),
        text_config=LlamaConfig(**text, pad_token_id=0, bos_token_id=1),
        image_token_index=shape.text["vocab_size"] - 1,
        image_seq_length=shape.image_tokens,
    )
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype)
    return model.eval()


def prompt_ids(shape: Shape, batch: int, length: int, device: torch.device) -> Tensor:
    """Random prompts (B, L): images between runs of text, ended by text."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, shape.text["vocab_size"] - 1, (batch, length), generator=generator)
    places = torch.arange(length) % (TEXT_RUN + shape.image_tokens)
    ids[:, (places >= TEXT_RUN) & (torch.arange(length) < length - TEXT_RUN)] = shape.text["vocab_size"] - 1
    return ids.to(device)


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
        new_tokens: of an answer.
        steps: decode steps of one run.
        repeats: runs after the one for warming up.
        memory: bytes of the device that the largest batch may take.
        tiny: prompts, and images a prompt, of the sweeps on the shipped tiny model; on a CPU only.
        variants: of the prefill, beside the plain one.
    """

    shape: str
    lengths: tuple[int, ...]
    batches: tuple[int, ...]
    table_length: int
    prefill_lengths: tuple[int, ...]
    length: int
    new_tokens: int
    steps: int
    repeats: int
    memory: int
    tiny: tuple[tuple[int, int], ...]
    variants: tuple[str, ...]


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
