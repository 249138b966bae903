"""Which heads of a model look at pictures: the calibration file of `strategy=sparsemm`.

    lookm head-scores --model tiny --output heads.json
    python run.py strategy=sparsemm strategy.scores=heads.json

Each prompt shows a handwritten number among pictures of coloured shapes and asks for it. The answer is given up to the
number; a head scores where the next token's query looks most at the picture that shows it. The numbers are those of
MileBench-mini's training split, so that none of them is in the benchmark.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.guard import guarded
from lookm.errors import LookmError

if TYPE_CHECKING:
    from torch import Tensor

    from lookm.models.backbone import Backbone


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a file of configs/model (default: tiny)")
    parser.add_argument("--prompts", type=int, default=64, help="how many (default: 64)")
    parser.add_argument("--images", type=int, default=6, help="pictures of a prompt (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures (default: 0)")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("overrides", nargs="*", help="as for run.py, such as device=cuda")
    options = parser.parse_args(argv)
    if options.prompts < 1 or options.images < 1:
        raise LookmError(f"--prompts {options.prompts} --images {options.images}: choose 1 or more of each")

    from baselines.sparsemm import save_head_scores, visual_hits
    from benchmarks.composition import compose_one
    from benchmarks.evaluation.run import load_backbone

    backbone = load_backbone(compose_one([f"model={options.model}", *options.overrides]))
    scores = visual_hits(backbone.model, number_prompts(backbone, options.prompts, options.images, options.seed))
    about = {"model": options.model, "prompts": options.prompts, "images": options.images, "seed": options.seed}
    save_head_scores(options.output, scores, **about)
    layers, heads = scores.shape
    best = int(scores.argmax())
    print(
        f"{layers} layers × {heads} heads, {options.prompts} prompts: mean {float(scores.mean()):.3f}, highest "
        f"{float(scores.max()):.3f} (layer {best // heads}, head {best % heads}); by chance {1 / options.images:.3f} "
        f"at most\nwritten: {options.output}"
    )
    return 0


def number_prompts(backbone: Backbone, prompts: int, images: int, seed: int) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Prompts with a number in one of their pictures, as `visual_hits` takes them."""
    import numpy as np
    import torch
    from PIL import Image

    from benchmarks.mini.pictures import digit_pool, draw_digit, draw_thing
    from benchmarks.mini.words import COLOURS, SHAPES
    from lookm.kept import image_spans
    from lookm.prompt import image_mask, image_token_ids

    rng, colours = np.random.default_rng(seed), list(COLOURS)
    image_ids = image_token_ids(backbone.model.config)
    for _ in range(prompts):
        pictures = [
            draw_thing(rng, colours[int(rng.integers(len(colours)))], SHAPES[int(rng.integers(len(SHAPES)))])
            for _ in range(images)
        ]
        place, digit = int(rng.integers(images)), int(rng.integers(10))
        colour = colours[int(rng.integers(len(colours)))]
        pictures[place] = draw_digit(rng, digit_pool("train"), digit, colour)
        question = "<ImageHere>" * images + f" What is the {colour} number?"
        inputs = backbone.inputs([question], [[Image.fromarray(picture) for picture in pictures]])
        begun = backbone.tokenizer(f" the {colour} number", add_special_tokens=False, return_tensors="pt").input_ids
        inputs = _continued(inputs, begun)
        is_image = image_mask(inputs["input_ids"], image_ids)[0].cpu()
        span = image_spans(is_image, images)[place]
        region = torch.zeros_like(is_image)
        region[span.start : span.stop] = True
        yield inputs, region


def _continued(inputs: dict[str, Any], tokens: Tensor) -> dict[str, Any]:
    """Inputs of one prompt with more text tokens (1, n) behind it."""
    import torch

    longer = dict(inputs)
    ids = inputs["input_ids"]
    longer["input_ids"] = torch.cat([ids, tokens.to(ids.device)], dim=1)
    for name, fill in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            more = torch.full(tokens.shape, fill, dtype=inputs[name].dtype, device=ids.device)
            longer[name] = torch.cat([inputs[name], more], dim=1)
    return longer


if __name__ == "__main__":
    sys.exit(main())
