"""Draws what strategies keep of a sample's prompt: words shaded, images veiled where their tokens were evicted.

    python -m scripts.kept
    python -m scripts.kept --sample MiniWebQA/3 --strategies h2o,tp_pmerge --layer 2 --output kept.svg
    python -m scripts.kept alpha1=0.05 alpha2=0.05

A word or a part of an image is the warmer the more heads of all layers (or of one) kept its token.
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
    parser.add_argument("--model", default="tiny", help="a file of configs/model (default: tiny)")
    parser.add_argument("--benchmark", default="mini", help="a file of configs/benchmark (default: mini)")
    parser.add_argument("--sample", default="N-1", help="DATASET/ID, or a dataset or task code for its first sample")
    parser.add_argument(
        "--strategies", default="h2o,snapkv,tp_pmerge", help="names of configs/strategy (default: h2o,snapkv,tp_pmerge)"
    )
    parser.add_argument("--layer", type=int, help="one layer, from 1; by default all are summed up")
    parser.add_argument("--output", type=Path, default=Path("kept.png"), help="a .png, .svg or .pdf file")
    parser.add_argument("overrides", nargs="*", help="as for run.py, such as alpha1=0.05 or device=cuda")
    options = parser.parse_args(argv)
    draw(options)
    return 0


def draw(options: argparse.Namespace) -> None:
    """Encode the sample's prompt once and write the picture.

    Raises:
        LookmError: wrong options, missing data or weights.
    """
    if options.output.suffix not in (".png", ".svg", ".pdf"):
        raise LookmError(f"--output {options.output} is no picture; choose a name that ends in .png, .svg or .pdf")
    from benchmarks.composition import compose_one
    from benchmarks.evaluation.examples import find_sample, view_sample
    from benchmarks.evaluation.run import load_backbone
    from benchmarks.report.attention_figure import save_figure
    from benchmarks.report.kept_figure import draw_kept
    from lookm import load_strategy
    from lookm.kept import kept_positions

    settings = compose_one([f"model={options.model}", f"benchmark={options.benchmark}", *options.overrides])
    asked = settings.strategy
    budget = {"alpha1": asked.alpha1, "alpha2": asked.alpha2, "semantics": asked.semantics}
    strategies = [load_strategy(name, **budget) for name in options.strategies.split(",")]
    settings.benchmark.prepare()
    dataset, sample_id = find_sample(settings.benchmark, options.sample)
    backbone = load_backbone(settings)
    sample = view_sample(backbone, dataset, sample_id)
    kept = kept_positions(backbone.model, sample.inputs, strategies)
    if options.layer is not None and not 1 <= options.layer <= len(kept[0].layers):
        raise LookmError(f"--layer {options.layer} is none of the model's layers, 1 to {len(kept[0].layers)}")
    layer = None if options.layer is None else options.layer - 1
    where = "all layers and heads" if layer is None else f"all heads of layer {options.layer}"
    title = (
        f"{backbone.label} · {sample.dataset}/{sample_id} · nominal budget {asked.alpha1 + asked.alpha2:.0%}, {where}"
    )
    save_figure(draw_kept(sample, kept, title, layer), options.output)
    for positions in kept:
        share = positions.share()
        text, images = float(share[~positions.is_image].mean()), float(share[positions.is_image].mean())
        print(f"{positions.strategy.name:10} keeps {text:.1%} of the text and {images:.1%} of the image tokens")
    print(f"written: {options.output}")


if __name__ == "__main__":
    sys.exit(main())
