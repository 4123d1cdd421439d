#!/usr/bin/env bash
# Everything that must hold before a change goes in: lint, import contracts, types, tests.
#
#   bash scripts/test.sh          lint, format, import contracts, types and the default suite
#   bash scripts/test.sh --slow   the same with the slow tests
#   bash scripts/test.sh --min    the default suite on the oldest supported versions (constraints-min.txt)
#
# Makes its own virtual environment and installs into it only when setup.cfg or the constraints have changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minimum=false
selection=()
for argument in "$@"; do
    case "$argument" in
        --min) minimum=true ;;
        --slow) selection=(-m "") ;;
        *)
            echo "unknown argument '$argument': allowed are --min and --slow" >&2
            exit 2
            ;;
    esac
done

venv=.venv
constraints=constraints.txt
if $minimum; then
    venv=.venv-min
    constraints=constraints-min.txt
fi

source scripts/environment.sh
environment "$venv" "$constraints" '.[test]'

# Tiny models run slower on several threads than on one.
export OMP_NUM_THREADS=1

if ! $minimum; then
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    "$venv/bin/lint-imports" --no-cache
    "$venv/bin/mypy"
fi
# Last, so that the last line of the output is pytest's verdict.
"$venv/bin/python" -m pytest -q -n 2 ${selection[@]+"${selection[@]}"}
