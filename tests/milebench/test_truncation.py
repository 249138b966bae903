"""What the context limit did to a sample."""

import pytest

from benchmarks.milebench.lengths import GROUPS, truncation_group


@pytest.mark.parametrize(
    ("dropped_images", "dropped_tokens", "images", "group"),
    [
        (0, 0, 3, "untouched"),
        (0, 0, 0, "untouched"),
        (0, 5, 3, "text dropped"),
        (2, 0, 1, "images dropped"),
        (2, 9, 1, "images dropped"),
        (2, 9, 0, "text only"),
    ],
)
def test_each_sample_is_in_one_group(dropped_images: int, dropped_tokens: int, images: int, group: str) -> None:
    assert truncation_group(dropped_images, dropped_tokens, images) == group
    assert truncation_group(dropped_images, dropped_tokens, 576 * images) == group, "image tokens do as well"
    assert group in GROUPS
