"""A benchmark's folder is a `datasets.Dataset`: typed, lazy, cached, and selected as a run selects."""

import json
from pathlib import Path

import pytest
from PIL import Image as PillowImage

from benchmarks.benchmark import select_positions, subset_seed
from benchmarks.milebench import DATASETS, build_prompt, milebench_benchmark, read_annotation
from benchmarks.milebench.dataset import read_dataset
from benchmarks.milebench.table import read_table, table_features
from benchmarks.milebench.taxonomy import ADVERSARIAL_DATASETS
from lookm.errors import LookmError
from tests.milebench.golden import byte_tokenizer, load_prompts
from tests.milebench.original_layout import SAMPLES, adversarial, annotation_of, dump, write_dataset, write_milebench


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 29 datasets."""
    folder = tmp_path_factory.mktemp("MileBench")
    write_milebench(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", [info.dataset for info in DATASETS])
def test_each_of_the_29_datasets_is_a_table_of_its_samples(root: Path, cache: Path, name: str) -> None:
    table = read_table(root, name, cache_dir=cache)
    annotation = read_annotation(root, name)
    assert table.features == table_features()
    assert table["sample_id"] == [str(sample["sample_id"]) for sample in annotation["data"]]
    for row, sample in zip(table, annotation["data"], strict=True):
        instance = sample["task_instance"]
        assert (row["context"], row["images_path"]) == (instance["context"], instance["images_path"])
        assert (row["choices"], row["response"]) == (instance.get("choice_list"), sample["response"])
        assert row["instruction"] == annotation["meta_data"]["task_instruction"][sample["task_instruction_id"]]
        assert [picture.size for picture in row["images"]] == [(8, 8)] * row["n_images"]


def test_the_adversarial_samples_are_a_benchmark_of_26_datasets(root: Path, cache: Path) -> None:
    benchmark = milebench_benchmark(root, adversarial=True)
    assert (len(benchmark.datasets), benchmark.label) == (26, "MileBench, adversarial")
    benchmark.prepare()
    for info in benchmark.datasets:
        assert read_dataset(benchmark, info, None).annotation == adversarial(annotation_of(info.dataset))
    table = read_table(root, "TQA", adversarial=True, cache_dir=cache)
    assert table[0]["choices"] == ["both", "the right one", "the left one"]
    assert "GPR1200" not in {info.dataset for info in ADVERSARIAL_DATASETS}


def test_variants_exclude_each_other_and_are_checked(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LookmError, match="cannot be had together"):
        milebench_benchmark(root, adversarial=True, combine_image=1)
    with pytest.raises(LookmError, match="adversarial must be true or false, not 'yes'"):
        milebench_benchmark(root, adversarial="yes")  # type: ignore[arg-type]
    write_dataset(tmp_path, "TQA", annotation_of("TQA"))
    with pytest.raises(LookmError, match="holds none of MileBench's 26 adversarial datasets"):
        milebench_benchmark(tmp_path, adversarial=True).prepare()


def test_combined_images_are_the_grids(root: Path, cache: Path) -> None:
    table = read_table(root, "DocVQA", combine_image=1, cache_dir=cache)
    assert [len(row["images"]) for row in table] == [1] * SAMPLES
    assert table["n_images"] == [1, 2, 3]
    assert table[2]["images"][0].size == (16, 16)


def test_pictures_are_opened_only_when_they_are_looked_at(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    (tmp_path / "TQA" / "images" / "1" / "1.png").write_bytes(b"GIF?")
    table = read_table(tmp_path, "TQA", cache_dir=tmp_path)
    assert table["n_images"] == [1, 2, 3]
    assert table[2]["images"][2].size == (8, 8)
    with pytest.raises(PillowImage.UnidentifiedImageError):
        table[1]


def test_a_table_is_written_once_and_mapped_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_milebench(tmp_path, ["TQA"])
    first = read_table(tmp_path, "TQA", cache_dir=tmp_path / "cache")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")}
    monkeypatch.setattr("benchmarks.milebench.table.table_rows", lambda *arguments: iter(()))
    again = read_table(tmp_path, "TQA", cache_dir=tmp_path / "cache")
    assert first.cache_files == again.cache_files != []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")} == written != {}
    assert first._fingerprint == again._fingerprint
    assert again.to_dict()["context"] == first.to_dict()["context"]


def test_another_annotation_or_variant_is_another_table(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    seen = {read_table(tmp_path, "TQA", cache_dir=tmp_path / "cache")._fingerprint}
    seen.add(read_table(tmp_path, "TQA", adversarial=True, cache_dir=tmp_path / "cache")._fingerprint)
    seen.add(read_table(tmp_path, "TQA", combine_image=1, cache_dir=tmp_path / "cache")._fingerprint)
    annotation = annotation_of("TQA")
    annotation["data"][0]["response"] = "both"
    dump(tmp_path / "TQA" / "TQA.json", annotation)
    changed = read_table(tmp_path, "TQA", cache_dir=tmp_path / "cache")
    assert changed[0]["response"] == "both"
    assert len(seen | {changed._fingerprint}) == 4


def test_what_map_made_is_found_again(root: Path, cache: Path) -> None:
    calls = cache / "calls"

    def count(row: dict[str, object]) -> dict[str, int]:
        with calls.open("a") as stream:
            stream.write("x")
        return {"letters": len(str(row["context"]))}

    options = {"remove_columns": ["images"], "new_fingerprint": "letters0"}
    made = [read_table(root, "TQA", cache_dir=cache).map(count, **options)["letters"] for _ in range(2)]
    assert made[0] == made[1]
    assert calls.read_text() == "x" * SAMPLES


def test_shards_are_the_librarys_and_cover_everything(root: Path, cache: Path) -> None:
    table = read_table(root, "TQA", cache_dir=cache)
    shards = [list(table.shard(2, index)["sample_id"]) for index in range(2)]
    assert sorted(shards[0] + shards[1]) == sorted(table["sample_id"])


@pytest.mark.parametrize("subset", ["first", "random"])
@pytest.mark.parametrize("limit", [None, 1, 2, 9])
def test_a_selection_of_the_table_is_the_runs_selection(
    root: Path, cache: Path, subset: str, limit: int | None
) -> None:
    benchmark = milebench_benchmark(root)
    info = next(info for info in DATASETS if info.dataset == "MMCoQA")
    table = read_table(root, "MMCoQA", cache_dir=cache)
    chosen = table.select(select_positions(len(table), limit=limit, subset=subset, seed=5, dataset="MMCoQA"))
    assert chosen["sample_id"] == list(read_dataset(benchmark, info, limit, subset=subset, seed=5).samples)


def test_a_random_selection_is_what_the_librarys_shuffle_puts_first(root: Path, cache: Path) -> None:
    from datasets import concatenate_datasets

    many = concatenate_datasets([read_table(root, "TQA", cache_dir=cache)] * 30)
    many = many.map(lambda row, place: {"place": place}, with_indices=True, remove_columns=many.column_names)
    shuffled = many.shuffle(seed=subset_seed(7, "TQA")).select(range(10))
    chosen = many.select(select_positions(len(many), limit=10, subset="random", seed=7, dataset="TQA"))
    assert chosen["place"] == sorted(shuffled["place"])


def test_golden_prompts_survive_the_way_through_folders_and_tables(tmp_path: Path) -> None:
    golden = load_prompts()
    for number, case in enumerate(golden["cases"]):
        name, sample = case["dataset_name"], case["annotation"]
        folder = tmp_path / str(number)
        kind = "multi-choice" if "choice_list" in sample["task_instance"] else "open-ended"
        meta = {"task_instruction": golden["task_instruction"], "question_type": kind}
        (folder / name).mkdir(parents=True)
        combine = case["combine_image"]
        suffix = f"_combined_{combine}" if combine not in (None, 1) else ""
        content = json.dumps({"meta_data": meta, "data": [sample]})
        (folder / name / f"{name}{suffix}.json").write_text(content, encoding="utf-8")
        table = read_table(folder, name, combine_image=combine, cache_dir=tmp_path / "cache")
        row = table.remove_columns("images")[0]
        rebuilt = {**sample["task_instance"], "context": row["context"], "images_path": row["images_path"]}
        if row["choices"] is not None:
            rebuilt["choice_list"] = row["choices"]
        prompt = build_prompt(
            {"sample_id": row["sample_id"], "task_instance": rebuilt}, row["instruction"], dataset=name,
            tokenizer=byte_tokenizer(), max_context_len=case["max_context_len"],
            n_tokens_per_image=case["n_tokens_per_image"], image_dir=golden["img_dir"], combine_image=combine,
        )  # fmt: skip
        assert prompt.context == case["expected"]["context"]
        assert prompt.images == case["expected"]["images"]
