"""A chat about pictures: they are encoded and compressed once, and questions are answered from what was kept.

    lookm chat                                            a context of MileBench-mini, with questions that it answers
    lookm chat strategy=replay budget=0.1 --sample N-2
    lookm chat model=llava7b strategy=tp_pmerge page1.png page2.png --context "Two pages of a report."
    echo "What is the badge of ada?" | lookm chat --load report.cache

One question a line; later ones see the answers to earlier ones. `\\n` in a question is a new line. In the chat: /kept
/fresh /save FILE /quit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.guard import guarded
from lookm.errors import LookmError


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for wrong input."""
    options = _parser().parse_intermixed_args(argv)
    overrides = [word for word in options.words if _is_override(word)]
    pictures = [Path(word) for word in options.words if not _is_override(word)]
    given = [name for name in ("sample", "load") if getattr(options, name)] + ["pictures"] * bool(
        pictures or options.context
    )
    if len(given) > 1:
        raise LookmError(f"{' and '.join(given)} are given; a chat is about one of them")

    from benchmarks.composition import compose_one

    settings = compose_one([*overrides, "question=many"])  # MileBench-mini with several questions a context
    if not given and settings.benchmark.name != "mini":
        raise LookmError(
            f"model={settings.model} needs something to talk about: pictures, --context, --sample or --load"
        )

    from benchmarks import chat
    from benchmarks.evaluation.run import load_backbone

    context = chat.given_context(pictures, options.context) if given == ["pictures"] else None
    backbone = load_backbone(settings)
    if context is None and options.load is None:
        context = chat.sample_context(backbone, settings, options.sample or "N-1")
    chat.chat(backbone, settings, context, options.load)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lookm chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="key=value | PICTURE", help="as for run.py, and files of pictures")
    parser.add_argument("--context", default="", help="words beside the pictures; <ImageHere> says where each belongs")
    parser.add_argument("--sample", help="a benchmark's context: DATASET/ID, a dataset or a task code (default: N-1)")
    parser.add_argument("--load", type=Path, metavar="FILE", help="go on from a context that /save wrote")
    return parser


def _is_override(word: str) -> bool:
    """Whether an argument is key=value and no file."""
    return "=" in word and not Path(word).exists()


if __name__ == "__main__":
    sys.exit(main())
