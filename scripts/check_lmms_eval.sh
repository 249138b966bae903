#!/usr/bin/env bash
# Installs lmms-eval and the wheel into an environment of their own (.venv/lmms-eval, made once), runs the tiny model
# through it, and compares with run.py: every score to the last digit. Some minutes the first time, one afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-$PWD/.venv/bin/python}
ENVIRONMENT=${ENVIRONMENT:-$PWD/.venv/lmms-eval}
REPOSITORY=$PWD
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME=$WORK/hub PIP_DISABLE_PIP_VERSION_CHECK=1
export TOKENIZERS_PARALLELISM=false
unset PYTHONPATH

say() { echo "· $*"; }
fail() { echo "error: $*" >&2; exit 1; }

grep -E '^(torch|transformers)==' constraints.txt | cut -d' ' -f1 >"$WORK/pins.txt"
if [ ! -x "$ENVIRONMENT/bin/lmms-eval" ]; then
    say "installing lmms-eval into $ENVIRONMENT (once)"
    "$PYTHON" -m venv "$ENVIRONMENT"
    "$ENVIRONMENT/bin/python" -m pip install --quiet --constraint "$WORK/pins.txt" torch "lmms-eval==0.7.3" "rouge-score>=0.1.2"
    # Beside a torch without CUDA, a torchvision with it cannot be imported, and is not needed.
    "$ENVIRONMENT/bin/python" -c "import torchvision" 2>/dev/null || "$ENVIRONMENT/bin/python" -m pip uninstall --quiet --yes torchvision
fi
wheel=$(bash scripts/build_wheel.sh "$PYTHON" "$WORK")
"$ENVIRONMENT/bin/python" -m pip install --quiet --no-deps --force-reinstall "$wheel"

cd "$WORK"
PATH="$ENVIRONMENT/bin:$PATH"
lookm lmms-tasks mini --root data/mini --output tasks >/dev/null
evaluate() {  # evaluate FOLDER MODEL_ARGS ARGUMENTS…
    local folder=$1 arguments=$2
    shift 2
    lmms-eval --model lookm --model_args "$arguments" --device cpu --log_samples --output_path "$folder" "$@" >log.txt 2>&1 || true
    [ -n "$(find "$folder" -name '*_results.json' 2>/dev/null)" ] || { tail -30 log.txt; fail "lmms-eval $arguments $*"; }  # its exit status is 0
}

say "MileBench-mini, six samples of each dataset, under two strategies"
for strategy in tp_pmerge snapkv; do
    evaluate "mini-$strategy" model=tiny,strategy=$strategy --include_path tasks --tasks milebench_mini --limit 6 --batch_size 8
    "$PYTHON" "$REPOSITORY/run.py" strategy=$strategy limit=6 device=cpu >run.txt 2>&1 || { cat run.txt; fail "run.py"; }
done
say "interleaved images, frames of a video, two rounds; likelihoods of choices"
evaluate trial model=tiny,strategy=tp_pmerge --include_path "$REPOSITORY/tests/lmms_eval/trial" --tasks trial_interleaved,trial_film,trial_rounds
evaluate choices model=tiny,strategy=tp_pmerge --force_simple --include_path "$REPOSITORY/tests/lmms_eval/trial" --tasks trial_choices,trial_interleaved
say "wrong input is named"
lmms-eval --model lookm --model_args model=tiny,strategy=tp_pmerg --include_path tasks --tasks milebench_mini_S >wrong.txt 2>&1 || true
grep -q "did you mean 'tp_pmerge'" wrong.txt || { tail -20 wrong.txt; fail "the wrong strategy is not named"; }

python "$REPOSITORY/tests/lmms_eval/compare.py" "$WORK"
