# Sourced by the other scripts: makes .venv from pyproject.toml and constraints.txt, once for each version of them.
# pip's own variables, such as PIP_EXTRA_INDEX_URL for a CPU-only torch, are heeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=.venv/bin/python
export OMP_WAIT_POLICY=PASSIVE  # idle threads sleep: on a busy machine spinning ones take the time of those that work
wanted=$(cat pyproject.toml setup.py constraints.txt | cksum)
if [ "$(cat .venv/installed 2>/dev/null || true)" != "$wanted" ]; then
    echo "setting up .venv (once; some minutes where torch must be downloaded) …"
    [ -x "$PYTHON" ] || python3 -m venv .venv
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
    echo "$wanted" > .venv/installed
fi
