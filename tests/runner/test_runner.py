"""A run computes what is missing, survives what is broken, and leaves MileBench's files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation import compute
from benchmarks.evaluation.batches import Encoded
from benchmarks.evaluation.records import SampleRecord, read_records
from benchmarks.evaluation.run import load_backbone, run
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import find_runs
from benchmarks.milebench import score_predictions
from benchmarks.milebench.dataset import Dataset
from lookm import look_once
from lookm.errors import LookmError
from lookm.models.backbone import Backbone
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import CHOICE, DATASETS, NEEDLE, ROUGE

ONLY_NEEDLE = f"datasets={NEEDLE}"


def no_model(settings: Settings) -> Backbone:
    raise AssertionError("the model was loaded although nothing is missing")


def answers(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Answer tokens by dataset and sample."""
    return {
        f"{info.dataset}/{name}": record.answer_tokens
        for info in settings.datasets
        for name, record in read_records(settings.folder / info.dataset / "samples.jsonl").items()
    }


def timeless(settings: Settings, dataset: str = NEEDLE) -> list[SampleRecord]:
    records = read_records(settings.folder / dataset / "samples.jsonl")
    return [replace(record, times=None) for record in records.values()]


def test_a_run_writes_milebenchs_files(settings_of: MakeSettings) -> None:
    settings = settings_of()
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (12, 0)
    for info in DATASETS:
        folder = settings.folder / info.dataset
        predictions = json.loads((folder / "pred.json").read_text())
        annotation = json.loads((settings.benchmark.root / info.dataset / f"{info.dataset}.json").read_text())
        assert [prediction["sample_id"] for prediction in predictions] == [0, 1, 2, 3]
        assert set(predictions[0]) == {
            "sample_id", "image", "question", "gt_response", "gen_model_id", "pred_response", "gen_kwargs"
        }  # fmt: skip
        assert predictions[1]["image"] == [f"{info.dataset}/images/1_{k}.png" for k in range(2)]
        assert predictions[1]["question"].count("<ImageHere>") == 2
        official = score_predictions(info.dataset, annotation, predictions)
        repaired = score_predictions(info.dataset, annotation, predictions, protocol="repaired")
        assert json.loads((folder / "eval.json").read_text()) == official["eval"]
        assert json.loads((folder / "eval_score.json").read_text()) == official["eval_score"]
        assert json.loads((folder / "repaired.json").read_text())["eval"] == repaired["eval"]


def test_run_json_tells_where_the_results_come_from(settings_of: MakeSettings) -> None:
    settings = settings_of(ONLY_NEEDLE)
    run(settings)
    about = json.loads((settings.folder / "run.json").read_text())
    assert about["state"] == "finished"
    assert about["configuration"]["strategy"]["alpha1"] == 0.1
    assert set(about["data"]) == {NEEDLE}
    session = about["sessions"][0]
    assert session["resolved"]["strategy"]["merge"] == "pivotal"
    assert {"python", "torch", "transformers"} <= set(session["versions"])
    assert session["started"] <= session["ended"]
    assert "cores" in session["hardware"]
    assert "commit" in session["git"]


def test_a_record_holds_what_the_engine_reports(settings_of: MakeSettings) -> None:
    settings = settings_of(ONLY_NEEDLE, "strategy=h2o", "alpha1=0.2", "alpha2=0.3")
    run(settings)
    for number, record in enumerate(timeless(settings)):
        expected = int(0.2 * record.prompt_tokens) + int(0.3 * record.prompt_tokens)
        assert record.kept_tokens == (expected, expected)
        assert record.realised_budget == pytest.approx(expected / record.prompt_tokens)
        assert record.image_tokens == 4 * (number + 1)
        assert record.kept_bytes / record.full_bytes == pytest.approx(record.realised_budget)
        assert 1 <= len(record.answer_tokens) <= 6


def test_answers_are_those_of_each_sample_asked_alone(settings_of: MakeSettings) -> None:
    together, alone = settings_of("model.batch_size=3"), settings_of("model.batch_size=1", "overwrite=true")
    assert together.folder == alone.folder
    run(together)
    first = answers(together)
    run(alone)
    assert answers(alone) == first


def test_the_full_cache_is_plain_generation(settings_of: MakeSettings) -> None:
    settings = settings_of("strategy=full", ONLY_NEEDLE)
    run(settings)
    backbone = load_backbone(settings)
    for record in timeless(settings):
        from PIL import Image

        pictures = [Image.open(settings.benchmark.root / path).convert("RGB") for path in record.images]
        inputs = backbone.inputs([record.question], [pictures])
        output = backbone.model.generate(**inputs, do_sample=False, max_new_tokens=6, min_new_tokens=1)  # type: ignore
        assert tuple(output[0, inputs["input_ids"].shape[1] :].tolist()) == record.answer_tokens


def test_a_finished_run_computes_nothing(settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of()
    first = run(settings)
    files = {path: path.read_bytes() for path in settings.folder.rglob("*.json*")}
    again = run(settings, load=no_model)
    assert again.computed == 0
    assert again.summary == first.summary
    assert {path: path.read_bytes() for path in settings.folder.rglob("*.json*")} == files


def test_twenty_samples_are_the_beginning_of_all(settings_of: MakeSettings) -> None:
    assert run(settings_of("limit=1", ONLY_NEEDLE)).computed == 1
    assert run(settings_of("limit=3")).computed == 8
    assert run(settings_of()).computed == 3
    few = run(settings_of("limit=2", "task=S-3"), load=no_model)
    assert [(task, row.n) for task, row in few.summary.rows.items()] == [("S-3", 2)]
    predictions = json.loads((settings_of().folder / ROUGE / "pred.json").read_text())
    assert len(predictions) == 4, "a smaller selection must not shrink the files"


def test_resuming_ends_in_the_files_of_an_undisturbed_run(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("model.batch_size=1")
    run(settings)
    undisturbed = {info.dataset: timeless(settings, info.dataset) for info in DATASETS}
    predictions = (settings.folder / ROUGE / "pred.json").read_bytes()
    asked: list[str] = []

    def interrupted(
        backbone: Backbone, strategies: Any, dataset: Dataset, encoded: Encoded, **named: Any
    ) -> list[list[SampleRecord]]:
        if len(asked) == 6:
            raise KeyboardInterrupt
        asked.append(encoded.samples[0].sample_id)
        return real(backbone, strategies, dataset, encoded, **named)

    real = compute.answer
    monkeypatch.setattr(compute, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(replace(settings, overwrite=True))
    assert json.loads((settings.folder / "run.json").read_text())["state"] == "interrupted"
    monkeypatch.setattr(compute, "answer", real)
    assert run(settings).computed == 6
    assert {info.dataset: timeless(settings, info.dataset) for info in DATASETS} == undisturbed
    assert (settings.folder / ROUGE / "pred.json").read_bytes() == predictions


def test_a_torn_line_is_computed_again(settings_of: MakeSettings) -> None:
    settings = settings_of(ONLY_NEEDLE)
    run(settings)
    before = timeless(settings)
    path = settings.folder / NEEDLE / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert run(settings).computed == 1
    assert timeless(settings) == before


@pytest.mark.parametrize("broken", ["missing", "garbage", "truncated"])
def test_an_unreadable_image_fails_its_sample_only_until_it_is_mended(settings_of: MakeSettings, broken: str) -> None:
    settings = settings_of(ONLY_NEEDLE)
    settings.benchmark.prepare()
    image = settings.benchmark.root / NEEDLE / "images" / "2_1.png"
    good = image.read_bytes()
    if broken == "missing":
        image.unlink()
    else:
        image.write_bytes(b"GIF?" if broken == "garbage" else good[: len(good) // 2])
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (4, 1)
    assert (outcome.summary.mean.n, outcome.summary.mean.failed) == (3, 1)
    record = read_records(settings.folder / NEEDLE / "samples.jsonl")["2"]
    assert record.error is not None
    assert "image 2_1.png" in record.error
    assert "\n" not in record.error
    assert [item["sample_id"] for item in json.loads((settings.folder / NEEDLE / "pred.json").read_text())] == [0, 1, 3]
    image.write_bytes(good)
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (1, 0)


def test_a_sample_that_spoils_its_batch_fails_alone(settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Backbone.inputs

    def picky(backbone: Backbone, prompts: Sequence[str], images: Sequence[Any]) -> Any:
        if any(len(pictures) == 2 for pictures in images):
            raise ValueError("two images are too many")
        return real(backbone, prompts, images)

    monkeypatch.setattr(Backbone, "inputs", picky)
    settings = settings_of(ONLY_NEEDLE)
    assert run(settings).failed == 1
    records = read_records(settings.folder / NEEDLE / "samples.jsonl")
    assert [record.error for record in records.values()] == [None, "ValueError: two images are too many", None, None]


def test_changed_data_weights_or_configuration_are_refused(settings_of: MakeSettings, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"old")
    settings = settings_of(ONLY_NEEDLE, f"model.path={weights}")
    run(settings)

    (weights / "model.safetensors").write_bytes(b"new")
    with pytest.raises(LookmError, match="computed with other weights"):
        run(settings, load=no_model)
    (weights / "model.safetensors").write_bytes(b"old")

    with pytest.raises(LookmError, match=r"computed with other configuration.*weights_seed: 0 there, 5 now"):
        run(replace(settings, model_config={**settings.model_config, "weights_seed": 5}), load=no_model)

    image = settings.benchmark.root / NEEDLE / "images" / "1_1.png"
    image.write_bytes(image.read_bytes() + b"?")
    with pytest.raises(LookmError, match=r"other data \(sample 1 of .* or its images have changed\)"):
        run(settings, load=no_model)

    annotation = settings.benchmark.root / NEEDLE / f"{NEEDLE}.json"
    annotation.write_text(annotation.read_text().replace("what is it?", "what is that?"))
    with pytest.raises(LookmError, match=f"other data .{NEEDLE}: .*overwrite=true starts afresh"):
        run(settings, load=no_model)
    assert run(replace(settings, overwrite=True)).computed == 4


def test_starting_afresh_keeps_the_old_results_until_the_model_is_there(settings_of: MakeSettings) -> None:
    settings = settings_of(ONLY_NEEDLE)
    run(settings)

    def missing(settings: Settings) -> Backbone:
        raise LookmError("no weights")

    with pytest.raises(LookmError, match="no weights"):
        run(replace(settings, overwrite=True), load=missing)
    assert len(timeless(settings)) == 4


def test_missing_weights_leave_no_folder(settings_of: MakeSettings) -> None:
    settings = settings_of("model=tiny", "model.path=/nowhere", ONLY_NEEDLE)
    with pytest.raises(LookmError, match="no model in /nowhere"):
        run(settings)
    assert not settings.folder.exists()


def test_the_model_is_loaded_once_for_runs_that_share_it(settings_of: MakeSettings) -> None:
    one, other = settings_of("strategy=h2o"), settings_of("strategy=tp")
    assert load_backbone(one) is load_backbone(other)
    assert load_backbone(settings_of("dtype=bfloat16")) is not load_backbone(one)


def test_changed_answers_are_counted_where_the_full_cache_was_run(settings_of: MakeSettings) -> None:
    settings = settings_of("strategy=h2o")
    assert run(settings).summary.mean.changed is None
    run(settings_of("strategy=full", f"datasets=[{CHOICE},{NEEDLE}]"))
    mean = run(settings).summary.mean
    assert mean.paired == 8
    own, reference = answers(settings), answers(settings_of("strategy=full", f"datasets=[{CHOICE},{NEEDLE}]"))
    per_task = [
        sum(own[name] != tokens for name, tokens in reference.items() if name.startswith(dataset)) / 4
        for dataset in (CHOICE, NEEDLE)
    ]
    assert mean.changed == pytest.approx(sum(per_task) / 2)


def test_the_model_is_as_before_after_a_run(settings_of: MakeSettings) -> None:
    settings = settings_of(ONLY_NEEDLE)
    model = load_backbone(settings).model
    before = model.get_decoder().config._attn_implementation
    run(settings)
    assert model.get_decoder().config._attn_implementation == before
    with look_once(model, "full"):
        pass


def test_a_sample_whose_answer_is_none_of_its_choices_fails_alone(settings_of: MakeSettings) -> None:
    settings = settings_of()
    settings.benchmark.prepare()
    path = settings.benchmark.root / CHOICE / f"{CHOICE}.json"
    annotation = json.loads(path.read_text())
    annotation["data"][2]["response"] = "above"
    path.write_text(json.dumps(annotation))
    outcome = run(settings)
    assert (outcome.computed, outcome.failed) == (12, 1)
    records = read_records(settings.folder / CHOICE / "samples.jsonl")
    assert (records["2"].scores, records["2"].n_images) == (None, 3)
    assert records["2"].error == "the right answer 'above' is none of its choices ('left', 'right')"
    assert [records[name].answered for name in "013"] == [True] * 3
    assert len(json.loads((settings.folder / CHOICE / "eval_score.json").read_text())) == 3


def test_a_record_holds_the_scores_that_milebenchs_files_are_made_of(settings_of: MakeSettings) -> None:
    settings = settings_of()
    run(settings)
    for info in DATASETS:
        folder = settings.folder / info.dataset
        records = read_records(folder / "samples.jsonl")
        annotation = json.loads((settings.benchmark.root / info.dataset / f"{info.dataset}.json").read_text())
        predictions = json.loads((folder / "pred.json").read_text())
        for protocol in ("official", "repaired"):
            scored = score_predictions(info.dataset, annotation, predictions, protocol=protocol)["scores"]
            assert [(record.scores or {})[protocol] for record in records.values()] == scored
        chance = 0.5 if info.dataset == CHOICE else info.chance
        assert [(record.task, record.n_images, record.chance) for record in records.values()] == [
            (info.task, n_images, chance) for n_images in (1, 2, 3, 4)
        ]
    about = json.loads((settings.folder / "run.json").read_text())
    assert about["datasets"][ROUGE] == {"task": "S-3", "metric": "rouge_l", "samples": 4, "chance": 0.1}
    assert (about["adversarial"], about["combine_image"]) == (False, None)


def test_a_folder_of_another_version_is_refused_in_one_line(settings_of: MakeSettings) -> None:
    settings = settings_of(ONLY_NEEDLE)
    run(settings)
    about = json.loads((settings.folder / "run.json").read_text())
    (settings.folder / "run.json").write_text(json.dumps({**about, "format": 1}))
    for read in (lambda: run(settings, load=no_model), lambda: find_runs(settings.results_dir)):
        with pytest.raises(LookmError, match=r"another version of this program; overwrite=true starts afresh"):
            read()


def test_the_same_weights_elsewhere_are_the_same_run(settings_of: MakeSettings, tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_bytes(b"weights")
    run(settings_of(ONLY_NEEDLE, f"model.path={tmp_path}/here"))
    moved = settings_of(ONLY_NEEDLE, f"model.path={tmp_path}/there")
    assert run(moved, load=no_model).computed == 0
    (tmp_path / "there" / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(LookmError, match="computed with other weights"):
        run(moved, load=no_model)
