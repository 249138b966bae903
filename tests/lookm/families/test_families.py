"""Every family of transformers is compressed rightly, or refused in one line; docs/models.md says which."""

import warnings

import pytest
import torch
from transformers import CONFIG_MAPPING

from tests.lookm.families.outcomes import OUTCOMES
from tests.lookm.families.page import PAGE, page
from tests.lookm.families.text import TEXT_MODELS, text_model
from tests.lookm.families.trial import outcome_of, reads_tails_at_any_time
from tests.lookm.families.vision import VISION_MODELS, vision_model

IN_ONE_PASS = ("paligemma", "gemma3", "gemma3 (without token_type_ids)", "mllama", "kosmos-2")
"""Their decoder's arguments cannot be divided between a prompt and the tokens behind it."""


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.filterwarnings("ignore:h2o compressed nothing")
def test_a_family_is_compressed_rightly_or_refused(name: str) -> None:
    if name.split(" ")[0] not in CONFIG_MAPPING:
        pytest.skip("this transformers does not have it")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in VISION_MODELS:
            model, inputs = vision_model(name)
        else:
            ids = torch.randint(3, 90, (1, 40))
            model, inputs = text_model(name), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        outcome = outcome_of(model, inputs)
        assert outcome == OUTCOMES[name]
        if not outcome.startswith("refused"):
            assert reads_tails_at_any_time(model, inputs) == (name not in IN_ONE_PASS)


def test_the_table_has_every_model() -> None:
    assert set(OUTCOMES) == {*TEXT_MODELS, *VISION_MODELS}


def test_the_page_is_what_its_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
