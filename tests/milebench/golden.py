"""MileBench's own inputs and outputs, as copied into `tests/data`."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

DATA = Path(__file__).resolve().parents[1] / "data"


def load_prompts() -> dict[str, Any]:
    return dict(json.loads((DATA / "prompts" / "official_prompts.json").read_text(encoding="utf-8")))


def load_scores() -> list[dict[str, Any]]:
    return list(json.loads((DATA / "scoring" / "official_scores.json").read_text(encoding="utf-8")))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(DATA / "prompts" / "byte_tokenizer.json"))
