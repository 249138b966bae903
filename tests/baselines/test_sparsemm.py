"""Claims about SparseMM: heads get tokens by their scores, and the scores by where heads look."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from baselines.sparsemm import save_head_scores, visual_hits
from lookm import LookmError, load_strategy, look_once
from lookm.compression import compress_many
from lookm.layer import Layer
from lookm.observation import observe_prefill
from scripts import head_scores
from tests.baselines.oracle import Case, pooled
from tests.baselines.test_divided import shared_out
from tests.lookm.layers import random_layer
from tests.lookm.models import built, left_padded, prompt
from tests.lookm.oracle import attention, best

LENGTH, LAYERS, HEADS = 50, 3, 2
SCORES = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.3, 0.3, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])


def layers_of() -> list[Layer]:
    made = [random_layer(LENGTH, HEADS, 2, runs=[9, 22, 6], seed=seed) for seed in range(LAYERS)]
    for index, layer in enumerate(made):
        layer.index, layer.n_layers = index, LAYERS
    return made


@pytest.mark.parametrize("floor", [0.1, 0.0, 1.0])
@pytest.mark.parametrize("budget", [(0.1, 0.1), (0.0, 0.5), (0.02, 0.0)])
def test_heads_keep_a_floor_and_their_share_of_the_rest(
    budget: tuple[float, float], floor: float, tmp_path: Path
) -> None:
    save_head_scores(tmp_path / "heads.json", SCORES, model="tiny")
    strategy = load_strategy(
        "sparsemm", alpha1=budget[0], alpha2=budget[1], floor=floor, scores=str(tmp_path / "heads.json")
    )
    values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    cases = [Case(layer, *strategy.window_sizes(LENGTH), values) for layer in layers_of()]
    w = cases[0].fitting(None)
    slots, past = cases[0].budget - w, list(range(LENGTH - w))
    least = int(floor * slots)
    weights = [float(row[2 * h] + row[2 * h + 1]) for row in SCORES for h in range(HEADS)]
    rest = shared_out(weights, LAYERS * HEADS * (slots - least), 0, len(past) - least)
    total = 0
    for index, case in enumerate(cases):
        (row,) = compress_many([strategy], case.layer)
        for h, kept in enumerate(row.head_positions()):
            votes = pooled(case.window(h, w)[: len(past)], 5)
            chosen = best(votes, past, least + rest[index * HEADS + h])
            assert kept.tolist() == sorted(chosen + list(range(len(past), LENGTH)))
            total += len(kept)
    assert total == LAYERS * HEADS * strategy.promised_tokens(case.layer.is_image)


def test_a_model_answers_in_a_batch_as_alone_and_bytes_follow_the_scores(tmp_path: Path) -> None:
    model = built("llava")
    save_head_scores(tmp_path / "heads.json", SCORES)
    rows = [prompt("llava"), prompt("llava", (5, 20, 3, 8), seed=1)]
    strategy = load_strategy("sparsemm", alpha2=0.2, scores=str(tmp_path / "heads.json"))
    settings = {"max_new_tokens": 5, "do_sample": False}
    with look_once(model, strategy) as session:
        batch = model.generate(**left_padded(rows), **settings)  # type: ignore[operator]
        for index, row in enumerate(rows):
            assert model.generate(**row, **settings)[0, -5:].equal(batch[index, -5:])  # type: ignore[operator]
            first, second, last = (layer[0] for layer in session.report().kept_bytes)
            assert first > last
            assert second > last


def test_without_a_file_of_this_model_it_is_refused_in_one_line(tmp_path: Path) -> None:
    model, inputs = built("llava"), prompt("llava")
    with look_once(model, "sparsemm"), pytest.raises(LookmError, match="make one with `lookm head-scores`"):
        model(**inputs)
    with pytest.raises(LookmError, match="cannot be read: No such file"):
        load_strategy("sparsemm", scores=str(tmp_path / "none.json"))
    for content in ("[]", '{"heads": [[1, 2], [3]]}', '{"heads": [[-1]]}', "nothing"):
        (tmp_path / "wrong.json").write_text(content)
        with pytest.raises(LookmError, match="holds no head scores"):
            load_strategy("sparsemm", scores=str(tmp_path / "wrong.json"))
    save_head_scores(tmp_path / "other.json", SCORES[:2])
    other = load_strategy("sparsemm", scores=str(tmp_path / "other.json"))
    with look_once(model, other), pytest.raises(LookmError, match="scores of 2 layers and 4 heads, the model"):
        model(**inputs)


def test_a_head_scores_where_its_largest_weight_lies_on_the_region() -> None:
    model, inputs = built("qwen2_5_vl"), prompt("qwen2_5_vl")
    layers: list[Layer] = []
    region = torch.zeros(inputs["input_ids"].shape[1], dtype=torch.bool)
    region[::2] = True
    hits = visual_hits(model, [(inputs, region), (inputs, ~region)])
    assert hits.eq(0.5).all()  # one or the other, each time
    hits = visual_hits(model, [(inputs, region)])
    observe_prefill(model, inputs, layers.append)
    for row, layer in zip(hits, layers, strict=True):
        weights = attention(layer.queries, layer.keys)[:, -1]
        assert row.tolist() == [float(region[int(head.argmax())]) for head in weights]


def test_the_command_writes_what_the_strategy_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "heads.json"
    assert head_scores.main(["--output", str(path), "--prompts", "3", "--images", "2", "device=cpu"]) == 0
    assert "6 layers × 4 heads, 3 prompts" in capsys.readouterr().out
    made = json.loads(path.read_text())
    assert made["model"] == "tiny"
    assert all(score * 3 == pytest.approx(round(score * 3)) for row in made["heads"] for score in row)
    assert load_strategy("sparsemm", scores=str(path)).missing is None
    assert head_scores.main(["--output", str(path), "--prompts", "0"]) == 2
