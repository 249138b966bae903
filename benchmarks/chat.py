"""`lookm chat`: a context is encoded and compressed once, and questions are answered from what was kept."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image
from rich.console import Console
from transformers import TextStreamer

from benchmarks.evaluation.examples import Example, build_examples, find_sample
from benchmarks.evaluation.settings import Settings
from benchmarks.milebench.dataset import read_dataset
from benchmarks.milebench.images import open_images
from benchmarks.milebench.prompts import PLACEHOLDER
from benchmarks.report.attention_figure import save_figure
from benchmarks.tables.table import Row, Table, percent, show, size
from lookm.compression import refuse_shortening
from lookm.conversation import Conversation
from lookm.errors import LookmError
from lookm.generation import look_once
from lookm.kept import image_spans, positions_in
from lookm.kept_figure import draw_kept, token_texts
from lookm.models.backbone import Backbone

COMMANDS = {
    "/kept": "what is kept of each image; with a FILE.png, .svg or .pdf, drawn",
    "/fresh": "forget the questions so far, not the context",
    "/save": "write the compressed context to FILE; `lookm chat --load FILE` goes on from it",
    "/quit": "end; Ctrl-D does, too",
}
PROMPT = "> "


@dataclass(frozen=True)
class Context:
    """What is asked about.

    Attributes:
        text: with one `<ImageHere>` for each image.
        images: in order; paths: where they are.
        questions: that a benchmark asks about it, each with its answer.
    """

    text: str
    images: tuple[Image, ...]
    paths: tuple[Path, ...]
    questions: tuple[tuple[str, str], ...] = ()


def given_context(paths: Sequence[Path], text: str) -> Context:
    """A context of pictures and words: pictures come first, unless the words say where each belongs.

    Raises:
        LookmError: a picture that is missing or cannot be read.
    """
    images = tuple(open_images(paths))
    if PLACEHOLDER not in text:
        text = f"{PLACEHOLDER * len(images)} {text}".strip()
    return Context(text, images, tuple(paths))


def sample_context(backbone: Backbone, settings: Settings, name: str) -> Context:
    """The context of a benchmark's sample, with all questions that are asked about it in words.

    Args:
        name: DATASET/ID, or a dataset or task code for its first sample.

    Raises:
        LookmError: no such sample, or it is asked with a picture, or before its pictures.
    """
    settings.benchmark.prepare()
    named, sample_id = find_sample(settings.benchmark, name)
    dataset = read_dataset(settings.benchmark, named.info, None, asked_later=True)
    made = build_examples(dataset, list(dataset.samples), backbone)
    examples = {one.sample_id: one for one in made if isinstance(one, Example)}
    asked = [one for one in examples.values() if sample_id in examples and one.context == examples[sample_id].context]
    if not asked or PLACEHOLDER in asked[0].prompt.question:
        raise LookmError(f"{dataset.name}/{sample_id} is not asked in words after its context; choose another --sample")
    prompt = asked[0].prompt
    questions = tuple((one.prompt.question, str(dataset.samples[one.sample_id]["response"])) for one in asked)
    return Context(
        prompt.before_question, tuple(open_images(prompt.images)), tuple(map(Path, prompt.images)), questions
    )


def chat(backbone: Backbone, settings: Settings, context: Context | None, cache: Path | None) -> None:
    """Encode a context, or load its cache, and answer what stdin asks, line by line.

    Args:
        backbone: the model; settings: its strategy.
        context: to encode; None where `cache` is given: a file that `/save` wrote.

    Raises:
        LookmError: what cannot be encoded, loaded or answered; on a terminal a question that cannot be answered is
            refused in a line, and the next one is read.
    """
    with look_once(backbone.model, settings.strategy) as session:
        session.notes_positions = True
        with warnings.catch_warnings(record=True) as noted:
            if cache is not None:
                conversation = Conversation.load(backbone, session, cache)
            else:
                assert context is not None
                conversation = Conversation.about(backbone, session, context.text, context.images)
        shown = Chat(conversation, context)
        shown.introduce([str(warning.message) for warning in noted])
        shown.answer_all(_lines())


class Chat:
    """A conversation on a terminal, or with what a pipe says."""

    def __init__(self, conversation: Conversation, context: Context | None) -> None:
        self.conversation, self.context = conversation, context
        self.console = _Console(highlight=False, soft_wrap=True)

    def say(self, text: str, style: str = "dim", end: str = "\n") -> None:
        """Print, with a style on a terminal."""
        self.console.print(text, style=style, end=end, markup=False)

    def introduce(self, notes: Sequence[str] = ()) -> None:
        """What was kept, what was noted meanwhile, and what can be asked."""
        cache, report = self.conversation.cache, self.conversation.cache.record.report()
        kept, full = (sum(map(sum, table)) for table in (report.kept_bytes, report.full_bytes))
        tokens = sum(row for (row,) in report.kept_tokens) / len(report.kept_tokens)
        asked = f"{report.budget} tokens" if report.nominal_budget is None else f"{percent(report.nominal_budget)} %"
        self.say(f"{self.conversation.backbone.label}, {cache.strategy.label}, budget {asked}", "bold")
        self.say(" ".join(cache.note["text"].replace(PLACEHOLDER, "▣").split()), style="")
        self.say(
            f"{report.prompt_tokens[0]} tokens ({report.image_tokens[0]} of images) were encoded once. Kept: "
            f"{tokens:.4g} a head, {size(kept)} of {size(full)} ({percent(report.byte_budget)} %)"
        )
        if self.context is not None and not cache.strategy.shortens_prompt:
            self.show_kept()
        for note in notes:
            self.say(f"note: {note}")
        if self.context is not None and self.context.questions:
            self.say(
                f"\nThe pictures are {self.context.paths[0]} …; /kept kept.png draws them and what is kept of each"
            )
            self.say("Questions that are known to have an answer:")
            for question, answer in self.context.questions:
                self.say("  " + question.strip().replace("\n", r"\n"), style="", end="")
                self.say(f"   ({answer})")
        self.say(f"\nAsk, or {', '.join(COMMANDS)}")

    def answer_all(self, lines: Iterable[str]) -> None:
        """Answer questions and obey commands, to the end of the lines or `/quit`."""
        for line in lines:
            if line.split()[:1] == ["/quit"]:
                return
            try:
                self.answer(line)
            except LookmError as error:
                if not _on_a_terminal():
                    raise
                self.say(f"error: {error}", "red")
            except KeyboardInterrupt:
                if not _on_a_terminal():
                    raise
                self.say(" … stopped; the question is forgotten")

    def answer(self, line: str) -> None:
        """Answer one question, or obey one command."""
        command, _, argument = line.partition(" ")
        if command == "/kept":
            self.draw_kept(Path(argument.strip())) if argument.strip() else self.show_kept()
        elif command == "/fresh":
            self.conversation.begin_again()
            self.say("begun again, from the context alone")
        elif command == "/save":
            if not argument.strip():
                raise LookmError("/save needs the name of a file")
            self.conversation.save(argument.strip())
            self.say(f"written: {argument.strip()}")
        elif command.startswith("/"):
            raise LookmError(f"unknown command {command}; {'; '.join(f'{c}: {what}' for c, what in COMMANDS.items())}")
        else:
            self.conversation.ask(
                line.replace(r"\n", "\n"), _Printer(self.conversation.backbone.tokenizer, self.console)
            )

    def known_context(self) -> Context:
        """The context, where it is known which of its tokens the heads keep.

        Raises:
            LookmError: it was loaded, or the strategy drops tokens before there are heads.
        """
        if self.context is None:
            raise LookmError("which tokens are kept is not in the file that was loaded; give the pictures again")
        refuse_shortening([self.conversation.cache.strategy])
        return self.context

    def show_kept(self) -> None:
        """A table of what is kept of the words and of each image."""
        context, kept = self.known_context(), positions_in(self.conversation.cache)
        share = kept.share()
        parts = [("text", share[~kept.is_image])]
        for span, path in zip(image_spans(kept.is_image, len(context.images)), context.paths, strict=True):
            parts.append((f"image {path.name}", share[span.start : span.stop]))
        rows = [
            Row((name, str(of_part.numel()), f"{float(of_part.sum()):.1f}", percent(float(of_part.mean()))))
            for name, of_part in parts
            if of_part.numel()
        ]
        show(Table("", ("", "tokens", "kept a head", "%"), tuple(rows)), sys.stdout)

    def draw_kept(self, path: Path) -> None:
        """Draw what is kept into a file.

        Raises:
            LookmError: a file that is no picture, or what is kept is not known.
        """
        context = self.known_context()
        if path.suffix not in (".png", ".svg", ".pdf"):
            raise LookmError(f"{path} is no picture; choose a name that ends in .png, .svg or .pdf")
        conversation, kept = self.conversation, positions_in(self.conversation.cache)
        texts = token_texts(conversation.backbone.tokenizer, conversation.context[0].tolist())
        save_figure(
            draw_kept(texts, context.images, [kept], f"{conversation.backbone.label} · all layers and heads"), path
        )
        self.say(f"written: {path}")


class _Console(Console):
    """Leaves a reader that has gone to `benchmarks.guard`, as every command does."""

    def on_broken_pipe(self) -> None:
        raise  # the error that is handled


class _Printer(TextStreamer):
    """Prints an answer as it comes."""

    def __init__(self, tokenizer: Any, console: Console) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self.console, self.begun = console, False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        text = text if self.begun else text.lstrip()
        self.begun = self.begun or bool(text)
        self.console.print(text, style="green", end="\n" if stream_end else "", markup=False)
        self.console.file.flush()


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _lines() -> Iterator[str]:
    """What is asked, without empty lines; a pipe's questions are printed, so that its answers can be read."""
    if not _on_a_terminal():
        for line in sys.stdin:
            if line.strip():
                print(f"\n{PROMPT}{line.strip()}", flush=True)
                yield line.strip()
        return
    with suppress(ImportError):
        import readline  # noqa: F401  arrow keys and history
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            line = input(f"\n{PROMPT}").strip()
            if line:
                yield line
