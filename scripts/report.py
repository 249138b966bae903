"""Writes one HTML page about runs: tables, curves, costs, changes, samples, audits and where all of it is from.

    python -m scripts.report                                     # every run in results/runs
    python -m scripts.report results/runs/tiny-mini-* --output mine.html
    python -m scripts.report --samples MiniWebQA/3,N-1/0         # these samples instead of the most telling ones

The page is complete in itself: it opens from disk, loads nothing, and prints. For small models that are on this disk
the shown samples are encoded once more, to draw what each strategy kept of them.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.guard import guarded
from lookm.errors import LookmError


@guarded
def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, or folders of them (default: results/runs)")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="default: report.html")
    parser.add_argument("--samples", default="3", help="how many samples to show, or DATASET/ID,… (default: 3)")
    parser.add_argument(
        "--heat", choices=("auto", "yes", "no"), default="auto",
        help="run the model again to draw what was kept: auto does for small local weights (default: auto)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    size = write(options)
    print(f"written: {options.output} ({size / 2**20:.1f} MiB)")
    return 0


def write(options: argparse.Namespace) -> int:
    """Write the page; returns its size in bytes.

    Raises:
        LookmError: no runs, unknown samples, or a folder that cannot be written to.
    """
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise LookmError(f'{error.name} is missing; pip install "lookm-harness[report]"') from None

    from benchmarks.evaluation.store import find_runs
    from benchmarks.files import write_text, writing
    from benchmarks.report.groups import gather
    from benchmarks.report.page import make_parts, render

    if options.output.is_dir():
        raise LookmError(f"--output {options.output} is a folder; name a file, such as {options.output}/report.html")
    groups = gather(find_runs(options.runs or [Path("results/runs")]))
    html = render(make_parts(groups, samples=options.samples, heat=options.heat))
    with writing(options.output, "--output"):
        write_text(options.output, html)
    return len(html.encode())


if __name__ == "__main__":
    sys.exit(main())
