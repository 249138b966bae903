"""The conversation templates are MILEBENCH.md's, word for word."""

import pytest

from lookm.errors import LookmError
from lookm.models.templates import TEMPLATES, template_text


def test_llavas_template_is_llama_2s_with_its_system_prompt() -> None:
    assert template_text("llava_llama_2").replace("{question}", "Q?") == (
        "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using natural language."
        "\n<</SYS>>\n\nQ? [/INST]"
    )


def test_mobilevlms_template_is_vicunas() -> None:
    assert template_text("vicuna_v1").replace("{question}", "Q?") == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: Q? ASSISTANT:"
    )


def test_every_template_holds_the_question_once() -> None:
    assert all(text.count("{question}") == 1 for text in TEMPLATES.values())


def test_an_unknown_template_is_refused_with_those_there_are() -> None:
    with pytest.raises(LookmError, match=r"unknown template 'vicuna'; choose one of plain, llava_llama_2, vicuna_v1"):
        template_text("vicuna")
