#!/usr/bin/env bash
# Linters, types, layers, the committed sample, the documentation.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n--- %s\n' "$1"; }

step "ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
step "mypy"
.venv/bin/mypy
step "import-linter"
layers=$(PYTHONPATH=core:plugins .venv/bin/lint-imports --no-cache) ||
    { printf '%s\n' "$layers"; exit 1; }
printf '%s\n' "$layers" | grep -E ' (KEPT|BROKEN)|^Contracts: '
step "the committed sample configuration equals the generated one"
generated=$(mktemp)
trap 'rm -f "$generated"' EXIT
.venv/bin/oslo-config-generator --config-file etc/cepheid/cepheid-config-generator.conf \
    --output-file "$generated"
diff -u etc/cepheid/cepheid.conf.sample "$generated" ||
    { echo "Run 'make sample' and commit the result." >&2; exit 1; }
step "sphinx"
.venv/bin/python -m sphinx -W -q -b html doc/source doc/build/html
echo "All checks passed."
