"""Pictures of one sample's prompt, which a model encodes once.

    lookm kept --sample MiniWebQA/3 --strategies h2o,tp_pmerge --layer 2 --output kept.svg
    lookm kept alpha1=0.05 alpha2=0.05
    lookm attention --model llava7b --benchmark milebench --sample TextNeedleInAHaystack/0

`kept` draws what strategies keep: words shaded, images veiled where their tokens were evicted; the warmer, the more
heads of all layers (or of one) kept the token. `attention` draws where attention goes, by modality (Figure 2 of the
LOOK-M paper): block means of A, averaged over the heads of a layer, and how much images receive in every layer. The
L × L matrix is never made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.guard import guarded
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.examples import ModelView
    from benchmarks.evaluation.settings import Settings
    from lookm.models.backbone import Backbone


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for wrong input."""
    options = _parser().parse_args(argv)
    if options.output.suffix not in (".png", ".svg", ".pdf"):
        raise LookmError(f"--output {options.output} is no picture; choose a name that ends in .png, .svg or .pdf")
    if options.what == "kept":
        draw_kept_tokens(options)
    else:
        draw_modalities(options)
    print(f"written: {options.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    pictures = parser.add_subparsers(dest="what", required=True)
    kept, attention = (
        pictures.add_parser(name, prog=f"lookm {name}", description=__doc__, formatter_class=raw)
        for name in ("kept", "attention")
    )
    for picture in (kept, attention):
        picture.add_argument("--model", default="tiny", help="a file of configs/model (default: tiny)")
        picture.add_argument("--benchmark", default="mini", help="a file of configs/benchmark (default: mini)")
        picture.add_argument("--sample", default="N-1", help="DATASET/ID; of a dataset or task code its first sample")
        picture.add_argument("overrides", nargs="*", help="as for run.py, such as alpha1=0.05 or device=cuda")
    kept.add_argument("--strategies", default="h2o,snapkv,tp_pmerge", help="default: h2o,snapkv,tp_pmerge")
    kept.add_argument("--layer", type=int, help="one layer, from 1; by default all are summed up")
    attention.add_argument("--cells", type=int, default=96, help="cells along the prompt, about (default: 96)")
    for picture, name in ((kept, "kept.png"), (attention, "attention.png")):
        picture.add_argument("--output", type=Path, default=Path(name), help="a .png, .svg or .pdf file")
    return parser


def draw_kept_tokens(options: argparse.Namespace) -> None:
    """Draws what strategies keep, and says it in shares.

    Raises:
        LookmError: wrong options, missing data or weights.
    """
    from benchmarks.report.attention_figure import save_figure
    from lookm import load_strategy
    from lookm.kept import kept_positions
    from lookm.kept_figure import draw_kept

    settings = _settings(options)
    asked = settings.strategy
    budget = {key: getattr(asked, key) for key in ("alpha1", "alpha2", "budget", "semantics")}
    strategies = [load_strategy(name, **budget) for name in options.strategies.split(",")]
    backbone, sample = _encoded(options, settings)
    kept = kept_positions(backbone.model, sample.inputs, strategies)
    if options.layer is not None and not 1 <= options.layer <= len(kept[0].layers):
        raise LookmError(f"--layer {options.layer} is none of the model's layers, 1 to {len(kept[0].layers)}")
    layer = None if options.layer is None else options.layer - 1
    where = "all layers and heads" if layer is None else f"all heads of layer {options.layer}"
    size = f"{asked.budget} tokens" if asked.nominal_budget is None else f"{asked.nominal_budget:.0%}"
    title = f"{_title(backbone, sample)} · nominal budget {size}, {where}"
    save_figure(draw_kept(sample.tokens, sample.images, kept, title, layer), options.output)
    for positions in kept:
        share = positions.share()
        text, images = float(share[~positions.is_image].mean()), float(share[positions.is_image].mean())
        print(f"{positions.strategy.name:10} keeps {text:.1%} of the text and {images:.1%} of the image tokens")


def draw_modalities(options: argparse.Namespace) -> None:
    """Draws attention by modality, and says what images receive.

    Raises:
        LookmError: wrong options, missing data or weights.
    """
    if options.cells < 2:
        raise LookmError(f"--cells {options.cells} shows nothing; choose 2 or more")
    from benchmarks.report.attention_figure import draw_attention, modality_edges, save_figure
    from lookm.attention_map import prompt_maps
    from lookm.prompt import image_token_ids, read_prompt

    backbone, sample = _encoded(options, _settings(options))
    ids = image_token_ids(backbone.model.config)
    is_image = read_prompt(sample.inputs["input_ids"], None, None, ids).is_image[0].cpu()
    maps = prompt_maps(backbone.model, sample.inputs, modality_edges(is_image, options.cells))
    counts = f"{len(sample.images)} images, {is_image.numel()} tokens ({is_image.float().mean():.0%} of images)"
    save_figure(draw_attention(maps, is_image, f"{_title(backbone, sample)} · {counts}"), options.output)
    for layer, attention in enumerate(maps, 1):
        share = attention.to_images.mean(0)
        print(f"layer {layer:2}: images receive {share[0]:.1%} of the attention, {share[1]:.1%} of text queries'")
    print(f"alike   : images would receive {maps[0].visible_images[0]:.1%}, {maps[0].visible_images[1]:.1%}")


def _settings(options: argparse.Namespace) -> Settings:
    from benchmarks.composition import compose_one

    return compose_one([f"model={options.model}", f"benchmark={options.benchmark}", *options.overrides])


def _encoded(options: argparse.Namespace, settings: Settings) -> tuple[Backbone, ModelView]:
    """The model, and the sample as it is given to it."""
    from benchmarks.evaluation.examples import find_sample, view_sample
    from benchmarks.evaluation.run import load_backbone

    settings.benchmark.prepare()
    dataset, sample_id = find_sample(settings.benchmark, options.sample)
    backbone = load_backbone(settings)
    return backbone, view_sample(backbone, dataset, sample_id)


def _title(backbone: Backbone, sample: ModelView) -> str:
    return f"{backbone.label} · {sample.dataset}/{sample.sample_id}"


if __name__ == "__main__":
    sys.exit(main())
