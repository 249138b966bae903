"""Batches, rounds and likelihoods equal what the model says when it is asked plainly."""

import pytest
import torch

from benchmarks.lmms_eval.answers import answers, generation, likelihoods, rounds, until
from benchmarks.lmms_eval.messages import Question
from lookm import load_strategy, look_once
from lookm.models.backbone import IMAGE_HERE, Backbone
from lookm.registry import load_model
from tests.lmms_eval.trial.trial import pictures

PICTURES = tuple(pictures({}))
QUESTIONS = [
    Question(f"Find the fact.\n The badge of {name} {number}.{IMAGE_HERE * 8} What is the badge of {name}?", PICTURES)
    for name, number in (("ada", 7), ("bob", 3))
]


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_model("tiny", device="cpu")


@pytest.mark.parametrize("strategy", ["full", "tp_pmerge", "pyramidkv"])
def test_a_batch_answers_as_each_question_alone(tiny: Backbone, strategy: str) -> None:
    chosen = load_strategy(strategy)
    together = answers(tiny, chosen, QUESTIONS, {})
    assert together == [answer for question in QUESTIONS for answer in answers(tiny, chosen, [question], {})]
    assert [answer.text for answer in together] == ["the badge of ada 7", "the badge of bob 3"]
    for answer in together:
        assert (
            answer.kept_bytes == answer.full_bytes if strategy == "full" else answer.kept_bytes < answer.full_bytes / 3
        )


def test_bytes_are_those_of_the_engines_report(tiny: Backbone) -> None:
    (answer,) = answers(tiny, load_strategy("h2o"), QUESTIONS[:1], {})
    with look_once(tiny.model, "h2o") as session:
        tiny.model.generate(**tiny.inputs([QUESTIONS[0].text], [PICTURES]), max_new_tokens=16, do_sample=False)  # type: ignore[operator]
    assert answer.kept_bytes / answer.full_bytes == session.report().byte_budget
    assert answer.prompt_tokens == session.report().prompt_tokens[0]


def test_a_round_of_text_goes_on_from_the_compressed_cache(tiny: Backbone) -> None:
    again = Question(" What is the badge of ada?", ())
    first, second = rounds(tiny, load_strategy("tp_pmerge"), [QUESTIONS[0], again], {})
    assert [first.text, second.text] == ["the badge of ada 7"] * 2
    assert second.kept_bytes == first.kept_bytes
    whole = tiny.template.replace("{question}", QUESTIONS[0].text) + first.text + f"\n{again.text}"
    alone = Question(whole, PICTURES)
    (plain, plainly), (other,) = (
        rounds(tiny, load_strategy("full"), [QUESTIONS[0], again], {}),
        answers(tiny, load_strategy("full"), [alone], {}),
    )
    assert (plain.text, plainly.text) == (first.text, other.text)


def test_a_round_with_images_is_a_prompt_of_its_own(tiny: Backbone) -> None:
    strategy = load_strategy("h2o")
    together = list(rounds(tiny, strategy, QUESTIONS, {}))
    assert together == [answer for question in QUESTIONS for answer in answers(tiny, strategy, [question], {})]


def test_the_next_question_is_asked_for_when_the_last_is_answered(tiny: Backbone) -> None:
    said: list[str] = []

    def ask():  # type: ignore[no-untyped-def]
        yield QUESTIONS[0]
        assert said == ["the badge of ada 7"]
        yield Question(" What is the badge of ada?", ())

    for answer in rounds(tiny, load_strategy("tp"), ask(), {}):
        said.append(answer.text)
    assert len(said) == 2


@pytest.mark.parametrize("strategy", ["full", "tp_pmerge", "adakv"])
def test_likelihoods_are_those_of_the_tokens_one_by_one(tiny: Backbone, strategy: str) -> None:
    choices = [" the badge of ada 7", " the badge of ada 1", " a square", ""]
    found, report = likelihoods(tiny, load_strategy(strategy), QUESTIONS[0], choices)
    model = tiny.model
    for choice, (loss, greedy) in zip(choices, found, strict=True):
        ids = tiny.encode(choice)
        with look_once(model, strategy), torch.inference_mode():
            output = model(**tiny.inputs([QUESTIONS[0].text], [PICTURES]), use_cache=True)
            plain, best = [], []
            for token in ids:
                logits = output.logits[0, -1].log_softmax(-1)
                plain.append(-float(logits[token]))
                best.append(int(logits.argmax()) == token)
                output = model(input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values)
        assert loss == pytest.approx(sum(plain) / max(1, len(plain)), rel=1e-4, abs=1e-6)
        assert greedy == all(best)
    assert min(found[:3]) == found[0]
    assert (report.byte_budget == 1) == (strategy == "full")
    assert found[0][1]


def test_stop_texts_cut_and_the_one_that_lmms_eval_adds_does_not() -> None:
    assert until(" a\n\nb; c", {"until": ["\n\n", ";"]}) == "a\n\nb"
    assert until("a", {}) == "a"


def test_generation_is_greedy_unless_a_temperature_says_otherwise(tiny: Backbone) -> None:
    assert not generation({"temperature": 0, "do_sample": True, "top_p": 0.5}, tiny)["do_sample"]
    assert generation({"temperature": 0.7, "top_p": 0.5}, tiny) == {
        **{"max_new_tokens": 16, "num_beams": 1, "do_sample": True, "temperature": 0.7, "top_p": 0.5},
        "pad_token_id": tiny.tokenizer.pad_token_id,
    }


def test_beams_and_longer_answers_are_what_is_asked_for(tiny: Backbone) -> None:
    (answer,) = answers(tiny, load_strategy("tp_pmerge"), QUESTIONS[:1], {"num_beams": 2, "max_new_tokens": 2})
    assert answer.answer_tokens == 2
