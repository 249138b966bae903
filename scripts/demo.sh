#!/usr/bin/env bash
# README's first command: set everything up, then full, h2o and tp_pmerge from one prefill on the tiny model.
source "$(dirname "$0")/environment.sh"
"$PYTHON" -m scripts.demo "$@"
