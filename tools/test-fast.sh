#!/usr/bin/env bash
# The fast tests in one concurrency mode: threading or eventlet. Those of the tasks run beside the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-eventlet}
unset PYTHONDONTWRITEBYTECODE
# They make a thousand small databases; in memory that takes half the time. A container has little.
free=$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ] && [ "${free:-0}" -gt 2000000 ]; then
    TMPDIR=$(mktemp -d /dev/shm/cepheid-tests.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
fi
run() {
    CEPHEID_TEST_CONCURRENCY=$mode \
        .venv/bin/python -m pytest -q -m "not functional and not process" "$@"
}
output=$(mktemp)
run tests/plugins/tasks >"$output" 2>&1 &
tasks=$!
status=0
run --ignore=tests/plugins/tasks tests || status=$?
wait "$tasks" || status=$?
cat "$output"
rm -f "$output"
exit "$status"
