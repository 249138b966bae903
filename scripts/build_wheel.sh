#!/usr/bin/env bash
# build_wheel.sh PYTHON FOLDER: builds the wheel into the folder, from a copy of the tracked files, and says its path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git ls-files -co --exclude-standard -z | while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null -T - -c | tar -x -C "$source"
"$1" -m pip wheel --quiet --no-deps --wheel-dir "$2" "$source"
echo "$2"/*.whl
