"""Vulnerabilities fail the check; a service that cannot be asked does not, and is never taken for a clean bill."""

import json
import sys
from typing import Any

import pytest

from scripts import check_dependencies

CLEAN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "PYSEC-2"}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


def printing(text: str) -> str:
    """A command that prints this, whatever its options."""
    return f"{sys.executable} -c \"import sys; sys.stdout.write(bytes.fromhex('{text.encode().hex()}').decode())\""


@pytest.mark.parametrize(
    ("dependencies", "status", "told"),
    [
        ([CLEAN, CLEAN], 0, "2 of 2 dependencies checked, 0 vulnerabilities known"),
        ([CLEAN, SKIPPED], 0, "1 of 2 dependencies checked, 0 vulnerabilities known"),
        ([CLEAN, BAD], 1, "b 2: PYSEC-1, mended in 2.1\nb 2: PYSEC-2, mended in no version\n2 of 2"),
        ([SKIPPED, SKIPPED], 0, "dependencies were NOT checked: the vulnerability service knows none of the 2 here"),
        ([], 0, "dependencies were NOT checked"),
    ],
)
def test_what_pip_audit_reports_decides(
    dependencies: list[Any], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = printing(json.dumps({"dependencies": dependencies}))
    assert check_dependencies.main(["--pip-audit", command]) == status
    assert told in capsys.readouterr().out


def test_an_answer_that_is_none_is_said_and_a_missing_program_is_wrong_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_dependencies.main(["--pip-audit", printing("")]) == 0
    assert "NOT checked: the vulnerability service cannot be reached (no output)" in capsys.readouterr().out
    assert check_dependencies.main(["--pip-audit", "/nowhere/pip-audit"]) == 2
    assert "error: /nowhere/pip-audit cannot be started" in capsys.readouterr().err
