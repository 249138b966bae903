"""The training card: what was done, where, for how long, and how well the model answers."""

import platform
from pathlib import Path

import torch

from .examination import Mark
from .loop import Session, Training

_HEAD = """# The tiny LLaVA

A `LlavaForConditionalGeneration` of {parameters:.2f} M parameters (Llama decoder: 4 layers, width 128, 4 heads;
CLIP vision tower: 2 layers; 32 × 32 images, 16 tokens each), trained on generated prompts of MileBench-mini's twelve
tasks. It exists so that the whole harness runs on a laptop; it knows nothing else.

Before the first step one head of layer 0 looks at the token before and two heads of layer 1 compare with what it writes
(`look_back` in `scripts/tiny_training/architecture.py`): the circuit of retrieval is given, and then trained further.

Made by `{command}` with seed {seed}: {steps:,} optimiser steps of AdamW on the answers' tokens, {minutes:.0f} minutes
on {hardware}. Training and evaluation share no seed (training starts at 1,000,000, evaluation ends
below) and no handwritten digit.

## Accuracy with the full cache

MileBench-mini, {samples} held-out samples per dataset (evaluation seed 0), as in every benchmark run: files →
`build_prompt` → `Backbone.inputs` → greedy `generate` → `score_predictions`, MileBench's own protocol. Chance is what
guessing scores, or the best constant answer where the metric is ROUGE-L.

| task | dataset | metric | score | chance |
|---|---|---|---|---|
"""


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def hardware() -> str:
    """Processor and number of threads, in words."""
    threads = torch.get_num_threads()
    name = cpu_name() if Path("/proc/cpuinfo").is_file() else platform.machine()
    return f"{threads} thread{'s' * (threads > 1)} of {name}"


def write_card(path: Path, training: Training, marks: list[Mark], *, command: str, samples: int) -> None:
    """Write the card of a trained model, in one stroke."""
    text = _HEAD.format(
        parameters=sum(p.numel() for p in training.model.parameters()) / 1e6,
        command=command,
        seed=training.seed,
        steps=training.step,
        minutes=training.seconds / 60,
        hardware=training.sessions[-1].hardware if training.sessions else hardware(),
        samples=samples,
    )
    for mark in marks:
        metric = {"rouge_l": "ROUGE-L"}.get(mark.metric, mark.metric)
        text += f"| {mark.task} | {mark.dataset} | {metric} | {mark.score:.3f} | {mark.chance:.3f} |\n"
    text += "\n## Sessions\n\n" + "".join(session_line(session) for session in training.sessions)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def session_line(session: Session) -> str:
    """One line of the card: which steps, on what, under which curriculum."""
    return (
        f"- steps {session.first:,} to {session.last:,}, {session.seconds / 60:.0f} minutes, {session.hardware}, "
        f"{session.precision}: {session.curriculum}\n"
    )
