"""Where a question begins: in every dataset by a rule of its own, and in prompts at their end."""

from pathlib import Path

import pytest

from benchmarks.benchmark import DatasetInfo
from benchmarks.milebench import DATASETS, build_prompt
from benchmarks.mini.benchmark import ASKS
from benchmarks.mini.taxonomy import TASKS
from benchmarks.mini.writer import MiniSettings, annotation_entry, evaluation_sample
from lookm.errors import LookmError
from lookm.models.tiny import load_tiny

INFO = {info.dataset: info for info in DATASETS}
QUESTIONS = [
    ("SlideVQA", "{image#1}{image#2}Question: Which is older?", "Question: Which is older?"),
    ("WebQA", "Fact: {image#1} a tree. {image#2} a hut.\nQuestion: How high?", "\nQuestion: How high?"),
    ("TQA", "Question: old? {image#1} Question: new?", " Question: new?"),
    ("MovingDirection", "{image#1}{image#2} Where does it go", " Where does it go"),
    ("ObjectExistence", "Frames {image#1} {image#2}. It rolls. Is there a cube?", " Is there a cube?"),
    ("MMCoQA", "{image#1} a lamp. Q: Is it old? A: yes Q: And new?", " Q: And new?"),
    ("TextNeedleInAHaystack", "{image#1} The word is oak. What is the word?", " What is the word?"),
    ("GPR1200", "{image#1}{image#2} Like {table#3} which", " which"),
]
NONE = [
    ("WebQA", "Question: How high? {image#1} a tree."),  # it stands first: the compression would know it
    ("TextNeedleInAHaystack", "{image#1} The word is oak."),  # the needle is no question
    ("Spot-the-Diff", "{image#1}{image#2}Difference:"),
    ("ALFRED", "Goal: cook. {image#1} Step 2:"),
    ("ObjectShuffle", "{image#1}{image#2} "),
    ("SlideVQA", "What is it?"),
]


@pytest.mark.parametrize(("dataset", "context", "question"), QUESTIONS)
def test_a_question_begins_where_its_dataset_s_rule_says(dataset: str, context: str, question: str) -> None:
    start = INFO[dataset].question_start(context, choices=False)
    assert start is not None
    assert context[start:] == question


@pytest.mark.parametrize(("dataset", "context"), NONE)
def test_a_context_without_a_question_of_its_own_has_no_boundary(dataset: str, context: str) -> None:
    assert INFO[dataset].question_start(context, choices=False) is None


def test_a_list_of_choices_may_be_all_that_comes_after_the_images() -> None:
    context = "{image#1}{image#2} "
    assert INFO["ObjectShuffle"].question_start(context, choices=True) == context.rindex(" ")


def test_all_datasets_but_the_four_whose_instruction_asks_have_a_rule() -> None:
    assert {name for name, info in INFO.items() if not info.asks} == {
        "Spot-the-Diff",
        "CLEVR-Change",
        "IEdit",
        "ALFRED",
    }


@pytest.mark.parametrize("task", TASKS, ids=[task.task for task in TASKS])
def test_mini_s_questions_begin_where_its_contexts_end(task: object) -> None:
    assert isinstance(task, type(TASKS[0]))
    info = DatasetInfo(task.dataset, task.task, task.metric, 1, None, ASKS)
    settings = MiniSettings(questions=4)
    for case in range(3):
        sample = evaluation_sample(task, settings, case)
        assert len(sample.questions) == settings.asked(task)
        for number, question in enumerate(sample.questions):
            context = annotation_entry(sample, case, "last", number)["task_instance"]["context"]
            start = info.question_start(context, choices=bool(question.choices))
            assert start is not None
            assert context[:start].count("{image#") == len(sample.pictures)
            assert context[start:].split("{")[0] == question.text.split("{")[0]


def prompt_of(room: int, question: str = " What is it?") -> str:
    """The question of a prompt that has so many tokens at most."""
    context = "{image#1}{image#2} a lamp." + question
    sample = {
        "sample_id": 0,
        "task_instruction_id": 0,
        "task_instance": {"context": context, "images_path": ["0.png", "1.png"], "choice_list": ["yes", "no"]},
    }
    prompt = build_prompt(
        sample, "Look.", dataset="WebQA", tokenizer=load_tiny().tokenizer, max_context_len=room, n_tokens_per_image=4,
        image_dir=Path("images"), question_start=context.index(question),
    )  # fmt: skip
    assert prompt.text == prompt.before_question + prompt.question
    return prompt.question


def test_a_prompt_knows_its_question_with_its_choices_however_much_is_cut_before_it() -> None:
    asked = " What is it?\nChoice list: \nA. yes\nB. no\nYour answer is: "
    assert {prompt_of(room) for room in (500, 60)} == {asked}
    assert prompt_of(500, " And{image#2}?").startswith(" And<ImageHere>?\nChoice list:")


def test_a_question_that_is_cut_itself_is_refused() -> None:
    with pytest.raises(LookmError, match="no room for what is before the question"):
        prompt_of(12)
