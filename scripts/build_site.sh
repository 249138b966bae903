#!/usr/bin/env bash
# build_site.sh FOLDER [KEY=VALUE …]: the docs, leaderboard.html and the runs that it leads to, ready for a web server.
# Further arguments go to `lookm leaderboard`, such as model=llava7b or limit=2; without them: all strategies, tiny model.
set -euo pipefail
folder=$(realpath -m "$1")
shift
. "$(dirname "$0")/environment.sh"

"$PYTHON" -m sphinx -W --keep-going -q docs "$folder"
touch "$folder/.nojekyll" # or GitHub leaves out folders that begin with an underscore
"$PYTHON" -m scripts.leaderboard --page "$folder/leaderboard.html" results_dir="$folder/runs" "$@"
