"""Claims about the package as a whole."""

import subprocess
import sys

import pytest

import lookm


def test_every_public_name_can_be_imported_and_unknown_ones_cannot() -> None:
    assert sorted(lookm._HOMES) == lookm.__all__ == dir(lookm)
    assert all(getattr(lookm, name).__name__ == name for name in lookm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'look_twice'"):
        lookm.look_twice  # noqa: B018


def test_errors_are_imported_without_torch() -> None:
    code = "import sys, lookm.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
