"""The GPU's script, run on the CPU with a small shape."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import device_check


def test_all_checks_pass_on_this_device_and_the_file_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device_check, "VALUES", {torch.float32: 1e-4})
    monkeypatch.setattr(device_check, "HEADS", device_check.HEADS[:2])
    output = tmp_path / "check.json"
    arguments = ["--device", "cpu", "--length", "64", "--shape", "qwen2_5vl7b"]
    assert device_check.main([*arguments, "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["hardware"]["processor"]
    assert {row["strategy"] for row in result["layers"]} == {row["strategy"] for row in result["generation"]}
    assert all(row["same_bits"] and row["same_positions"] == 1 for row in result["layers"])
    assert all(row["log_sum_exp_told"] and not row["fused"] for row in result["kernels"])  # no Triton on the CPU
    assert result["kernels"][-1]["heads"] == [4, 7, 128]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["layers", "generation", "kernels"]
    assert all(line.endswith(" checks, 0 failed") for line in printed)


def test_a_difference_between_devices_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = device_check.compress_many, []

    def another(strategies: Any, layer: Any) -> Any:
        """The second call on the device gives other bits."""
        calls.append(layer)
        results = real(strategies, layer)
        return [replace(one, values=one.values + 1) for one in results] if len(calls) == 2 else results

    monkeypatch.setattr(device_check, "compress_many", another)
    rows = device_check.check_layers("cpu", torch.float32, 64)
    assert not any(row["same_bits"] or row["passed"] for row in rows)


def test_a_failed_check_is_the_exit_status_and_nothing_is_written_unless_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for checks in ("check_layers", "check_generation", "check_kernels"):
        monkeypatch.setattr(device_check, checks, lambda *args: [])
    assert device_check.main(["--device", "cpu"]) == 0
    monkeypatch.setattr(device_check, "check_layers", lambda *args: [{"strategy": "h2o", "passed": False}])
    assert device_check.main(["--device", "cpu"]) == 1
    assert 'failed: {"dtype": "float32", "strategy": "h2o", "passed": false}' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
