"""Known vulnerabilities of the pinned dependencies: `python -m scripts.check_dependencies`, with pip-audit.

Exit status: 0 none is known, or nobody could be asked (it says so); 1 some are known; 2 pip-audit does not run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.guard import guarded

PINS = Path(__file__).resolve().parent.parent / "constraints.txt"
_SECONDS = 300


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.check_dependencies", description=__doc__)
    parser.add_argument("--pip-audit", default="pip-audit", metavar="COMMAND", help="how to start it (pip-audit)")
    command = shlex.split(parser.parse_args(arguments).pip_audit)
    options = ["-r", str(PINS), "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except OSError as error:
        print(f"error: {command[0]} cannot be started ({error.strerror}); pip install pip-audit", file=sys.stderr)
        return 2
    except subprocess.TimeoutExpired:
        print(f"dependencies were NOT checked: no answer in {_SECONDS} seconds")
        return 0
    try:
        report = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"dependencies were NOT checked: the vulnerability service cannot be reached ({reason[:120]})")
        return 0
    lines, known = judge(report)
    print("\n".join(lines))
    return 1 if known else 0


def judge(report: Mapping[str, Any]) -> tuple[list[str], int]:
    """What a report of pip-audit says.

    A package that the service does not know is reported as skipped, not as an error; where all are, as behind a mirror
    without the vulnerability service, nothing was checked.

    Returns:
        Lines to print, and the number of known vulnerabilities.
    """
    entries = report.get("dependencies", [])
    checked = [entry for entry in entries if "skip_reason" not in entry]
    found = [(entry, one) for entry in checked for one in entry.get("vulns", [])]
    if not checked:
        return [f"dependencies were NOT checked: the vulnerability service knows none of the {len(entries)} here"], 0
    lines = []
    for entry, one in found:
        mended = ", ".join(one.get("fix_versions", [])) or "no version"
        lines.append(f"{entry['name']} {entry['version']}: {one['id']}, mended in {mended}")
    return [*lines, f"{len(checked)} of {len(entries)} dependencies checked, {len(found)} vulnerabilities known"], len(
        found
    )


if __name__ == "__main__":
    sys.exit(main())
