"""The tasks are our benchmarks': a YAML for each dataset, groups of the taxonomy, run.py's prompts and scores."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.evaluation.examples import Example, build_examples
from benchmarks.lmms_eval import tasks
from benchmarks.lmms_eval.messages import question_of
from benchmarks.lmms_eval.writing import write_tasks
from benchmarks.milebench import DATASETS, milebench_benchmark
from benchmarks.milebench.dataset import read_dataset
from benchmarks.mini.benchmark import mini_benchmark
from lookm.errors import LookmError
from lookm.registry import load_model
from scripts.lmms_tasks import main
from tests.milebench.test_taxonomy import task_mean


class Loader(yaml.SafeLoader):
    """Reads `!function` as lmms-eval does."""


def _function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    module, _, name = str(node.value).rpartition(".")
    return getattr(import_module(module), name)


Loader.add_constructor("!function", _function)


def read(folder: Path, name: str) -> dict[str, Any]:
    config = yaml.load((folder / f"{name}.yaml").read_text(encoding="utf-8"), Loader)
    if "include" in config:
        config = yaml.load((folder / config.pop("include")).read_text(encoding="utf-8"), Loader) | config
    return dict(config)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """MileBench-mini, two samples a dataset, and its tasks."""
    folder = tmp_path_factory.mktemp("lmms")
    benchmark = mini_benchmark(folder / "mini", samples=2, most_images=14)
    write_tasks(benchmark, folder / "tasks")
    return benchmark, folder / "tasks"


@pytest.fixture(scope="module")
def milebench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """All 29 datasets with a sample each, and one that cannot be scored."""
    root = tmp_path_factory.mktemp("MileBench")
    for info in DATASETS:
        choice = info.metric == "accuracy" and "Needle" not in info.dataset and info.dataset != "MMCoQA"
        instance = {"context": "Which?", "images_path": [], **({"choice_list": ["a", "b"]} if choice else {})}
        sample = {"sample_id": 0, "task_instruction_id": 0, "task_instance": instance, "response": "a"}
        samples = [sample, *([{**sample, "sample_id": 1, "response": "c"}] if info.dataset == "WebQA" else [])]
        meta = {"dataset": info.dataset, "task_instruction": ["Look."]}
        meta["question_type"] = "multi-choice" if choice else "open-ended"
        (root / info.dataset).mkdir()
        (root / info.dataset / f"{info.dataset}.json").write_text(json.dumps({"meta_data": meta, "data": samples}))
    names, left_out = write_tasks(milebench_benchmark(root), root / "tasks")
    assert left_out == 1
    return root / "tasks", names


def test_milebench_is_29_tasks_and_its_groups(milebench: tuple[Path, list[str]]) -> None:
    folder, names = milebench
    single = [name for name in names if "task" in read(folder, name) and isinstance(read(folder, name)["task"], str)]
    assert len(single) == 29
    assert {f"milebench_{group}" for group in ("T", "S", "N", "I", "T-1", "S-4")} | {"milebench"} <= set(names)
    assert sorted(f"{name}.yaml" for name in names) == sorted(path.name for path in folder.glob("*.yaml"))


@pytest.mark.parametrize("group", ["T", "S", "N", "I", "T-2", "S-1", ""])
def test_a_groups_score_is_the_taxonomys_mean(milebench: tuple[Path, list[str]], group: str) -> None:
    folder, _ = milebench

    def leaves(name: str) -> list[str]:
        config = read(folder, name)
        return [name] if isinstance(config["task"], str) else [leaf for part in config["task"] for leaf in leaves(part)]

    name = f"milebench_{group}" if group else "milebench"
    scores = {info.dataset: (7 * place % 29) / 29 for place, info in enumerate(DATASETS)}
    given = [scores[leaf.removeprefix("milebench_")] for leaf in leaves(name)]
    aggregation = read(folder, name)["aggregate_metric_list"][0]["aggregation"]
    codes = ("T", "S", "N", "I") if not group else (group,)
    if group:
        assert aggregation(given, [1] * len(given), False) == task_mean(group, scores)
    else:
        means = [task_mean(code, scores) for code in dict.fromkeys(info.task for info in DATASETS)]
        expected = sum(means) / len(means)
        assert aggregation(given) == pytest.approx(expected, rel=1e-12)
    assert codes


def test_a_group_is_not_given_other_numbers_of_scores() -> None:
    with pytest.raises(LookmError, match="a group of 4 datasets was given 3 scores"):
        tasks.__getattr__("mean_of_3_1")([0.1, 0.2, 0.3])
    with pytest.raises(AttributeError):
        tasks.__getattr__("median")


def test_a_sample_asks_and_scores_as_run_py_does(mini: tuple[Any, Path]) -> None:
    benchmark, folder = mini
    tiny = load_model("tiny", device="cpu")
    for info in benchmark.datasets:
        config = read(folder, f"milebench_mini_{info.dataset}")
        dataset = read_dataset(benchmark, info, None)
        docs = list(map(json.loads, (folder / config["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()))
        assert [doc["sample_id"] for doc in docs] == list(dataset.samples)
        doc, sample = docs[1], dataset.samples["1"]
        (example,) = build_examples(dataset, ["1"], tiny)
        assert isinstance(example, Example)
        messages = config["doc_to_messages"](doc)
        question = messages.question(tiny)
        assert question.text == example.prompt.text
        assert len(question.images) == len(example.prompt.images)
        assert question_of(messages, tiny, list).images == question.images  # what any other model is given
        assert len(config["doc_to_visual"](doc)) == config["doc_to_text"](doc).count("<image>") == len(question.images)
        for answer in (str(sample["response"]), "A", "nothing of it"):
            assert config["process_results"](doc, [answer]) == dataset.scores(sample, answer)
    assert config["metric_list"][0]["aggregation"]([0.5, 1.0]) == 0.75


def test_a_prompt_is_cut_as_milebench_cuts_it(mini: tuple[Any, Path]) -> None:
    from dataclasses import replace

    _, folder = mini
    (doc, *_) = map(json.loads, (folder / "MiniWebQA.jsonl").read_text().splitlines())
    tiny = replace(load_model("tiny", device="cpu"), max_context_len=160)
    question = tasks.doc_to_messages(doc).question(tiny)
    assert 0 < len(question.images) < len(tasks.doc_to_visual(doc))
    assert question.text.startswith("Use words and images.\n")
    assert question.dropped_images == len(tasks.doc_to_visual(doc)) - len(question.images)


def test_the_command_writes_tasks_and_wrong_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["milebench", "--root", str(tmp_path / "none"), "--output", str(tmp_path / "tasks")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: MileBench is not in")
    assert error.count("\n") == 1
    assert not (tmp_path / "tasks").exists()
    (tmp_path / "file").write_text("x")
    assert main(["mini", "--root", str(tmp_path / "mini"), "--output", str(tmp_path / "file")]) == 2
    assert "cannot be written to" in capsys.readouterr().err
