#!/usr/bin/env bash
# README's second command: set everything up, then run all tests. Arguments are passed on to pytest.
source "$(dirname "$0")/environment.sh"
"$PYTHON" -m pytest -n 2 "$@"
