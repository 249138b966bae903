"""What the twelve tasks make, before anything is written."""

import numpy as np
import pytest

from benchmarks.mini.pictures import DigitPool, digit_pool, draw_pose, draw_thing
from benchmarks.mini.sample import IMAGE, Request, Sample
from benchmarks.mini.seeds import EVALUATION_SEEDS, evaluation_rng, training_rng
from benchmarks.mini.tasks.objects import THINGS
from benchmarks.mini.taxonomy import TASKS, MiniTask, mini_task
from benchmarks.mini.words import ACTIONS, NAMES
from lookm.errors import LookmError

EVERY_TASK = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.task)


def make(task: MiniTask, case: int, *, images: int = 15, questions: int = 1, seed: int = 0) -> Sample:
    rng = evaluation_rng(seed, TASKS.index(task), case)
    return task.make(Request(rng, digit_pool("eval"), images=images, questions=questions, case=case))


def pixels(sample: Sample) -> bytes:
    pictures = [*sample.pictures, *(p for question in sample.questions for p in question.pictures)]
    return b"".join(picture.tobytes() for picture in pictures)


def words(sample: Sample) -> list[object]:
    return [sample.context, *((q.text, q.sentence, q.response, q.choices) for q in sample.questions)]


def test_there_is_one_dataset_for_each_task_of_milebench() -> None:
    expected = ["T-1", "T-2", "T-3", "T-4", "S-1", "S-2", "S-3", "S-4", "S-5", "N-1", "N-2", "I-1"]
    assert [task.task for task in TASKS] == expected
    assert len({task.dataset for task in TASKS}) == len(expected)


@EVERY_TASK
def test_the_same_seed_makes_the_same_sample_and_another_seed_another(task: MiniTask) -> None:
    first, again, other = make(task, 3), make(task, 3), make(task, 3, seed=1)
    assert words(first) == words(again)
    assert pixels(first) == pixels(again)
    assert pixels(first) != pixels(other)


@EVERY_TASK
@pytest.mark.parametrize("images", [8, 15, 40])
def test_a_sample_has_the_images_asked_for_each_with_a_placeholder(task: MiniTask, images: int) -> None:
    sample = make(task, 1, images=images)
    question = sample.questions[0]
    assert len(sample.pictures) + len(question.pictures) == images
    assert sample.context.count(IMAGE) == len(sample.pictures)
    assert question.text.count(IMAGE) == len(question.pictures)
    assert all(p.shape == (32, 32, 3) and p.dtype == np.uint8 for p in sample.pictures)


@EVERY_TASK
def test_no_choice_is_part_of_another_and_one_is_right(task: MiniTask) -> None:
    for case in range(40):
        for question in make(task, case, questions=4).questions:
            if task.question_type == "open-ended":
                assert question.choices == ()
                continue
            assert len(question.choices) == task.answers
            assert question.choices.count(question.response) == 1
            assert not any(a in b for a in question.choices for b in question.choices if a is not b)


@EVERY_TASK
def test_no_answer_is_decided_by_its_first_word(task: MiniTask) -> None:
    """The first word said is the same for all choices, stands in the question, or is no part of the response."""
    for case in range(40):
        question = make(task, case).questions[0]
        said = question.sentence.split()[0]
        beginnings = {choice.split()[0] for choice in question.choices} or {said}
        fixed = {"the", "seen", "by", "first", "last", "after", "from", "there"}
        asked = set(question.text.rstrip("?").split())
        assert beginnings == {said} <= fixed | asked or said not in question.response.split()


@EVERY_TASK
def test_the_response_is_in_the_sentence_the_model_learns(task: MiniTask) -> None:
    for case in range(10):
        for question in make(task, case, questions=3).questions:
            assert question.response in question.sentence
            assert question.sentence.startswith(" ")


@pytest.mark.parametrize(("task", "kinds"), [("T-2", 2), ("T-3", 4), ("S-5", 4), ("N-1", 10), ("N-2", 10), ("S-2", 10)])
def test_each_answer_is_right_equally_often(task: str, kinds: int) -> None:
    answers = [make(mini_task(task), case).questions[0].sentence.split() for case in range(40)]
    decisive = [answer[2] if task == "T-2" else answer[-1] for answer in answers]
    assert sorted(decisive.count(word) for word in set(decisive)) == [40 // kinds] * kinds


@EVERY_TASK
def test_each_place_in_the_choice_list_is_right_equally_often(task: MiniTask) -> None:
    if task.question_type == "open-ended":
        pytest.skip("free text")
    questions = [make(task, case).questions[0] for case in range(120)]
    places = [question.choices.index(question.response) for question in questions]
    counts = [places.count(place) for place in range(task.answers or 0)]
    assert max(counts) - min(counts) <= 10


def test_reading_is_tested_on_digits_that_training_never_shows() -> None:
    train, held_out = (
        {row for rows in pool.indices for row in rows} for pool in (digit_pool("train"), digit_pool("eval"))
    )
    assert not train & held_out
    assert len(train | held_out) == 1797
    assert all(len(rows) > 20 for rows in digit_pool("eval").indices)


def test_a_pool_only_draws_its_own_digits() -> None:
    pool = digit_pool("eval")
    own = {pool.images[row].tobytes() for row in pool.indices[7]}
    rng = np.random.default_rng(0)
    assert all(DigitPool.draw(pool, rng, 7).tobytes() in own for _ in range(50))


def test_training_refuses_the_evaluations_seeds_and_the_evaluation_the_trainings() -> None:
    last = EVALUATION_SEEDS[-1]
    with pytest.raises(LookmError, match=f"seed {last} is kept for the evaluation"):
        training_rng(last, 0)
    with pytest.raises(LookmError, match="give one from 0 to 999999"):
        evaluation_rng(last + 1, 0, 0)


def test_no_name_begins_another() -> None:
    assert len(set(NAMES)) == 48
    assert not any(a != b and b.startswith(a) for a in NAMES for b in NAMES)


def test_the_matching_picture_shows_the_same_thing_elsewhere() -> None:
    for case in range(20):
        sample = make(mini_task("I-1"), case)
        question = sample.questions[0]
        names = [name for name in sample.context.replace(IMAGE, " ").split() if name in NAMES]
        match = sample.pictures[names.index(question.response.split()[-1])]
        query = question.pictures[0]
        bright = [picture[picture.max(-1) > 100].mean(0) for picture in (match, query)]
        assert np.abs(bright[0] - bright[1]).max() < 40  # the same colour
        assert match.tobytes() != query.tobytes()


def test_no_other_name_is_read_out_of_a_thing_and_a_name() -> None:
    """MileBench's evaluator takes the spaces out of answers before it looks for a choice."""
    said = [f"{''.join(thing)}{name}" for thing in THINGS for name in NAMES]
    assert not [(answer, name) for answer in said for name in NAMES if name in answer and not answer.endswith(name)]


def test_one_frame_alone_does_not_tell_which_way_a_disc_goes() -> None:
    """Each quarter that a disc is first or last in fits two directions."""
    seen: dict[str, set[str]] = {}
    for case in range(200):
        for question in make(mini_task("T-3"), case, questions=2).questions:
            words, way = question.sentence.split(), question.response
            seen.setdefault(f"first {' '.join(words[2:4])}", set()).add(way)
            seen.setdefault(f"last {' '.join(words[6:8])}", set()).add(way)
    assert len(seen) == 8
    assert all(len(ways) == 2 for ways in seen.values())


def test_every_pose_looks_different() -> None:
    outlines = {(draw_pose(np.random.default_rng(0), action).max(-1) > 100).tobytes() for action in ACTIONS}
    assert len(outlines) == len(ACTIONS)


def test_a_red_square_is_red_and_square() -> None:
    picture = draw_thing(np.random.default_rng(0), "red", "square").astype(int)
    rows, columns = np.nonzero(picture[..., 0] > 150)
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) > 100
    assert (picture[rows, columns, 1:] < 100).all()
