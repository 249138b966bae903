"""docs/models.md: what `look_once` does on transformers' models; `python -m tests.lookm.families.page` writes it."""

import re
from pathlib import Path

from tests.lookm.families.outcomes import OUTCOMES
from tests.lookm.families.vision import VISION_MODELS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "models.md"


def page() -> str:
    """The page, from the table of outcomes."""
    whole = {name for name, outcome in OUTCOMES.items() if re.fullmatch(r"compressed [\d, ]+", outcome)}
    refused = {name: outcome for name, outcome in OUTCOMES.items() if outcome.startswith("refused")}
    mixed = {name: outcome for name, outcome in OUTCOMES.items() if name not in whole | refused.keys()}
    lines = [
        "# Models that look_once was tried with",
        "",
        "Made by `python -m tests.lookm.families.page` from the table that the tests compare with what happens.",
        "",
        f"{len(OUTCOMES)} tiny random models of transformers' own classes, named by their `model_type`.",
        "The full cache must give the tokens of plain generation; h2o must keep what column sums of the model's",
        "eager attention weights say, under its real mask; a decode step must equal the plain model's on the same",
        "keys and values; padded rows, and the rows of a sweep, must equal the rows alone.",
        "What cannot be right is refused in one line, before a token comes out.",
        "",
        f"- Text, every layer compressed: {_listed(whole - VISION_MODELS.keys())}.",
        f"- Vision-language, every layer compressed: {_listed(whole & VISION_MODELS.keys())}.",
        "",
        "Layers with a window, with a state (linear attention) or with attention on images alone stay as they are:",
        "",
        "| model | layers (of the tiny model) |",
        "|---|---|",
        *(f"| {name} | {outcome} |" for name, outcome in mixed.items()),
        "",
        "| refused | what is said |",
        "|---|---|",
        *(f"| {name} | {outcome.removeprefix('refused: ')} |" for name, outcome in refused.items()),
    ]
    return "\n".join(lines) + "\n"


def _listed(names: set[str]) -> str:
    return ", ".join(name for name in OUTCOMES if name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
