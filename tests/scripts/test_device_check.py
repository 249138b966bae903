"""The GPU's script, run on the CPU with a small shape."""

import json
from pathlib import Path

import pytest
import torch

from scripts import device_check, prefill_memory


def test_all_checks_pass_on_this_device_and_the_file_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    micro = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setitem(device_check.SHAPES, "small", micro)
    monkeypatch.setattr(device_check, "TOLERANCE", {torch.float32: 1e-4})
    output = tmp_path / "check.json"
    assert device_check.main(["--device", "cpu", "--length", "64", "--repeats", "1", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["hardware"]["processor"]
    assert {row["strategy"] for row in result["layers"]} == {row["strategy"] for row in result["generation"]}
    assert all(row["log_sum_exp_told"] and not row["fused"] for row in result["kernels"])  # no Triton on the CPU
    assert {row["strategy"] for row in result["determinism"]} == {row["strategy"] for row in result["layers"]}
    assert set(result["layer"]["eleven"]) == {"statistics_ms", "choice_ms", "merge_ms"}
    assert set(result["measured"]["prefill"]) == set(device_check.MEASURED)
    assert ", 0 failed" in capsys.readouterr().out


def test_a_failed_check_is_the_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [{"strategy": "h2o", "passed": False}]
    monkeypatch.setattr(device_check, "check_layers", lambda *args: failed)
    monkeypatch.setattr(device_check, "check_generation", lambda *args: [])
    for nothing in ("check_kernels", "check_determinism"):
        monkeypatch.setattr(device_check, nothing, lambda *args: [])
    monkeypatch.setattr(device_check, "measure_prefill", lambda *args: {"prefill": {}})
    layer = {"attention_ms": 0.0, "tp_pmerge": {}, "eleven": {}}
    monkeypatch.setattr(device_check, "measure_layer", lambda *args: layer)
    assert device_check.main(["--device", "cpu", "--output", str(tmp_path / "check.json")]) == 1


def test_eager_attention_needs_more_memory_than_scores_beside_sdpa() -> None:
    argv = ["--length", "1500", "--layers", "1", "--width", "64", "--heads", "8"]
    h2o, eager = (prefill_memory.run_variant(name, argv) for name in ("h2o", "eager"))
    assert eager > 2 * h2o
