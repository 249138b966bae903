"""The paper's budget curves, and every method's score over its bytes, from our runs: PNG and SVG with a caption.

    python -m scripts.figures figure5                      tiny model, MileBench-mini
    python -m scripts.figures figure6 --model llava7b      the paper's LLaVA-1.5-7B on MileBench
    python -m scripts.figures pareto                       every method over realised bytes (+experiment=matched)
    python -m scripts.figures asked                        the same runs, question seen and unseen, side by side

Reads run folders only. Fill them with `lookm sweep +experiment=figure5 model=…`; what is missing is named with the
command that fills it. The paper shows these curves as pictures without numbers, so ours stand alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.guard import guarded
from lookm.errors import LookmError

from .tables import add_arguments, read_equal_bytes, read_results

OUTPUT = Path("results/figures")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for wrong input."""
    options = _parser().parse_args(arguments)
    if options.figure in ("pareto", "asked"):
        equal_bytes(options)
    else:
        draw(options)
    return 0


def equal_bytes(options: argparse.Namespace) -> None:
    """Draws runs with a `budget=`, over realised bytes or by when they were asked; says where the picture lies.

    Raises:
        LookmError: wrong input, no runs with a `budget=`, or runs that must not stand in one figure.
    """
    from benchmarks.tables.curves import save_figure
    from benchmarks.tables.pareto import asked_caption, draw_asked, draw_pareto, pareto_caption

    if options.x or options.overrides:
        raise LookmError(f"{options.figure} is drawn at equal bytes: leave out --x; --where chooses runs, not --set")
    if options.figure == "pareto":
        part = read_equal_bytes(options)
        figure, text = draw_pareto(part), pareto_caption(part)
    else:
        part, unseen = (read_equal_bytes(options, question=question) for question in ("seen", "unseen"))
        figure, text = draw_asked(part, unseen), asked_caption(part, unseen)
    name = f"{options.figure}-{options.model}-{part.benchmark}"
    print("\n".join(map(str, save_figure(figure, options.output or OUTPUT / name, text))))


def draw(options: argparse.Namespace) -> None:
    """Draws the asked figure and says where it lies and what is missing.

    Raises:
        LookmError: wrong input, nothing to draw, or runs that must not stand in one figure.
    """
    from benchmarks.tables.curves import Axis, caption, draw_curves, save_figure
    from benchmarks.tables.score_table import notes

    (result,) = read_results(options.figure, options)
    experiment = result.experiment
    alphas = {round((row.alpha1 or 0) + (row.alpha2 or 0), 9) for row in experiment.rows if not row.is_full}
    axis: Axis = options.x or ("split" if len(alphas) == 1 else "nominal")
    figure = draw_curves(result, axis)
    text = caption(result)
    name = f"{options.figure}-{experiment.model}-{experiment.benchmark.name}"
    name += "-realised" if axis == "realised" else ""
    written = save_figure(figure, options.output or OUTPUT / name, text)
    print("\n".join(map(str, written)))
    for note in notes(result, marks=False):
        print(note, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(
        parser, "figure", "figure5 (scores over the budget), figure6 (over α1 : α2), pareto (over bytes) or asked"
    )
    parser.add_argument("--x", choices=["nominal", "realised", "split"], help="what lies on the horizontal axis")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help=f"path of the pictures, with or without an ending ({OUTPUT}/<figure>-<model>-<benchmark>)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
