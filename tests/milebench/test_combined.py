"""Combined images are laid out as MileBench lays them out, and made where they are absent."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.benchmark import Benchmark
from benchmarks.evaluation.examples import Example, build_examples
from benchmarks.milebench import build_prompt, milebench_benchmark
from benchmarks.milebench.combined import CELL, combine, read_variant, write_grid
from benchmarks.milebench.dataset import read_dataset
from benchmarks.milebench.lengths import Measure
from lookm.errors import LookmError
from tests.milebench.golden import byte_tokenizer
from tests.milebench.original_layout import annotation_of, dump, write_dataset, write_milebench

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]


def picture(folder: Path, number: int) -> Path:
    path = folder / f"{number}.png"
    Image.new("RGB", (20 + number, 30), COLOURS[number]).save(path)
    return path


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2)])
def test_the_grid_is_the_squarest_and_is_filled_row_by_row(tmp_path: Path, count: int, columns: int, rows: int) -> None:
    grid = combine([picture(tmp_path, number) for number in range(count)])
    assert grid.size == (columns * CELL, rows * CELL)
    for place in range(columns * rows):
        x, y = place % columns * CELL + CELL // 2, place // columns * CELL + CELL // 2
        assert grid.getpixel((x, y)) == (COLOURS[place] if place < count else (0, 0, 0))


def test_the_caption_is_white_on_black_at_the_lower_edge_and_counts_on(tmp_path: Path) -> None:
    first, second = np.split(np.asarray(combine([picture(tmp_path, 0)] * 2)), 2, axis=1)
    assert (first != second).any()
    caption = first[-60:, CELL // 2 - 90 : CELL // 2 + 90].reshape(-1, 3)
    assert {(0, 0, 0), (255, 255, 255)} <= set(map(tuple, caption.tolist()))
    assert (first[: CELL - 80] == COLOURS[0]).all()


def combined_benchmark(root: Path) -> Benchmark:
    return milebench_benchmark(root, combine_image=1)


@pytest.mark.parametrize("named", [True, False])
def test_absent_grids_are_made_for_the_samples_that_are_asked(tmp_path: Path, named: bool) -> None:
    annotation = annotation_of("TQA")
    if not named:
        for sample in annotation["data"]:
            del sample["task_instance"]["combined_1_images"]
    write_dataset(tmp_path, "TQA", annotation, combined=False)
    benchmark = combined_benchmark(tmp_path)
    info = next(info for info in benchmark.datasets if info.dataset == "TQA")
    dataset = read_dataset(benchmark, info, 2)
    assert not (tmp_path / "TQA" / "combined_1_images").exists(), "reading writes nothing"
    reader = Measure("tiny", "bytes", byte_tokenizer(), 10, 500)
    made = list(build_examples(dataset, list(dataset.samples), reader))
    assert all(isinstance(item, Example) for item in made)
    assert [Path(item.prompt.images[0]).name for item in made if isinstance(item, Example)] == ["0-0.jpg", "1-0.jpg"]
    files = sorted((tmp_path / "TQA" / "combined_1_images").iterdir())
    assert [path.name for path in files] == ["0-0.jpg", "1-0.jpg"]
    assert [Image.open(path).size for path in files] == [(CELL, CELL), (2 * CELL, CELL)]
    written = [path.stat().st_mtime_ns for path in files]
    again = read_dataset(benchmark, info, 2)
    assert again.digests == dataset.digests, "a run goes on after its grids were made"
    list(build_examples(again, list(again.samples), reader))
    assert [path.stat().st_mtime_ns for path in files] == written


def test_grids_of_the_archive_are_left_as_they_are(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    for sample in read_variant(tmp_path, "TQA", combine_image=1)["data"]:
        write_grid(tmp_path / "TQA", sample)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")} == before


def test_a_picture_that_cannot_be_combined_fails_its_sample_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path, "TQA", annotation_of("TQA"), combined=False)
    (tmp_path / "TQA" / "images" / "1" / "0.png").unlink()
    (tmp_path / "TQA" / "images" / "2" / "1.png").write_bytes(b"GIF?")
    benchmark = combined_benchmark(tmp_path)
    dataset = read_dataset(benchmark, next(info for info in benchmark.datasets if info.dataset == "TQA"), None)
    reader = Measure("tiny", "bytes", byte_tokenizer(), 10, 500)
    good, *failed = build_examples(dataset, list(dataset.samples), reader)
    assert isinstance(good, Example)
    assert [(name, str(error)[:22]) for name, error in failed] == [  # type: ignore[misc]
        ("1", "image 0.png is missing"),
        ("2", "image 1.png cannot be "),
    ]


def test_more_than_one_combined_image_can_be_read_but_not_asked(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    annotation = read_variant(tmp_path, "TQA")
    for sample in annotation["data"]:
        sample["task_instance"]["combined_2_images"] = ["0.jpg", "1.jpg"]
    dump(tmp_path / "TQA" / "TQA_combined_2.json", annotation)
    assert read_variant(tmp_path, "TQA", combine_image=2) == annotation
    with pytest.raises(LookmError, match="exactly one combined image; use 1, or null"):
        milebench_benchmark(tmp_path, combine_image=2)


def test_a_combined_prompt_is_one_placeholder_and_numbered_names(tmp_path: Path) -> None:
    write_milebench(tmp_path, ["TQA"])
    annotation = read_variant(tmp_path, "TQA", combine_image=1)
    prompt = build_prompt(
        annotation["data"][1], annotation["meta_data"]["task_instruction"], dataset="TQA", tokenizer=byte_tokenizer(),
        max_context_len=500, n_tokens_per_image=10, image_dir=tmp_path / "TQA" / "images", combine_image=1,
    )  # fmt: skip
    assert prompt.context.startswith("<ImageHere>\nRead and answer. \nFrames <Image 1> , then <Image 2> , then which")
    assert prompt.images == [str(tmp_path / "TQA" / "combined_1_images" / "1-0.jpg")]
