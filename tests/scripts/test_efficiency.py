"""The measurements of efficiency, on a model of two small layers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import efficiency
from scripts.measuring import decode, prefill, workplace
from scripts.measuring.decode import measured_step, paper_rows
from scripts.measuring.workplace import Workplace

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


def rows(folder: Path, part: str) -> list[dict[str, Any]]:
    """What a part measured."""
    return json.loads((folder / "cpu" / f"{part}.json").read_text())["rows"]


def test_every_part_is_measured_written_and_not_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peaks = {"plain": 4 << 20, "eager": 6 << 20}
    monkeypatch.setattr(prefill, "peak_in_process", lambda name, *_: peaks.get(name, 5 << 20))
    command = ["--quick", "--device", "cpu", "--output", str(tmp_path)]
    assert efficiency.main(command) == 0
    printed = capsys.readouterr().out
    for part, (title, _) in efficiency.PARTS.items():
        assert title in printed
        result = json.loads((tmp_path / "cpu" / f"{part}.json").read_text())
        assert result["hardware"]["processor"]
        assert "for trying the script out" in result["notes"][0]
        assert "no GPU" in result["notes"][1]
        assert all(len(row["runs_ms"]) == 1 for row in result["rows"] if "runs_ms" in row)
    assert "28.16" in printed  # the paper's row beside ours
    check_decode(rows(tmp_path, "decode"))
    check_others(tmp_path)

    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    assert efficiency.main(command) == 0
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")} == written
    assert capsys.readouterr().err.count("already measured") == len(efficiency.PARTS)
    assert efficiency.main([*command, "--parts", "capacity", "--length", "48"]) == 0
    assert rows(tmp_path, "capacity")[0]["length"] == 48


def check_decode(found: list[dict[str, Any]]) -> None:
    """All lengths, batches and budgets, with the bytes that their caches hold."""
    cases = {(row["length"], row["batch"], row["budget"]) for row in found}
    assert cases == {(n, b, budget) for n, b in ((80, 1), (64, 1), (96, 1), (96, 2)) for budget in decode.BUDGETS}
    for row in found:
        assert row["kept_tokens"] == int(row["budget"] * row["length"])
        assert row["kv_bytes"] == row["batch"] * row["kept_tokens"] * 2 * 2 * 32 * 4  # K and V, layers, width, float32
        assert row["read_bytes"] > row["kv_bytes"]
        assert row["times_floor"] == pytest.approx(row["median_ms"] / row["floor_ms"], rel=1e-2)


def check_others(folder: Path) -> None:
    """Prefill, sweep and capacity."""
    variants = {row["variant"]: row for row in rows(folder, "prefill")}
    assert set(variants) == {"plain", *prefill.VARIANTS}
    assert variants["plain"]["times_first"] == 1
    assert [variants[name]["peak_times_first"] for name in ("plain", "h2o", "eager")] == [1.0, 1.25, 1.5]
    sweep = rows(folder, "sweep")
    assert [row["model"] for row in sweep] == ["tiny, trained", "nano"]
    assert all(row["answers_that_differ_from_single_runs"] == 0 and row["answers"] == 11 for row in sweep)
    assert all("34 rows together" in row["ways"] for row in sweep)
    assert all(row["ways"]["eleven single runs"]["times_first"] > 1 for row in sweep)
    capacity = {row["budget"]: row for row in rows(folder, "capacity")}
    assert capacity[1.0]["batch"] < capacity[0.2]["batch"] < capacity[0.05]["batch"]
    for row in capacity.values():
        room = row["memory_bytes"] - row["weights_bytes"]
        assert row["batch"] * row["row_bytes"] <= room < (row["batch"] + 1) * row["row_bytes"]


def test_what_does_not_fit_is_recorded_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workplace, "free_bytes", lambda device: 60_000)
    command = ["--quick", "--device", "cpu", "--output", str(tmp_path), "--memory-gib", "0.0001"]
    assert efficiency.main([*command, "--parts", "decode", "capacity"]) == 0
    found = rows(tmp_path, "decode")
    assert {row["budget"] for row in found if "skipped" in row} == {1.0}
    assert all("the caches take" in row["skipped"] for row in found if "skipped" in row)
    assert all(row["skipped"] == "not one row fits beside the weights" for row in rows(tmp_path, "capacity"))
    assert "not one row fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--steps", "0"], "--steps 0 is no size"), (["--batches", "4", "-1"], "--batches -1 is no size")],
)
def test_wrong_sizes_are_one_line_and_status_2(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert efficiency.main(["--quick", "--device", "cpu", "--output", str(tmp_path), *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert efficiency.main(["--quick", "--device", "cuda"]) == 2
    assert "no GPU is available here; use --device cpu" in capsys.readouterr().err


def test_ratios_are_the_medians_of_each_round_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 9.0, 1.0, 3.0, 2.0, 4.0, 4.0, 20.0])  # warm-up, then three rounds of (first, second)
    monkeypatch.setattr(workplace, "elapsed_ms", lambda work, device: next(times))
    result = workplace.in_turns({"first": lambda: None, "second": lambda: None}, CPU, 3)
    assert (result["first"]["median_ms"], result["second"]["median_ms"]) == (2.0, 4.0)
    assert result["second"]["times_first"] == 3.0  # of 3, 2 and 5
    assert (result["second"]["min_ms"], result["second"]["max_ms"]) == (3.0, 20.0)


@pytest.mark.parametrize("graph", [False, True])
def test_both_kinds_of_step_are_measured_on_any_device(graph: bool) -> None:
    place = Workplace(CPU, efficiency.QUICK)
    row = measured_step(place, 2, 40, 0.2, graph=graph)
    assert row["kept_tokens"] == 8
    assert len(row["runs_ms"]) == 1


def test_the_paper_s_row_is_read_from_its_table() -> None:
    assert [(row["budget"], row["times_full"]) for row in paper_rows()] == [(1.0, 1.0), (0.2, 0.745), (0.05, 0.647)]


def test_it_needs_neither_hydra_nor_pandas_nor_datasets() -> None:
    code = (
        "import sys\n"
        "for name in ('hydra', 'omegaconf', 'pandas', 'datasets', 'matplotlib', 'PIL', 'sklearn', 'wandb'):\n"
        "    sys.modules[name] = None\n"
        "from scripts import efficiency\n"
        "print(efficiency.parser().prog)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_eager_attention_needs_more_memory_than_scores_beside_sdpa() -> None:
    h2o, eager = (prefill.peak_in_process(name, "nano", 3000) for name in ("h2o", "eager"))
    assert eager > 2 * h2o
