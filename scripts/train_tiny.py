"""Train a tiny model on MileBench-mini's tasks, from nothing: `python -m scripts.train_tiny`.

It saves as it goes; the same command goes on where it was stopped. `--device cuda` takes larger steps.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.guard import guarded
from benchmarks.mini.benchmark import mini_benchmark
from benchmarks.mini.sample import PLACES
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.taxonomy import TASKS
from lookm.errors import LookmError
from lookm.models.tiny import FOLDERS, load_tiny

from .tiny_training.card import examine, hardware, write_card
from .tiny_training.examples import Vocabulary
from .tiny_training.families import FAMILIES, build_model, build_tokenizer, ship
from .tiny_training.loop import REPORT_EVERY, STATE, Session, Training, held_out, train
from .tiny_training.schedule import CURRICULUM, Stage, for_gpu

VALIDATE_EVERY, SAVE_EVERY = 250, 50  # optimiser steps
VALIDATION_SEED = 999_999_999  # neither the evaluation's range nor a seed anybody trains with
VALIDATED = 12  # pictures per prompt, at most
TOKENIZER = "tokenizer"
SEED = 3_000_000
CARD_SEED = 1  # of the evaluation's data; the benchmark's own default is 0


@guarded
def main(arguments: list[str] | None = None, stages: tuple[Stage, ...] = CURRICULUM) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        run(options, stages)
    except LookmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    p = argparse.ArgumentParser(prog="python -m scripts.train_tiny", description=__doc__)
    p.add_argument("--model", choices=tuple(FAMILIES), default="tiny_llava", help="which family")
    p.add_argument("--output", type=Path, help="folder of the finished model; default: the shipped one")
    p.add_argument("--state", type=Path, help="folder of the training state; default: data/training/MODEL")
    p.add_argument("--data", type=Path, default=Path("data/mini"), help="folder of MileBench-mini, for the card")
    p.add_argument("--seed", type=int, default=SEED, help="training seed, 1,000,000 or more")
    p.add_argument("--device", default="cpu", help="cpu, or cuda (four times the tokens per step)")
    p.add_argument("--steps", type=int, help="stop after so many steps in all; default: the whole curriculum")
    p.add_argument("--threads", type=int, default=2, help="CPU threads")
    p.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="of the matrix products")
    p.add_argument("--micro", action="store_true", help="the smallest model that runs, to try the script")
    p.add_argument("--samples", type=int, default=100, help="samples per dataset for the card's accuracies")
    return p


def run(options: argparse.Namespace, stages: tuple[Stage, ...]) -> None:
    """Train; when the curriculum or `--steps` is done, ship, examine and write the card.

    Raises:
        LookmError: a seed of the evaluation, a device that is not there, a state that cannot be resumed.
    """
    training_rng(options.seed, 0)
    if options.device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise LookmError(f"device {options.device}: torch sees no GPU here; give --device cpu")
        stages = for_gpu(stages)
    torch.set_num_threads(options.threads)
    output, state = options.output or FOLDERS[options.model], options.state or Path("data/training") / options.model
    state.mkdir(parents=True, exist_ok=True)
    training, tokenizer = begin(options, state)
    teach(training, options, state, stages, Vocabulary.of(tokenizer))
    total = sum(stage.steps for stage in stages)
    if training.step < total:
        print(f"stopped after {training.step:,} of {total:,} steps; the same command goes on from {state}")
        return
    ship(training.family, training.model, tokenizer, output)
    backbone = load_tiny(path=output)
    marks = {
        place: examine(backbone, mini_benchmark(options.data, samples=options.samples, seed=CARD_SEED, question=place))
        for place in PLACES
    }
    for place, column in marks.items():
        print(f"question {place}:", *(f"{mark.task} {mark.score:.3f}" for mark in column))
    card = output / "README.md"
    write_card(card, training, stages, marks, model=options.model, samples=options.samples, seed=CARD_SEED)


def begin(options: argparse.Namespace, state: Path) -> tuple[Training, PreTrainedTokenizerFast]:
    """A new training, or the one whose state is there, with its tokenizer."""
    words = state / TOKENIZER
    if (words / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(words)
    else:
        tokenizer = build_tokenizer(options.seed)
        tokenizer.save_pretrained(words)
    family = FAMILIES[options.model]
    model = build_model(family, tokenizer, options.seed, micro=options.micro).to(options.device)
    training = Training.begin(model, family, options.seed)
    if (state / STATE).exists():
        training.load(state)
    return training, tokenizer


def teach(
    training: Training, options: argparse.Namespace, state: Path, stages: tuple[Stage, ...], vocabulary: Vocabulary
) -> None:
    """Train to the curriculum's end, to `--steps`, or until a signal (Ctrl-C) comes; always saves."""
    first, seconds, before = training.step, training.seconds, list(training.sessions)
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))

    def save() -> None:
        spent = training.seconds - seconds
        session = Session(first, training.step, spent, hardware(training.device), options.precision)
        training.sessions = [*before, session] if training.step > first else before
        training.save(state)

    def until(current: Training) -> bool:
        return bool(signals) or (options.steps is not None and current.step >= options.steps)

    losses: list[tuple[float, float]] = []
    bfloat16 = options.precision == "bf16"
    for stage, loss, right in train(training, stages, vocabulary, bfloat16=bfloat16, until=until):
        losses.append((loss, right))
        if training.step % REPORT_EVERY == 0:
            mean_loss, mean_right = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            losses.clear()
            training.curve.append((training.step, stage.name, mean_loss, mean_right))
            spent = f"{training.seconds / 60:.1f} min"
            print(f"{training.step} {stage.name}: loss {mean_loss:.3f}, right {mean_right:.3f}, {spent}", flush=True)
        if training.step % VALIDATE_EVERY == 0 and stage.shares:
            print(training.step, *(f"{task} {share:.2f}" for task, share in validate(training, stage, vocabulary)))
        if training.step % SAVE_EVERY == 0:
            save()
    save()


def validate(training: Training, stage: Stage, vocabulary: Vocabulary) -> list[tuple[str, float]]:
    """Each task's accuracy at the stage's length, on prompts and digits that training does not see."""
    training.model.eval()
    images = min(stage.most, VALIDATED)
    shares = [(task.task, held_out(training, task, VALIDATION_SEED, images, stage.every, vocabulary)) for task in TASKS]
    training.model.train()
    return shares


if __name__ == "__main__":
    sys.exit(main())
