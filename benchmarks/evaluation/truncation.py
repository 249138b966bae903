"""What the context limit did to a sample, for tables that are split by it."""

from __future__ import annotations

from benchmarks.evaluation.records import SampleRecord

GROUPS = ("untouched", "text dropped", "images dropped", "text only")
"""In this order: nothing dropped; text only dropped; images dropped and some left; images dropped and none left."""


def truncation(record: SampleRecord) -> str:
    """The group of a line of `samples.jsonl`, one of GROUPS."""
    return truncation_group(record.dropped_images, record.dropped_tokens, len(record.images))


def truncation_group(dropped_images: int, dropped_tokens: int, images_left: int) -> str:
    """The group of a sample, one of GROUPS.

    Args:
        dropped_images, dropped_tokens: images and text tokens of the sample that are not in its prompt.
        images_left: images, or as well image tokens, that are.
    """
    if dropped_images:
        return "images dropped" if images_left else "text only"
    return "text dropped" if dropped_tokens else "untouched"
