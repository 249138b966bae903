#!/usr/bin/env bash
# Builds the wheel and uses it in clean environments, in an empty folder. Nothing of this folder is imported there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-$PWD/.venv/bin/python}
REPOSITORY=$PWD
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
unset PYTHONPATH

say() { echo "· $*"; }
fail() { echo "error: $*" >&2; exit 1; }

say "building, from a copy of the tracked files"
mkdir "$WORK/wheel" "$WORK/empty"
wheel=$(bash scripts/build_wheel.sh "$PYTHON" "$WORK/wheel")

"$PYTHON" - "$wheel" <<'END'
import sys, zipfile
tops = {name.split("/")[0] for name in zipfile.ZipFile(sys.argv[1]).namelist()}
expected = {"lookm", "baselines", "benchmarks", "hydra_plugins", "lookm_scripts"}
found = {top for top in tops if not top.endswith(".dist-info")}
if found != expected:
    sys.exit(f"error: the wheel installs {sorted(found)}, not {sorted(expected)}")
END

for kind in engine harness; do
    "$PYTHON" -m venv "$WORK/$kind"
    "$WORK/$kind/bin/python" -m pip install --quiet --no-deps "$wheel"
    "$PYTHON" scripts/linked_environment.py "$WORK/$kind" lookm-harness $([ $kind = engine ] || echo harness)
done
cd "$WORK/empty"

say "the engine alone: torch, transformers, and what these bring"
"$WORK/engine/bin/python" - <<'END'
import importlib.util
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from lookm import compress, load_strategy, look_once
from lookm.registry import ready_strategies
from lookm.shortening import ShorteningStrategy

for package in ("hydra", "omegaconf", "datasets", "pandas", "PIL", "matplotlib", "rouge_score", "sklearn"):
    assert importlib.util.find_spec(package) is None, f"{package} is in the engine's environment"
keys, values = compress(*torch.randn(3, 1, 2, 100, 8), torch.arange(100) % 2 == 0, strategy="tp_pmerge")
shape = dict(vocab_size=64, pad_token_id=0, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(**shape))
for strategy in ready_strategies():
    if isinstance(load_strategy(strategy), ShorteningStrategy):
        continue  # it needs more layers, or a vision tower
    with look_once(model, strategy, image_token_ids=(7,)) as session:
        model.generate(torch.tensor([[1, 2, *[7] * 30, *range(3, 11)]]), max_new_tokens=3, do_sample=False, pad_token_id=0)
    print(f"  {strategy:<10} kept {session.report().kept_tokens[0]}")
END

refused() {  # refused STATUS_AND_LINE COMMAND…: ends with status 2 and one line that contains the text
    local text=$1 status=0
    shift
    "$@" >out 2>err || status=$?
    [ $status = 2 ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -qF -- "$text" err ||
        { cat out err; fail "$*: status $status, not one line that says $text"; }
    echo "  $(cat err)"
    rm out err
}
refused "pip install 'lookm-harness[harness]'" "$WORK/engine/bin/lookm" run
refused "pip install 'lookm-harness[harness]'" "$WORK/engine/bin/lookm" table table1
refused "did you mean 'table'?" "$WORK/engine/bin/lookm" tabel

say "the harness, in an empty folder"
PATH="$WORK/harness/bin:$PATH"
[ -z "$(ls)" ] || fail "something was written: $(ls)"
works() {  # works COMMAND…: ends with status 0; what it said is shown if not
    "$@" >said.txt 2>&1 || { cat said.txt; fail "$*"; }
}
works lookm demo limit=2
tail -4 said.txt | sed 's/^/  /'
works lookm run strategy=snapkv limit=2
runs=results/runs
works lookm table table3 --set limit=2
grep -q "MileBench-mini" said.txt || { cat said.txt; fail "lookm table shows no benchmark"; }
works lookm compare $runs/tiny-mini-full-fp32 $runs/tiny-mini-h2o-0.1-0.1-paper-fp32
lookm verify $runs/tiny-mini-h2o-0.1-0.1-paper-fp32 --samples 1 | sed 's/^/  /'
works lookm plan strategy=h2o limit=2
works lookm inspect --benchmark mini --model tiny
works lookm kept --output kept.png
refused "lookm-harness[report]" lookm report
[ -z "$(find . -name '*.py' -o -name '.hydra')" ] || fail "a command left files behind"
python - "$REPOSITORY" >help.txt <<'END'
import sys, lookm, benchmarks, baselines, lookm_scripts
from lookm_scripts.command import COMMANDS, main
for command in COMMANDS:
    try:
        status = main([command, "--help"])
    except SystemExit as end:
        status = end.code
    assert not status, command
for package in (lookm, benchmarks, baselines, lookm_scripts):
    assert not str(package.__path__[0]).startswith(sys.argv[1]), package
END
say "the wheel works"
