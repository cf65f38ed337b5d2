#!/usr/bin/env bash
# All tests, the fast ones first: both concurrency modes, the checks, then real servers.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest=(.venv/bin/python -m pytest -q)
# Hundreds of processes are started; without this each compiles the whole program again.
unset PYTHONDONTWRITEBYTECODE

for mode in threading eventlet; do
    printf '\n=== Fast tests, concurrency = %s\n' "$mode"
    tools/test-fast.sh "$mode"
done
printf '\n=== Checks\n'
tools/check.sh
printf '\n=== The program in processes of its own, and real servers: libvirtd with QEMU guests\n'
# A file at a time to each of three: they wait more than they work.
"${pytest[@]}" -m "functional or process" -n 3 --dist loadfile
