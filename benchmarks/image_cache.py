# SPDX-License-Identifier: Apache-2.0
"""What a pass over the image cache costs: 10,000 files, 1,000 disks that stand on them."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.measure import counting
from benchmarks.report import Report, Table
from cepheid_plugins.storage import image_names
from tests.images import DAY, ImageHost
from tests.worlds import uuid_of

#: What is counted, by the name of Python's audit event.
EVENTS = {
    "subprocess.Popen": "processes",
    "open": "opened files",
    "os.listdir": "listed directories",
    "os.utime": "touched files",
    "os.rename": "renamed files",
}


class Counts:
    """Counts what Python asks of the system."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: object) -> None:
        if event in EVENTS:
            self.counted[EVENTS[event]] += 1


def report(quick: bool) -> Report:
    """Measure four passes, one after another on the same host."""
    files, disks = (100, 10) if quick else (10_000, 1_000)
    table = Table(
        f"{files:,} files in the cache, {disks:,} instances with a disk each",
        ("Pass", "Outcome", "Seconds", "SQL statements", "libvirt calls", *EVENTS.values()),
    )
    with tempfile.TemporaryDirectory(prefix="cepheid-bench-") as directory:
        host = ImageHost(Path(directory))
        fill(host, files, disks)
        counts = Counts()
        table.rows.append(measure(host, counts, "the first"))
        table.rows.append(measure(host, counts, "a steady one"))
        for path in host.instances.glob("*/disk"):
            host.make_old(path, -1)
        table.rows.append(measure(host, counts, "a steady one, all guests have written"))
        host.world.clock.sleep(2 * DAY)
        table.rows.append(measure(host, counts, "one that sets 20 files aside"))
        host.close()
    return Report([], [table], [dict(zip(table.headings, row, strict=True)) for row in table.rows])


def fill(host: ImageHost, files: int, disks: int) -> None:
    """Make a host whose disks stand on the first files; the others are too young to go."""
    names = [image_names.fingerprint(f"image-{number}") for number in range(files)]
    for name in names:
        host.file(name, age=60)
    host.add_many(range(disks), image_ref="image-0")
    disk = host.disk(uuid_of(0), host.base / names[0])
    content, length = disk.read_bytes(), len(names[0])
    at = content.index(names[0].encode())
    for number in range(1, disks):
        (host.instances / uuid_of(number)).mkdir()
        name = names[number % files].encode()
        (host.instances / uuid_of(number) / "disk").write_bytes(
            content[:at] + name + content[at + length :]
        )


def measure(host: ImageHost, counts: Counts, what: str) -> list[Any]:
    """Run a pass; return what it cost, as a row of the table."""
    counts.counted.clear()
    with counting(
        statements=host.world.database.statements, calls=host.world.hypervisor.calls
    ) as counted:
        begins = time.perf_counter()
        run = host.run()
        seconds = time.perf_counter() - begins
    assert run.outcome in ("ok", "limited"), run.error
    events = [counts.counted[name] for name in EVENTS.values()]
    return [what, run.outcome, seconds, *counted.totals.values(), *events]
