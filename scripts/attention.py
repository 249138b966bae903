"""Draws where attention goes while a sample's prompt is encoded, by modality (Figure 2 of the LOOK-M paper).

    python -m scripts.attention
    python -m scripts.attention --sample MiniWebQA/3 --output attention.pdf
    python -m scripts.attention --model llava7b --benchmark milebench --sample TextNeedleInAHaystack/0

The maps show block means of A, averaged over the heads of a layer; the bars show, for every layer, how much attention
images and text receive. The L × L matrix is never made.
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
    parser.add_argument("--cells", type=int, default=96, help="cells along the prompt, about (default: 96)")
    parser.add_argument("--output", type=Path, default=Path("attention.png"), help="a .png, .svg or .pdf file")
    parser.add_argument("overrides", nargs="*", help="as for run.py, such as device=cuda or data_dir=…")
    options = parser.parse_args(argv)
    draw(options)
    return 0


def draw(options: argparse.Namespace) -> None:
    """Encode the sample's prompt once and write the picture.

    Raises:
        LookmError: wrong options, missing data or weights.
    """
    if options.cells < 2:
        raise LookmError(f"--cells {options.cells} shows nothing; choose 2 or more")
    if options.output.suffix not in (".png", ".svg", ".pdf"):
        raise LookmError(f"--output {options.output} is no picture; choose a name that ends in .png, .svg or .pdf")
    from benchmarks.composition import compose_one
    from benchmarks.evaluation.examples import find_sample, view_sample
    from benchmarks.evaluation.run import load_backbone
    from benchmarks.report.attention_figure import draw_attention, modality_edges, save_figure
    from lookm.attention_map import prompt_maps
    from lookm.prompt import image_token_ids, read_prompt

    settings = compose_one([f"model={options.model}", f"benchmark={options.benchmark}", *options.overrides])
    settings.benchmark.prepare()
    dataset, sample_id = find_sample(settings.benchmark, options.sample)
    backbone = load_backbone(settings)
    sample = view_sample(backbone, dataset, sample_id)
    ids = sample.inputs["input_ids"]
    is_image = read_prompt(ids, None, None, image_token_ids(backbone.model.config)).is_image[0].cpu()
    maps = prompt_maps(backbone.model, sample.inputs, modality_edges(is_image, options.cells))
    title = (
        f"{backbone.label} · {sample.dataset}/{sample_id} · {len(sample.images)} images, "
        f"{is_image.numel()} tokens ({is_image.float().mean():.0%} of images)"
    )
    save_figure(draw_attention(maps, is_image, title), options.output)
    for layer, attention in enumerate(maps, 1):
        share = attention.to_images.mean(0)
        print(f"layer {layer:2}: images receive {share[0]:.1%} of the attention, {share[1]:.1%} of text queries'")
    print(f"alike   : images would receive {maps[0].visible_images[0]:.1%}, {maps[0].visible_images[1]:.1%}")
    print(f"written: {options.output}")


if __name__ == "__main__":
    sys.exit(main())
