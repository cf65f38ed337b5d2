# SPDX-License-Identifier: Apache-2.0
"""Run benchmarks, each in a process of its own, and write what they find.

python -m benchmarks [--quick] [--into DIRECTORY] [NAME ...]
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

#: In the order in which they run. Each module's ``report(quick)`` returns its Report.
BENCHMARKS = ("passes", "image_cache", "nova_peers", "timers", "at_rest", "hung_call", "fleet")

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(available()))
    parser.add_argument(
        "--quick", action="store_true", help="small numbers and few rounds: does it run at all?"
    )
    parser.add_argument("--into", type=Path, default=HERE / "results", metavar="DIRECTORY")
    options = parser.parse_args()
    names = options.names or available()
    unknown = sorted(set(names) - set(available()))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {available()}")
    if len(names) == 1:
        return _run(names[0], options.quick, options.into)
    flags = ["--into", str(options.into)] + ["--quick"] * options.quick
    # One that fails keeps none from running.
    command = [sys.executable, "-m", "benchmarks", *flags]
    failed = [name for name in names if subprocess.run([*command, name]).returncode]
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def available() -> list[str]:
    """Return the benchmarks that are here."""
    return [name for name in BENCHMARKS if (HERE / f"{name}.py").exists()]


def _run(name: str, quick: bool, directory: Path) -> int:
    begins = time.monotonic()
    module = importlib.import_module(f"benchmarks.{name}")
    print(f"=== {name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
    report = module.report(quick)
    report.write(name, directory)
    print(f"\n{report.text()}\n\n{time.monotonic() - begins:.0f} s\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
