"""Each repair: what the official protocol gets wrong and the repaired one right."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.milebench import score_predictions
from benchmarks.milebench.repaired import contains, find_choice


def scores(dataset: str, truth: str, answer: str, *choices: str) -> tuple[float, float]:
    """The score of one answer by the official protocol, and by the repaired one."""
    annotation: dict[str, Any] = {
        "meta_data": {"question_type": "multi-choice" if choices else "open-ended", "task_instruction": [""]},
        "data": [
            {
                "sample_id": 0,
                "response": truth,
                "task_instance": {"context": "", "images_path": [], "choice_list": list(choices) or None},
            }
        ],
    }
    records = [{"sample_id": 0, "pred_response": answer, "gt_response": truth}]
    official, repaired = (
        score_predictions(dataset, annotation, records, protocol=protocol) for protocol in ("official", "repaired")
    )
    return official["scores"][0], repaired["scores"][0]


@pytest.mark.parametrize(
    ("truth", "answer", "choices"),
    [
        ("3.5", "3.5", ("3.5", "7")),  # special characters
        ("$350", "It costs $350.", ("1", "$350")),
        ("x|y", "x|y", ("z", "x|y")),
        ("$350", "It costs $350", ("350", "$350")),
        ("x", "The answer is B", ("y", "x")),  # a stated letter
        ("x", "answer: (B)", ("y", "x", "answer")),
        ("x", "Option B is what I see", ("y", "x")),
        ("x", "B) because of that", ("y", "x", "z")),
        ("the red cube", "the red cube", ("the red", "the red cube")),  # the longest choice
        ("none of these", "none of these", ("No", "none of these")),  # no choice inside a word
        ("img 64", "I know it is img 64", tuple(f"img {number}" for number in range(1, 91))),
        ("a/b", "a b", ("a", "a/b")),  # punctuation does not count
        ("x", "B", ("x", "x", "y")),  # of two equal choices, either is right
    ],
)
def test_a_right_choice_that_the_official_protocol_misses(truth: str, answer: str, choices: tuple[str, ...]) -> None:
    assert scores("TQA", truth, answer, *choices) == (0, 1)


def test_of_choices_that_differ_in_punctuation_the_one_written_is_meant() -> None:
    assert find_choice("It costs 350", ["$350", "350"]) == 1
    assert find_choice("It costs $350", ["350", "$350"]) == 1


@pytest.mark.parametrize("answer", ["", " \n", "..."])
def test_an_empty_answer_is_wrong_although_the_official_protocol_reads_c(answer: str) -> None:
    assert scores("TQA", "z", answer, "x", "y", "z") == (1, 0)


@pytest.mark.parametrize(
    ("truth", "answer", "choices"),
    [
        ("no", "noon", ("no", "yes")),
        ("1", "12,345", ("1", "2")),
        ("x", "a tall gate", ("x", "y")),  # the letters that are keys, joined, are no answer
    ],
)
def test_a_wrong_choice_that_the_official_protocol_takes(truth: str, answer: str, choices: tuple[str, ...]) -> None:
    official, repaired = scores("TQA", truth, answer, *choices)
    assert repaired == 0
    assert official == int(answer != "a tall gate")


@pytest.mark.parametrize(
    ("truth", "answer"), [("7", "code:7"), ("New York", "It is New York."), ("blue", "“blue”"), ("3.5", "(code=3.5)%")]
)
def test_a_needle_may_stand_next_to_punctuation(truth: str, answer: str) -> None:
    assert scores("TextNeedleInAHaystack", truth, answer)[1] == 1


def test_the_official_protocol_misses_such_needles() -> None:
    assert scores("TextNeedleInAHaystack", "7", "code:7") == (0, 1)
    assert scores("TextNeedleInAHaystack", "New York", "It is New York.") == (0, 1)


@pytest.mark.parametrize(("truth", "answer"), [("7", "71"), ("3.5", "3.51"), ("5", "3.5"), ("1", "1,234"), ("7", "")])
def test_a_needle_inside_another_word_or_number_is_not_found(truth: str, answer: str) -> None:
    assert scores("ImageNeedleInAHaystack", truth, answer) == (0, 0)


def test_an_empty_answer_holds_nothing() -> None:
    assert scores("MMCoQA", "?", "") == (1, 0)


def test_mmcoqa_stays_a_substring() -> None:
    assert scores("MMCoQA", "12", "it is 121") == (1, 1)


def test_gpr1200_shows_no_letters_and_so_reads_none() -> None:
    assert find_choice("The answer is B", ["img 1", "img 2"], lettered=False) is None
    assert find_choice("The answer is B", ["img 1", "img 2"]) == 1


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("A", 0),
        ("a", 0),
        ("(d)", 3),
        ("AA", None),
        ("B. the red", 0),  # a letter before another choice's text: the text counts
        ("A. the red cube", 1),
        ("A. the red\nB. the red cube", 0),
        ("It is a the red cube", 1),  # an article before a shorter choice
        ("The answer is a cube", None),  # an article is no letter
        ("The answer is A cube", None),
        ("The answer is A.", 0),
        ("Option A is wrong. The answer is B", 1),
        ("So it must be C, I think", 2),
        ("B, C", None),  # two letters are no answer
        ("Z", None),
        ("I see nothing", None),
        ("The correct choice would be choice D", 3),
    ],
)
def test_letters(answer: str, index: int | None) -> None:
    assert find_choice(answer, ["the red", "the red cube", "3.5", "$350"]) == index


@given(answer=st.text(), choices=st.lists(st.text(), max_size=90), lettered=st.booleans())
def test_any_text_gives_a_choice_or_none(answer: str, choices: list[str], lettered: bool) -> None:
    index = find_choice(answer, choices, lettered=lettered)
    assert index is None or 0 <= index < len(choices)


@given(choices=st.lists(st.text("abc12 .$+-", min_size=1).filter(str.strip), min_size=1, max_size=30), data=st.data())
def test_a_choice_word_for_word_is_that_choice(choices: list[str], data: st.DataObject) -> None:
    choice = data.draw(st.sampled_from(choices))
    index = find_choice(choice, choices, lettered=False)
    assert index is not None
    outer = " .,:;!?\"'`*()[]"
    assert " ".join(choices[index].split()).strip(outer) == " ".join(choice.split()).strip(outer)


@given(text=st.text(), phrase=st.text())
def test_what_is_contained_is_a_substring(text: str, phrase: str) -> None:
    if contains(text, phrase):
        assert "".join(phrase.lower().split()).strip(" .,:;!?\"'`*()[]") in "".join(text.lower().split())
