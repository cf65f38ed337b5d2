# SPDX-License-Identifier: Apache-2.0
"""What a pass over the image cache costs: 10,000 files, 1,000 disks that stand on them.

python -m benchmarks.image_cache [FILES [DISKS]]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

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


def main() -> None:
    files, disks = (int(word) for word in (*sys.argv[1:], "10000", "1000")[:2])
    with tempfile.TemporaryDirectory(prefix="cepheid-bench-") as directory:
        host = ImageHost(Path(directory))
        fill(host, files, disks)
        print(f"{files} files in the cache, {disks} instances with a disk each")
        counts = Counts()
        first = measure(host, counts, "first pass")
        measure(host, counts, "steady pass", first)
        for path in host.instances.glob("*/disk"):
            host.make_old(path, -1)
        measure(host, counts, "steady pass, all guests have written", first)
        host.world.clock.sleep(2 * DAY)
        measure(host, counts, "pass that sets 20 files aside", first)
        host.close()


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


def measure(host: ImageHost, counts: Counts, what: str, first: float = 0) -> float:
    """Run a pass and print what it cost; return the seconds that it took."""
    counts.counted.clear()
    host.world.database.statements.clear()
    host.world.hypervisor.calls.clear()
    begins = time.perf_counter()
    run = host.run()
    seconds = time.perf_counter() - begins
    assert run.outcome in ("ok", "limited"), run.error
    print(f"\n{what}: {run.outcome}")
    print(f"  {host.world.statements():8} statements")
    print(f"  {host.world.hypervisor.calls.total():8} libvirt calls")
    for name in EVENTS.values():
        print(f"  {counts.counted[name]:8} {name}")
    if first:
        print(f"  {seconds / first:8.2f} of the first pass's time")
    return seconds


if __name__ == "__main__":
    main()
