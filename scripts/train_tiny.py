"""Train the tiny LLaVA on MileBench-mini's tasks: `python -m scripts.train_tiny`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.mini.benchmark import mini_benchmark
from benchmarks.mini.seeds import training_rng
from lookm.errors import LookmError
from lookm.models.tiny import SHIPPED, load_tiny

from .tiny_training.architecture import IMAGE, build_model, build_tokenizer
from .tiny_training.card import hardware, write_card
from .tiny_training.corpus import corpus
from .tiny_training.evaluation import validation_accuracy
from .tiny_training.examination import examine
from .tiny_training.examples import Vocabulary, cached
from .tiny_training.loop import STATE, Session, Training, train
from .tiny_training.schedule import CURRICULUM, Stage, described
from .tiny_training.shipping import ship

REPORT_EVERY, VALIDATE_EVERY, SAVE_EVERY = 25, 250, 100  # optimiser steps
TOKENIZER = "tokenizer"
SEED = 3_000_000
COMMAND = "python -m scripts.train_tiny"


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
    p = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    p.add_argument("--output", type=Path, default=SHIPPED, help="folder of the finished model")
    p.add_argument("--state", type=Path, default=Path("data/tiny_training"), help="folder of the training state")
    p.add_argument("--data", type=Path, default=Path("data/mini"), help="folder of MileBench-mini, for the card")
    p.add_argument("--seed", type=int, default=SEED, help="training seed, 1,000,000 or more")
    p.add_argument("--steps", type=int, help="stop after so many steps in all; default: the whole curriculum")
    p.add_argument("--minutes", type=float, help="stop after so many minutes; what is there is shipped")
    p.add_argument("--threads", type=int, default=2, help="CPU threads")
    p.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="of the matrix products")
    p.add_argument("--compile", action="store_true", help="a third faster after minutes of compiling (needs C++)")
    p.add_argument("--resume", action="store_true", help="go on from the state that is there")
    p.add_argument("--micro", action="store_true", help="the smallest model that runs, to try the script")
    p.add_argument("--samples", type=int, default=40, help="samples per dataset for the card's accuracies")
    return p


def run(options: argparse.Namespace, stages: tuple[Stage, ...]) -> None:
    """Train, ship, examine, write the card.

    Raises:
        LookmError: a seed of the evaluation, a state that is in the way or cannot be resumed.
    """
    training_rng(options.seed, 0)
    if (options.state / STATE).exists() and not options.resume:
        raise LookmError(f"{options.state} holds a training state: give --resume, or another --state")
    torch.set_num_threads(options.threads)
    options.state.mkdir(parents=True, exist_ok=True)
    training, tokenizer = begin(options)
    if options.compile:
        training.model.model.language_model.compile(dynamic=True)
        training.model.model.vision_tower.compile(dynamic=True)
    teach(training, options, stages, vocabulary_of(tokenizer))
    ship(training.model, tokenizer, options.output)
    benchmark = mini_benchmark(options.data, samples=options.samples)
    marks = examine(load_tiny(path=options.output), benchmark)
    for mark in marks:
        print(f"{mark.task} {mark.dataset:28s} {mark.score:.3f} (chance {mark.chance:.3f})")
    write_card(options.output / "README.md", training, marks, command=COMMAND, samples=options.samples)


def begin(options: argparse.Namespace) -> tuple[Training, PreTrainedTokenizerFast]:
    """A new training, or the one that is resumed, with its tokenizer."""
    words = options.state / TOKENIZER
    if options.resume and words.exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(words)
    else:
        tokenizer = build_tokenizer(corpus(options.seed))
        tokenizer.save_pretrained(words)
    training = Training.begin(build_model(tokenizer, options.seed, micro=options.micro), options.seed)
    if options.resume and (options.state / STATE).exists():
        training.load(options.state)
    return training, tokenizer


def vocabulary_of(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    """What the batches need of a tokenizer."""
    return Vocabulary(
        encode=cached(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]),
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        image=int(tokenizer.vocab[IMAGE]),
    )


def teach(training: Training, options: argparse.Namespace, stages: tuple[Stage, ...], vocabulary: Vocabulary) -> None:
    """Train until the curriculum, the steps, the minutes or the user's patience (Ctrl-C) end; always saves."""
    first, seconds, bfloat16 = training.step, training.seconds, options.precision == "bf16"
    before = list(training.sessions)

    def save() -> None:
        spent = training.seconds - seconds
        session = Session(first, training.step, spent, hardware(), options.precision, described(stages))
        training.sessions = [*before, session] if training.step > first else before
        training.save(options.state)

    losses: list[tuple[float, float]] = []
    for stage, loss, right in train(training, stages, vocabulary, bfloat16=bfloat16, until=stopper(options)):
        losses.append((loss, right))
        if training.step % REPORT_EVERY == 0:
            mean_loss, mean_right = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            spent = f"{training.seconds / 60:.1f} min"
            print(f"{training.step} {stage.name}: loss {mean_loss:.3f}, right {mean_right:.3f}, {spent}", flush=True)
            losses.clear()
        if training.step % SAVE_EVERY == 0:
            save()
        if training.step % VALIDATE_EVERY == 0 and stage.most > 0:
            with torch.compiler.set_stance("force_eager"):
                scores = validation_accuracy(training.model, vocabulary, images=min(stage.most, 12))
            print(training.step, *(f"{task} {score:.2f}" for task, score in scores.items()), flush=True)
    save()


def stopper(options: argparse.Namespace) -> Callable[[Training], bool]:
    """Whether it is time to stop: `--steps`, `--minutes`, or a first Ctrl-C or termination signal."""
    asked: list[int] = []
    end = time.monotonic() + 60 * options.minutes if options.minutes is not None else None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: asked.append(received))

    def stop(training: Training) -> bool:
        late = end is not None and time.monotonic() >= end
        return late or bool(asked) or (options.steps is not None and training.step >= options.steps)

    return stop


if __name__ == "__main__":
    sys.exit(main())
