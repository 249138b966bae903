"""The released cache classes' outputs (shared/golden/kv, copied to tests/data) under `semantics="release"`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lookm import compress
from tests.lookm.rounding import assert_close, merge_error

CASES = sorted((Path(__file__).parents[1] / "data" / "golden_kv").glob("*.npz"))
NAMES = ["h2o", "a_merge", "w_merge", "p_merge", "tp", "tp_amerge", "tp_wmerge", "tp_pmerge", "snapkv"]


@pytest.fixture(scope="module", params=CASES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    with np.load(request.param) as file:
        return {name: torch.as_tensor(file[name]) for name in file.files}


def _in_one_order(states: torch.Tensor) -> torch.Tensor:
    """Sort the tokens of each head by their contents: the released SnapKV stores them in score order."""
    return torch.stack([torch.tensor(sorted(head.tolist())) for head in states[0]])


@pytest.mark.parametrize("name", NAMES)
def test_release_semantics_reproduce_the_released_code(case: dict[str, torch.Tensor], name: str) -> None:
    keys, values = compress(
        *(case[states].float() for states in ("queries", "keys", "values")),
        case["is_image"],
        strategy=name,
        alpha1=float(case["alpha1"]),
        alpha2=float(case["alpha2"]),
        semantics="release",
    )
    expected_keys, expected_values = case[f"{name}.keys"], case[f"{name}.values"]
    assert keys.shape == expected_keys.shape
    if name == "snapkv":
        keys, expected_keys = _in_one_order(keys), _in_one_order(expected_keys)
        values, expected_values = _in_one_order(values), _in_one_order(expected_values)
    assert_close(keys, expected_keys, absolute=2 * merge_error(case["keys"][0]))  # theirs was rounded too
    assert_close(values, expected_values, absolute=2 * merge_error(case["values"][0]))


def test_both_cases_are_there() -> None:
    assert [path.stem for path in CASES] == ["release_three_images_tight", "release_two_images"]
