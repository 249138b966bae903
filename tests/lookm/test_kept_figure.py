from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lookm import LookmError, load_strategy, look_once
from lookm.kept import KeptPositions, kept_positions
from lookm.kept_figure import draw_kept, heat, token_texts
from lookm.models.tiny import load_tiny
from scripts.pictures import main

# Two images of 2 × 2 tokens among words.
IS_IMAGE = torch.tensor([False, True, True, True, True, False, True, True, True, True, False])
TOKENS = ("<s>", *["<image>"] * 4, " and\n", *["<image>"] * 4, " what")


IMAGES = (Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "blue"))


def test_heat_is_warm_where_tokens_were_kept_and_dark_where_they_went() -> None:
    white = Image.new("RGB", (8, 8), "white")
    shown = heat(white, torch.tensor([1.0, 0.0, 0.0, 0.25]), side=8)
    kept, gone, partly = shown[0, 0], shown[0, 7], shown[7, 7]
    assert kept[0] > 0.9 > kept[2]  # orange
    assert gone.max() < 0.4
    assert gone.mean() < partly.mean() < kept.mean()
    assert np.allclose(shown[:4, :4], kept)


def test_one_line_a_strategy_with_its_words_and_pictures() -> None:
    keeps = torch.tensor([[0, 3, 5, 10], [0, 1, 5, 10]])
    found = [KeptPositions(load_strategy(name), IS_IMAGE, (keeps.unbind(),)) for name in ("tp", "h2o")]
    figure = draw_kept(TOKENS, IMAGES, found, "a title")
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts[:2] == ["tp", "text 100%, images 12% kept"]
    assert texts[2:7] == ["<s>", "▣", " and↵", "▣", " what"]
    assert [len(axes.images) for axes in figure.axes] == [0, 2, 0, 2]


def test_command_draws_and_says_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["benchmark.samples=1", "benchmark.most_images=14", f"data_dir={tmp_path}"]
    output = tmp_path / "kept.png"
    assert main(["kept", "--strategies", "tp,full", "--layer", "2", "--output", str(output), *small]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr().out
    assert "tp         keeps 100.0% of the text" in told
    assert "full       keeps 100.0% of the text and 100.0% of the image tokens" in told
    for arguments, message in [
        (["--layer", "9"], "--layer 9 is none of the model's layers, 1 to 6"),
        (["--strategies", "nope"], "strategy 'nope' is unknown"),
        (["--output", "kept.doc"], "--output kept.doc is no picture"),
    ]:
        assert main(["kept", *arguments, *small]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}")
        assert error.count("\n") == 1


@pytest.mark.parametrize("inside", [True, False])
def test_a_session_shows_what_its_strategy_keeps(inside: bool) -> None:
    backbone = load_tiny()
    images = [Image.new("RGB", (32, 32), "red")] * 8
    inputs = backbone.inputs(["The badge of ada 7." + "<ImageHere>" * 8 + " What is it?"], [images])
    (kept,) = kept_positions(backbone.model, inputs, [load_strategy("tp_pmerge")])
    with look_once(backbone.model, "tp_pmerge") as session:
        before = backbone.model.generate(**inputs, max_new_tokens=4, do_sample=False)  # type: ignore[operator]
        report = session.report()
        figure = session.show(inputs, backbone.tokenizer, images) if inside else None
        assert session.report().kept_tokens == report.kept_tokens
        after = backbone.model.generate(**inputs, max_new_tokens=4, do_sample=False)  # type: ignore[operator]
        assert torch.equal(before, after)
    figure = figure or session.show(inputs, backbone.tokenizer, images)
    expected = draw_kept(token_texts(backbone.tokenizer, inputs["input_ids"][0].tolist()), images, [kept], "")
    texts = [[text.get_text() for axes in one.axes for text in axes.texts] for one in (figure, expected)]
    assert texts[0] == texts[1]
    assert texts[0][1].startswith("text 100%, images ")
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    one = session.show(inputs, backbone.tokenizer, images, layer=0)
    assert "layer 0" in one.texts[0].get_text()


def test_a_picture_of_two_prompts_or_other_images_is_refused() -> None:
    backbone = load_tiny()
    images = [Image.new("RGB", (32, 32), "red")] * 2
    prompt = "Look.<ImageHere><ImageHere> What is it?"
    with look_once(backbone.model, "h2o") as session:
        with pytest.raises(LookmError, match="2 prompts were given"):
            session.show(backbone.inputs([prompt] * 2, [images] * 2), backbone.tokenizer, images * 2)
        with pytest.raises(LookmError, match="cannot be told apart as 3 images"):
            session.show(backbone.inputs([prompt], [images]), backbone.tokenizer, [images[0]] * 3)
