#!/usr/bin/env bash
# README's first command: set everything up, then run the default experiment.
source "$(dirname "$0")/environment.sh"
"$PYTHON" run.py
