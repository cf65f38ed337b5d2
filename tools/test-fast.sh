#!/usr/bin/env bash
# The fast tests in one concurrency mode: threading or eventlet.
set -euo pipefail
cd "$(dirname "$0")/.."
# They make a thousand small databases; in memory that takes half the time.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then
    TMPDIR=$(mktemp -d /dev/shm/cepheid-tests.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
fi
CEPHEID_TEST_CONCURRENCY=${1:-eventlet} \
    .venv/bin/python -m pytest -q -m "not functional and not process"
