"""The training loop: it saves as it goes, and goes on from what it saved exactly as if never stopped."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, LlavaForConditionalGeneration

from lookm.errors import LookmError

from .batches import Batch, draw_batches
from .examples import IGNORED, Vocabulary
from .schedule import Stage, stage_at

STATE = "training_state.pt"
VISION_SHARE = 1.0  # of the learning rate


def plain_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in two matrix products; at these sizes twice as fast in bfloat16 on a CPU as SDPA's kernel.

    Batches are padded on the right, so that a causal mask is all that is needed.
    """
    batch, heads, length, size = query.shape
    query, key, value = (tensor.flatten(0, 1) for tensor in (query, key, value))  # (B·H, L, D)
    bias = causal_bias(length) if getattr(module, "is_causal", False) else query.new_zeros(1, 1)
    scale = scaling or size**-0.5
    scores = torch.baddbmm(bias.to(query.dtype), query, key.transpose(-1, -2), alpha=scale)  # (B·H, L, L)
    weights = torch.softmax(scores, -1).to(value.dtype)
    mixed = torch.bmm(weights, value).view(batch, heads, length, size)
    return mixed.transpose(1, 2).contiguous(), None


@cache
def causal_bias(length: int) -> torch.Tensor:
    """0 where a query may look, a large negative number where it may not, (L, L)."""
    return torch.full((length, length), -1e4).triu(1)


AttentionInterface.register("tiny_training", plain_attention)


@dataclass(frozen=True)
class Session:
    """What one call of the script did: steps `first` to `last` on some hardware, under some curriculum."""

    first: int
    last: int
    seconds: float
    hardware: str
    precision: str
    curriculum: str


@dataclass
class Training:
    """A model on its way: everything that `save` writes and `load` reads back."""

    model: LlavaForConditionalGeneration
    optimizer: torch.optim.Optimizer
    seed: int
    step: int = 0
    seconds: float = 0.0
    sessions: list[Session] = field(default_factory=list)

    @classmethod
    def begin(cls, model: LlavaForConditionalGeneration, seed: int) -> Training:
        """Start from an untrained model."""
        return cls(model=model, optimizer=torch.optim.AdamW(groups(model), betas=(0.9, 0.98)), seed=seed)

    def save(self, folder: Path) -> None:
        """Write the state in one stroke."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sessions": [asdict(session) for session in self.sessions],
            **{"seed": self.seed, "step": self.step, "seconds": self.seconds},
        }
        temporary = folder / f".{STATE}.{os.getpid()}"
        torch.save(state, temporary)
        temporary.replace(folder / STATE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            LookmError: the file holds no training state, or that of another model.
        """
        try:
            state = torch.load(folder / STATE, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.seed, self.step, self.seconds = state["seed"], state["step"], state["seconds"]
            self.sessions = [Session(**session) for session in state["sessions"]]
        except (RuntimeError, KeyError, TypeError, pickle.UnpicklingError, EOFError) as error:
            raise LookmError(
                f"{folder / STATE} cannot be resumed ({type(error).__name__}): delete {folder} to start afresh"
            ) from None


def groups(model: LlavaForConditionalGeneration) -> list[dict[str, Any]]:
    """Parameters with their decay and their share of the learning rate.

    The decoder does not care how long an image token is, so that nothing but decay keeps the vision tower's and the
    projector's output from growing (within 800 steps to 400 times a word's length, at which nothing is learnt).
    """
    words: list[torch.nn.Parameter] = []
    matrices: list[torch.nn.Parameter] = []
    vectors: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        seen = "vision_tower" in name or "multi_modal_projector" in name
        (words if not seen else matrices if parameter.ndim > 1 else vectors).append(parameter)
    return [
        {"params": words, "share": 1.0, "weight_decay": 0.01},
        {"params": matrices, "share": VISION_SHARE, "weight_decay": 1.0},
        {"params": vectors, "share": VISION_SHARE, "weight_decay": 0.0},
    ]


def answer_loss(model: LlavaForConditionalGeneration, batch: Batch) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy of the answers' tokens, and how many of them are predicted right."""
    hidden = model.model(input_ids=batch.ids, pixel_values=batch.pixels, use_cache=False).last_hidden_state
    learnt = batch.targets != IGNORED
    logits = model.lm_head(hidden[learnt]).float()  # (answer tokens, vocabulary)
    targets = batch.targets[learnt]
    return functional.cross_entropy(logits, targets, reduction="sum"), int((logits.argmax(-1) == targets).sum())


def learn(training: Training, batches: list[Batch], rate: float, bfloat16: bool) -> tuple[float, float]:
    """One optimiser step on all batches together; returns loss and accuracy per answer token."""
    model, optimizer = training.model, training.optimizer
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
    tokens = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    optimizer.zero_grad()
    total, right = 0.0, 0
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss, hits = answer_loss(model, batch)
        (loss / tokens).backward()
        total, right = total + loss.item(), right + hits
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return total / tokens, right / tokens


def train(
    training: Training,
    stages: tuple[Stage, ...],
    vocabulary: Vocabulary,
    *,
    bfloat16: bool,
    until: Callable[[Training], bool] = lambda _: False,
) -> Iterator[tuple[Stage, float, float]]:
    """Train to the curriculum's end or `until` says so; yields stage, loss and token accuracy after each step."""
    training.model.set_attn_implementation("tiny_training")
    training.model.train()
    total = sum(stage.steps for stage in stages)
    while training.step < total and not until(training):
        started = time.perf_counter()
        stage, rate = stage_at(stages, training.step)
        loss, right = learn(training, draw_batches(training.seed, training.step, stage, vocabulary), rate, bfloat16)
        training.step += 1
        training.seconds += time.perf_counter() - started
        yield stage, loss, right
