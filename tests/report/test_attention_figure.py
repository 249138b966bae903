from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.attention_figure import draw_attention, modality_edges
from lookm.attention_map import AttentionMap, attention_map
from scripts.pictures import main


@given(layout=st.lists(st.booleans(), min_size=1, max_size=200), cells=st.integers(1, 50))
def test_no_cell_mixes_text_and_images_and_none_is_longer_than_asked(layout: list[bool], cells: int) -> None:
    is_image = torch.tensor(layout)
    edges = modality_edges(is_image, cells)
    assert (edges[0], edges[-1]) == (0, len(layout))
    for start, end in pairwise(edges):
        assert 0 < end - start <= -(-len(layout) // cells)
        assert len(set(layout[start:end])) == 1


def maps(layers: int) -> tuple[list[AttentionMap], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    is_image = torch.arange(40) % 10 >= 3
    edges = modality_edges(is_image, 12)
    shape = (2, 40, 8)
    return [
        attention_map(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator), is_image, edges)
        for _ in range(layers)
    ], is_image


def test_lines_are_what_images_receive() -> None:
    found, is_image = maps(3)
    figure = draw_attention(found, is_image, "a title")
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    for kind, name in enumerate(("all queries", "text queries", "image queries")):
        expected = [100 * float(layer.to_images[:, kind].mean()) for layer in found]
        assert list(lines[name].get_ydata()) == pytest.approx(expected)  # type: ignore[call-overload]


def test_deep_models_get_four_maps() -> None:
    found, is_image = maps(20)
    figure = draw_attention(found, is_image, "a title")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["layer 1 of 20", "layer 7 of 20", "layer 14 of 20", "layer 20 of 20"]
    lines = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 20]  # type: ignore[arg-type]
    assert len(lines) == 3


def test_the_command_draws_a_sample_and_says_what_images_receive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["benchmark.samples=2", "benchmark.most_images=14", f"data_dir={tmp_path}"]
    output = tmp_path / "new" / "attention.png"
    assert main(["attention", "--sample", "MiniTextNeedleInAHaystack/1", "--output", str(output), *small]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in output.parent.iterdir()] == ["attention.png"]
    printed = capsys.readouterr().out
    assert "layer  4: images receive" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nope"], "unknown model 'nope'; choose one of"),
        (["--sample", "Nope/1"], "unknown sample 'Nope/1'; give DATASET/ID"),
        (["--sample", "N-1/77"], "MiniTextNeedleInAHaystack has no sample '77'; its ids go from 0 to 1"),
        (["--cells", "1"], "--cells 1 shows nothing; choose 2 or more"),
        (["--output", "attention.doc"], "--output attention.doc is no picture"),
        (["nonsense=1"], "unknown key 'nonsense'"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["benchmark.samples=2", "benchmark.most_images=14", f"data_dir={tmp_path}"]
    assert main(["attention", *arguments, *small]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
