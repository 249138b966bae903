"""`scripts.plan` tells jobs, what is done, what the rest costs and how many samples suffice; it writes no results."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks.evaluation.run import run
from benchmarks.planning import GPUS, memory_bytes, parameters_of, prompt_seconds, resolve
from lookm.errors import LookmError
from lookm.locations import CONFIGS
from lookm.models.memory import blueprint
from lookm.registry import load_strategy
from scripts import plan
from tests.runner.conftest import OWN_CONFIGS, MakeSettings, settings_of
from tests.runner.small_benchmark import NEEDLE

__all__ = ["settings_of"]

LLAVA = {"family": "llava", "size": "7b", "max_context_len": 4096, "batch_size": 1}
SWEEP = ("strategy=full,h2o,tp", "model=random", "benchmark=small", "device=cpu")


def arguments(tmp_path: Path, *more: str) -> list[str]:
    """The small sweep, below this folder."""
    fixed = (f"hydra.searchpath=[file://{OWN_CONFIGS}]", f"results_dir={tmp_path}/runs", f"data_dir={tmp_path}/data")
    return [*SWEEP, *fixed, *more]


def test_a_sweep_is_planned_with_what_is_done_and_measured(
    settings_of: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings_of("strategy=full"))
    run(settings_of("strategy=h2o", f"datasets={NEEDLE}", "limit=3"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    assert plan.main(arguments(tmp_path, "alpha2=0.1,0.2", "--batches", "1")) == 0
    text = capsys.readouterr().out
    rows = [re.split(r"  +", line)[1:] for line in text.splitlines() if line.startswith(("random-", "all"))]
    assert text.startswith("6 jobs, 5 runs\n")
    assert rows == [
        ["12", "12", "0"], ["12", "3", "9"], ["12", "0", "12"], ["12", "0", "12"], ["12", "0", "12"], ["60", "15", "45"]
    ]  # fmt: skip
    assert "4 runs computed together" in text
    assert "measured on cpu: 1 batches of 3" in text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == files


def test_where_nothing_is_left_nothing_is_measured(
    settings_of: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings_of("strategy=full", "limit=1"))
    assert plan.main(arguments(tmp_path, "limit=1", "strategy=full")) == 0
    assert "nothing is left to compute" in capsys.readouterr().out


def test_what_the_command_would_refuse_is_refused_before_it(
    settings_of: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings_of("strategy=full", "limit=1"))
    (file,) = (tmp_path / "runs").glob("*/run.json")
    about = json.loads(file.read_text(encoding="utf-8"))
    about["configuration"]["strategy"]["alpha1"] = 0.7
    file.write_text(json.dumps(about), encoding="utf-8")
    assert plan.main(arguments(tmp_path, "limit=1", "strategy=full")) == 2
    assert "was computed with other configuration" in capsys.readouterr().err
    assert plan.main(arguments(tmp_path, "limit=1", "strategy=full", "overwrite=true", "--batches", "1")) == 0


def test_a_large_model_without_weights_and_data_is_estimated_and_says_from_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["+experiment=table1", "model=llava7b", "benchmark=milebench", f"data_dir={tmp_path}", "device=cpu"]
    assert plan.main([*given, f"results_dir={tmp_path}/runs"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("10 jobs, 10 runs\n")
    assert "llava7b-milebench-tp_pmerge-0.1-0.1-paper-bf16" in text
    assert "every prompt is taken to fill the context of 4096 tokens (an upper bound)" in text
    assert "A100 80 GB at 40% of its FLOP/s in prefill and 60% of its bandwidth in decode (assumed)" in text
    assert "lookm download milebench" in text
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--difference", "0"], "--difference is 0; it must be above 0"),
        (["--power", "1"], "--power is 1; it must be between 0 and 1"),
        (["--batches", "0"], "--batches is 0; it must be at least 1"),
        (["alpha1=2"], "alpha1 must be a number from 0 to 1, not 2"),
        (["model=nope"], "unknown model 'nope'"),
        (["alfa1=0.1"], "unknown key 'alfa1'; did you mean 'alpha1'?"),
    ],
)
def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str], wrong: list[str], told: str) -> None:
    assert plan.main(wrong) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml") if not path.stem.startswith("tiny"))
)
def test_every_full_size_model_tells_its_sizes(name: str) -> None:
    model, image = blueprint(yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text()))
    language, vision = parameters_of(model)
    billions = int(re.findall(r"(\d+)b", name)[0])
    assert 0.7 * billions < language / 1e9 < 1.3 * billions
    assert 1e8 < vision < 1e10
    assert 100 <= image.tokens <= 1000


def test_a_model_that_does_not_tell_its_size_is_named() -> None:
    with pytest.raises(LookmError, match=r"unknown family None of backbones"):
        blueprint({"_target_": "lookm.models.tiny.load_tiny"})


def seconds(*names: str, tokens: int = 2000, images: int = 3, answer_tokens: float = 32.0) -> tuple[float, float]:
    """Seconds of one prompt of LLaVA-7B on an A100, together and apart."""
    strategies = [load_strategy(name, alpha1=0.1, alpha2=0.1) for name in names]
    sizes: dict[str, Any] = {"tokens": tokens, "images": images, "answer_tokens": answer_tokens}
    return prompt_seconds(*blueprint(LLAVA), GPUS["a100"], strategies, dtype=torch.bfloat16, **sizes)


def test_costs_grow_as_they_must_and_sharing_saves() -> None:
    assert seconds("full")[0] == pytest.approx(seconds("full")[1])
    assert seconds("full", "h2o")[0] < seconds("full", "h2o")[1]
    assert seconds("full", "h2o")[1] == pytest.approx(seconds("full")[1] + seconds("h2o")[1])
    assert seconds("full", tokens=4000)[0] > 2 * seconds("full", answer_tokens=0.0)[0]
    decode = seconds("full")[0] - seconds("full", answer_tokens=0.0)[0]
    language, _ = parameters_of(blueprint(LLAVA)[0])
    cache = 2016 * 512 * 1024  # keys and values of 32 layers of width 4,096, two bytes each
    assert decode == pytest.approx(32 * (2 * language + cache) / (GPUS["a100"].bandwidth * 0.6))


def test_rows_that_are_decoded_alone_share_the_vision_tower_and_nothing_else() -> None:
    no_images: dict[str, Any] = {"images": 0}
    joined, alone = seconds("h2o", **no_images)[0], seconds("adakv", **no_images)[0]
    assert seconds("h2o", "adakv", **no_images)[0] == pytest.approx(joined + alone)
    tower = seconds("adakv")[0] - seconds("adakv", tokens=2000, images=0)[0]
    saved = seconds("h2o", "adakv")[1] - seconds("h2o", "adakv")[0]
    assert saved == pytest.approx(tower)
    assert seconds("h2o", "fastv")[0] == pytest.approx(seconds("h2o", "fastv")[1])


def test_a_cache_is_as_large_as_its_strategy_promises_and_not_as_the_nominal_budget_says() -> None:
    """A text prior keeps all text: 1,500 of 2,076 tokens and the recent window, where H2O keeps a fifth of them."""
    prompt: dict[str, Any] = {"tokens": 2076, "images": 1, "answer_tokens": 100.0}
    recent, important = 207, 207
    kept = {"h2o": recent + important, "tp": recent + 1500 - 32, "full": 2076}  # 32 text tokens are recent ones, too
    step = {name: seconds(name, **prompt)[0] - seconds(name, **prompt | {"answer_tokens": 0.0})[0] for name in kept}
    for name in ("tp", "full"):
        more = (kept[name] - kept["h2o"]) * 512 * 1024 * 100 / (GPUS["a100"].bandwidth * 0.6)
        assert step[name] - step["h2o"] == pytest.approx(more)


def test_memory_is_the_weights_every_strategy_s_cache_and_one_workspace_a_prompt() -> None:
    model, image = blueprint(LLAVA)
    h2o, tp = (load_strategy(name, alpha1=0.1, alpha2=0.1) for name in ("h2o", "tp"))

    def memory(*strategies: Any, batch_size: int = 1) -> int:
        return memory_bytes(model, image, strategies, tokens=4000, batch_size=batch_size, dtype=torch.bfloat16)

    assert memory(h2o, h2o) - memory(h2o) == 800 * 512 * 1024
    weights = 2 * memory(h2o) - memory(h2o, batch_size=2)
    assert weights == 2 * sum(parameters_of(model)) == 2 * 7_063_427_072
    assert memory(h2o, tp) >= memory(h2o, h2o)


def test_the_sample_size_is_the_textbooks_and_a_simulation_finds_the_power() -> None:
    samples, variance, _ = resolve(0.05)
    assert variance == pytest.approx(0.2 - 0.05**2)
    assert samples == math.ceil((1.959964 + 0.841621) ** 2 * variance / 0.05**2)
    difference, share = 0.1, 0.2
    needed, *_ = resolve(difference)
    random = np.random.default_rng(1)
    better, worse = (share + difference) / 2, (share - difference) / 2
    drawn = random.choice([1, -1, 0], p=[better, worse, 1 - share], size=(2000, needed))
    z = drawn.mean(1) / (drawn.std(1, ddof=1) / math.sqrt(needed))
    assert (z > 1.96).mean() == pytest.approx(0.8, abs=0.03)


def test_measured_pairs_replace_the_assumption_when_there_are_enough() -> None:
    assert resolve(0.02, [1.0] * 10)[2] == 0
    measured = [1.0, -1.0, 0.0, 0.0] * 25
    _, variance, pairs = resolve(0.02, measured)
    assert pairs == 100
    assert variance == pytest.approx(np.var(measured, ddof=1))
    assert resolve(0.5)[1] == pytest.approx(0.25), "a difference cannot be larger than the disagreement"
