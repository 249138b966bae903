"""question=unseen and question=many: contexts are compressed before their questions are read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation import generate
from benchmarks.evaluation.batches import Encoded, read_batches
from benchmarks.evaluation.comparable import comparable, differences
from benchmarks.evaluation.examples import read_datasets, view_sample
from benchmarks.evaluation.records import SampleRecord, read_records
from benchmarks.evaluation.run import load_backbone, run, run_group
from benchmarks.evaluation.settings import Settings
from lookm import look_once
from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import DATASETS

MINI = ["benchmark=mini", "model=tiny", "limit=4", "benchmark.samples=4", "benchmark.most_images=14"]
DATASET = {"N-1": "MiniTextNeedleInAHaystack", "I-1": "MiniGPR1200", "S-4": "MiniMMCoQA"}


def records_of(settings: Settings, task: str) -> list[SampleRecord]:
    """The records of a run, without times."""
    records = read_records(settings.folder / DATASET[task] / "samples.jsonl")
    return [replace(record, times=None) for record in records.values()]


@pytest.mark.parametrize("task", ["N-1", "I-1", "S-4"])  # I-1's questions have a picture each
@pytest.mark.parametrize("strategy", ["h2o", "adakv"])
def test_an_unseen_question_is_answered_as_look_once_answers_it(
    settings_of: MakeSettings, task: str, strategy: str
) -> None:
    settings = settings_of(*MINI, f"task={task}", f"strategy={strategy}", "question=unseen")
    run(settings)
    backbone, (dataset,) = load_backbone(settings), read_datasets(settings)
    for record in records_of(settings, task):
        view = view_sample(backbone, dataset, str(record.sample_id))
        tokens = view.inputs["input_ids"].shape[1]
        with look_once(backbone.model, settings.strategy) as session:
            session.question_tokens = tokens - record.prompt_tokens
            output = backbone.model.generate(**view.inputs, max_new_tokens=backbone.max_new_tokens, do_sample=False)
        assert tuple(output[0, tokens:].tolist()) == record.answer_tokens
        assert session.report().realised_budget == (record.realised_budget,)
        asked = "".join(view.tokens[record.prompt_tokens :])
        assert (
            " Q: And by" in asked
            if task == "S-4"
            else "Who has the same" in asked
            if task == "I-1"
            else "What" in asked
        )
        assert "Q: And by" not in "".join(view.tokens[: record.prompt_tokens])


def test_a_context_is_encoded_once_for_all_its_questions(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[int, int]] = []
    real = generate.generate_sweep

    def counting(model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        encoded.append((len(inputs["input_ids"]), len(named["questions"].contexts)))
        return real(model, inputs, *args, **named)

    monkeypatch.setattr(generate, "generate_sweep", counting)
    many = [*MINI, "question=many", "task=S-4", "limit=null"]
    settings = [settings_of(*many, f"strategy={name}") for name in ("full", "h2o")]
    run_group(settings)
    assert encoded == [(4, 16)]  # four contexts with four questions each, for both strategies
    together = [records_of(one, "S-4") for one in settings]
    assert len({record.question for record in together[0]}) == 16
    alone = settings_of(*many, "strategy=h2o", "question=unseen", "+benchmark.questions=4", "model.batch_size=1")
    run(alone)
    assert records_of(alone, "S-4") == together[1]


def test_the_sweep_s_rows_are_those_of_single_runs_and_a_resumed_run_is_the_same(
    settings_of: MakeSettings, tmp_path: Path
) -> None:
    names = ["full", "h2o", "tp_pmerge", "adakv"]
    together = [settings_of(*MINI, "question=unseen", "task=N", f"strategy={name}") for name in names]
    run_group(together)
    alone = replace(together[2], results_dir=tmp_path / "alone")
    run(alone)
    assert records_of(alone, "N-1") == records_of(together[2], "N-1")
    lines = together[2].folder / DATASET["N-1"] / "samples.jsonl"
    before = records_of(together[2], "N-1")
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:2]))
    assert run(together[2]).computed == 2
    assert records_of(together[2], "N-1") == before


def test_folders_say_when_questions_were_read_and_are_compared_among_their_own_only(settings_of: MakeSettings) -> None:
    seen, unseen, many = (settings_of("strategy=h2o", f"question={q}") for q in ("seen", "unseen", "many"))
    assert "question" not in seen.identity
    assert (unseen.identity["question"], many.identity["question"]) == ("unseen", "many")
    assert unseen.run == seen.run.replace("-fp32", "-unseen-fp32")
    assert many.run == seen.run.replace("-fp32", "-many-fp32")
    about = {one.run: {"configuration": one.identity} for one in (seen, unseen)}
    assert not comparable(*about.values())
    assert differences(about) == {"question": {"seen": seen.run, "unseen": unseen.run}}
    with pytest.raises(LookmError, match="unknown question 'later'; choose one of seen, unseen, many"):
        settings_of("question=later")


def test_samples_without_a_boundary_are_left_out_and_counted(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LookmError, match="4 of SmallOrder, 4 of SmallDiff, 4 of SmallNeedleInAHaystack, which are all"):
        run(settings_of("strategy=h2o", "question=unseen"))
    asks = tuple(
        DatasetInfo(info.dataset, info.task, info.metric, info.samples, info.chance, (r"what is",))
        if info.task != "S-3"
        else info
        for info in DATASETS
    )
    monkeypatch.setattr("tests.runner.small_benchmark.DATASETS", asks)
    settings = settings_of("strategy=h2o", "question=unseen")
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (8, 0)
    assert "leaves samples out whose question does not come last: 4 of SmallDiff" in capsys.readouterr().err
    about = json.loads((settings.folder / "run.json").read_text())
    assert about["left_out"] == {"SmallDiff": 4, "SmallNeedleInAHaystack": 0, "SmallOrder": 0}
    record = next(iter(read_records(settings.folder / "SmallOrder" / "samples.jsonl").values()))
    assert record.question.endswith("what is it?\nChoice list: \nA. left\nB. right\nYour answer is: ")


def test_every_rank_takes_whole_contexts(settings_of: MakeSettings) -> None:
    settings = settings_of(*MINI, "question=many", "task=S-4", "limit=null", "strategy=h2o", "model.batch_size=1")
    settings.benchmark.prepare()
    backbone, datasets = load_backbone(settings), read_datasets(settings)
    missing = {dataset.name: set(dataset.samples) for dataset in datasets}
    shares = [
        [
            part
            for batch in read_batches(datasets, missing, backbone, settings.benchmark.root, rank=rank, size=2)
            for part in batch.parts
        ]
        for rank in (0, 1)
    ]
    assert [len(share) for share in shares] == [2, 2]
    assert all(isinstance(part, Encoded) and len(part.samples) == 4 for share in shares for part in share)


def test_tokens_of_context_and_question_are_those_of_the_whole_prompt(settings_of: MakeSettings) -> None:
    backbone: Backbone = load_backbone(settings_of("model=tiny"))
    context, questions = " ada<ImageHere> bob<ImageHere>", [" What is it?", " Who has the same?", "?"]
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    prompts = [(0, context + question) for question in questions]
    inputs, asked = backbone.inputs_before_questions([context], [pictures], prompts)
    for number, (_, prompt) in enumerate(prompts):
        question = asked.ids[number, asked.mask[number].bool()]
        whole = torch.cat([inputs["input_ids"][0], question]).tolist()
        assert whole == backbone.prompt_tokens(prompt)
    assert backbone.prompt_tokens(context)[: inputs["input_ids"].shape[1]] == inputs["input_ids"][0].tolist()
    assert inputs["pixel_values"].shape[0] == 2
    assert Path
