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
from transformers import AttentionInterface

from benchmarks.mini.pictures import digit_pool
from benchmarks.mini.sample import Request
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.taxonomy import MiniTask
from lookm.errors import LookmError

from .examples import (
    FEWEST_FRAMES,
    FILMS,
    IGNORED,
    Batch,
    Vocabulary,
    collate,
    draw_batches,
    example,
)
from .families import Family
from .pictures import draw_lesson
from .schedule import Stage, stage_at

STATE = "training_state.pt"
REPORT_EVERY = 50  # optimiser steps; so long are the curve's
MATRIX_SHARE = 10.0  # Muon's learning rate over AdamW's


def plain_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention without a mask's tensor: batches are padded on the right.

    On a CPU two matrix products, at these sizes twice as fast in bfloat16 as SDPA's kernel.
    """
    causal = bool(getattr(module, "is_causal", False))
    groups = query.shape[1] // key.shape[1]
    if query.is_cuda:
        query, key = query.to(value.dtype), key.to(value.dtype)  # RoPE may have left them in float32
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=causal, scale=scaling, enable_gqa=groups > 1
        )
        return mixed.transpose(1, 2).contiguous(), None
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    batch, heads, length, size = query.shape
    query, key, value = (tensor.flatten(0, 1) for tensor in (query, key, value))  # (B·H, L, D)
    bias = causal_bias(length) if causal else query.new_zeros(1, 1)
    scores = torch.baddbmm(bias.to(query.dtype), query, key.transpose(-1, -2), alpha=scaling or size**-0.5)
    weights = torch.softmax(scores, -1).to(value.dtype)  # (B·H, L, L)
    mixed = torch.bmm(weights, value).view(batch, heads, length, size)
    return mixed.transpose(1, 2).contiguous(), None


@cache
def causal_bias(length: int) -> torch.Tensor:
    """0 where a query may look, a large negative number where it may not, (L, L)."""
    return torch.full((length, length), -1e4).triu(1)


AttentionInterface.register("tiny_training", plain_attention)


@dataclass(frozen=True)
class Session:
    """What one call of the script did: steps `first` to `last` on some hardware."""

    first: int
    last: int
    seconds: float
    hardware: str
    precision: str


@dataclass
class Training:
    """A model on its way: everything that `save` writes and `load` reads back."""

    model: Any
    family: Family
    optimizers: tuple[torch.optim.Optimizer, ...]
    seed: int
    step: int = 0
    seconds: float = 0.0
    sessions: list[Session] = field(default_factory=list)
    curve: list[tuple[int, str, float, float]] = field(default_factory=list)

    @classmethod
    def begin(cls, model: Any, family: Family, seed: int) -> Training:
        """Start from an untrained model."""
        model.set_attn_implementation("tiny_training")
        return cls(model, family, optimizers(model), seed)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def save(self, folder: Path) -> None:
        """Write the state in one stroke."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "sessions": [asdict(session) for session in self.sessions],
            **{"seed": self.seed, "step": self.step, "seconds": self.seconds, "curve": self.curve},
        }
        temporary = folder / f".{STATE}.{os.getpid()}"
        torch.save(state, temporary)
        temporary.replace(folder / STATE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            LookmError: the file holds no training state, or that of another seed or model.
        """
        try:
            state = torch.load(folder / STATE, weights_only=True, map_location=self.device)
            seed = state["seed"]
            if seed == self.seed:
                self.model.load_state_dict(state["model"])
                for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                    optimizer.load_state_dict(saved)
                self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]
                self.sessions = [Session(**session) for session in state["sessions"]]
        except (RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError, EOFError) as error:
            raise LookmError(
                f"{folder / STATE} cannot be resumed ({type(error).__name__}): delete {folder} to start afresh"
            ) from None
        if seed != self.seed:
            raise LookmError(f"{folder} was begun with seed {seed}: give --seed {seed} or another --state")


def is_sight(name: str) -> bool:
    """Whether a parameter belongs to the vision tower or the projector."""
    return "vision_tower" in name or "multi_modal_projector" in name or "visual" in name


def optimizers(model: Any) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (torch's) for the decoder's matrices, AdamW for everything else."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and (".layers." in name or ".blocks." in name)
        (matrices if inner else others).append(parameter)
    return (
        torch.optim.Muon([{"params": matrices, "share": MATRIX_SHARE}], weight_decay=0.01),
        torch.optim.AdamW([{"params": others, "share": 1.0}], betas=(0.9, 0.98), weight_decay=0.01),
    )


def embedded(training: Training, batch: Batch, see: bool) -> torch.Tensor:
    """Input embeddings (B, L, width): words, and what the vision tower makes of the pictures."""
    model = training.model
    embeddings = model.get_input_embeddings()(batch.ids)
    if not len(batch.pixels):
        return embeddings
    with torch.set_grad_enabled(see and torch.is_grad_enabled()):
        tokens = training.family.features(model, batch.pixels)  # (images, 16, width)
        tokens = tokens.unflatten(1, (-1, batch.every)).mean(2).flatten(0, 1)
    where = (batch.ids == model.config.image_token_id)[..., None].expand_as(embeddings)
    return embeddings.masked_scatter(where, tokens.to(embeddings.dtype))


def hidden_states(training: Training, batch: Batch, see: bool = False) -> torch.Tensor:
    """The decoder's last hidden states, (B, L, width)."""
    inputs = embedded(training, batch, see)
    decoder = training.model.model.language_model
    hidden: torch.Tensor = decoder(
        inputs_embeds=inputs, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    return hidden


def answer_loss(training: Training, batch: Batch, see: bool = False) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy of the answers' tokens, and how many of them are predicted right."""
    hidden = hidden_states(training, batch, see)
    learnt = batch.targets != IGNORED
    logits = training.model.lm_head(hidden[learnt]).float()  # (answer tokens, vocabulary)
    targets = batch.targets[learnt]
    return functional.cross_entropy(logits, targets, reduction="sum"), int((logits.argmax(-1) == targets).sum())


def learn(training: Training, stage: Stage, rate: float, vocabulary: Vocabulary, bfloat16: bool) -> tuple[float, float]:
    """One optimiser step; returns loss and accuracy per answer token, or per word for a picture."""
    for optimizer in training.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad()
    cast = torch.autocast(training.device.type, torch.bfloat16, enabled=bfloat16)
    if not stage.shares:
        lesson = draw_lesson(training.seed, training.step, stage.tokens, vocabulary.encode).to(training.device)
        with cast:
            tokens = training.family.features(training.model, lesson.pixels)
        loss, right = lesson.loss(tokens.float(), training.model.get_input_embeddings().weight.detach())
        loss.backward()
        total, n = loss.item(), 1
    else:
        batches = draw_batches(training.seed, training.step, stage, vocabulary, training.family)
        n = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
        total, right = 0.0, 0.0
        for batch in batches:
            with cast:
                part, hits = answer_loss(training, batch.to(training.device), stage.see)
            (part / n).backward()
            total, right = total + part.item(), right + hits
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    for optimizer in training.optimizers:
        optimizer.step()
    return total / n, right / n


def train(
    training: Training,
    stages: tuple[Stage, ...],
    vocabulary: Vocabulary,
    *,
    bfloat16: bool,
    until: Callable[[Training], bool] = lambda _: False,
) -> Iterator[tuple[Stage, float, float]]:
    """Train to the curriculum's end or `until` says so; yields stage, loss and token accuracy after each step."""
    training.model.train()
    total = sum(stage.steps for stage in stages)
    while training.step < total and not until(training):
        started = time.perf_counter()
        stage, rate = stage_at(stages, training.step)
        loss, right = learn(training, stage, rate, vocabulary, bfloat16)
        training.step += 1
        training.seconds += time.perf_counter() - started
        yield stage, loss, right


@torch.no_grad()
def held_out(
    training: Training, task: MiniTask, seed: int, images: int, every: int, vocabulary: Vocabulary, prompts: int = 40
) -> float:
    """Share of prompts, with the evaluation's digits, whose whole answer is predicted right (teacher forced)."""
    rng = training_rng(seed, 0)
    images = max(images, FEWEST_FRAMES) if task.task in FILMS else images
    made = [task.make(Request(rng, digit_pool("eval"), images=images, case=case)) for case in range(prompts)]
    batch = collate([example(task, sample, vocabulary) for sample in made], vocabulary, training.family, every)
    batch = batch.to(training.device)
    with torch.autocast(training.device.type, torch.bfloat16):
        answers = training.model.lm_head(hidden_states(training, batch)).argmax(-1)
    right = (answers == batch.targets) | (batch.targets == IGNORED)  # (B, L)
    return float(right.all(-1).float().mean())
