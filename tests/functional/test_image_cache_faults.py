# SPDX-License-Identifier: Apache-2.0
"""A pass over the image cache that is killed, has no room left, or may not write any more."""

import contextlib
import datetime
import itertools
import os
import shutil
import subprocess
import sys

import pytest

from cepheid_plugins.storage import image_names
from cepheid_plugins.storage.image_cache import ASIDE
from tests.fake_agent import FakeClock
from tests.functional import killed_pass
from tests.functional.processes import require
from tests.images import DAY, IMAGE, ORIGINAL, OTHER, OTHER_IMAGE, ImageHost

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

GARBAGE = image_names.fingerprint("garbage")
#: The user whom instances_path belongs to, where there may be several.
NOVA = 64055 if os.geteuid() == 0 else os.geteuid()
EXPIRED = image_names.fingerprint("expired")


def make(path):
    """Make a host with a file to be touched, to come back, to go aside, and to be deleted.

    Return the time of its next pass.
    """
    host = ImageHost(path)
    host.add(1, image_ref=IMAGE)
    host.define(1)
    host.file(EXPIRED, content=EXPIRED)
    host.run()
    host.world.clock.sleep(DAY)
    host.file(OTHER, content=OTHER)
    host.world.agent.set(host.task.name, removed_retention_seconds=10 * DAY)
    host.run()
    host.file(ORIGINAL, content=ORIGINAL)
    host.file(GARBAGE, content=GARBAGE)
    host.add(2, image_ref=OTHER_IMAGE)
    assert (host.names(), host.aside()) == (sorted([ORIGINAL, GARBAGE]), sorted([EXPIRED, OTHER]))
    # As on a host where nova-compute has not made a disk yet, and runs as a user of its own.
    shutil.rmtree(host.instances / "locks")
    for file in (host.instances, *host.instances.rglob("*")):
        os.chown(file, NOVA, NOVA)
    host.close()
    return host.world.clock.utcnow()


def is_novas(path):
    """Tell whether all that nova-compute may meet is its own."""
    owners = {
        file.stat().st_uid
        for file in (path / "instances").rglob("*")
        if not file.name.startswith(".") and file.suffix != ".part"
    }
    return owners == {NOVA}


def kept(path, name):
    """Tell whether a file is there, in its place or aside, as it was."""
    base = path / "instances" / "_base"
    found = [base / name, *(base / ASIDE).glob(f"{name}@*")]
    return any(file.exists() and file.read_text() == name for file in found)


def state(path, now):
    """Return what is to come out of a pass; an empty lock file may be left over besides."""
    base = path / "instances" / "_base"
    aside = base / ASIDE
    return (
        sorted(file.name for file in base.iterdir() if file.name != ASIDE),
        sorted(file.name.partition("@")[0] for file in aside.iterdir()),
        {name: (base / name).stat().st_nlink for name in (ORIGINAL, OTHER)},
        now - (base / ORIGINAL).stat().st_mtime,
    )


def test_a_pass_that_is_killed_before_any_of_its_steps_is_made_good_by_the_next(tmp_path):
    before = tmp_path / "before"
    before.mkdir()
    utc = make(before)
    now = utc.replace(tzinfo=datetime.UTC).timestamp()
    wanted = None
    for last in itertools.count(-1):
        path = tmp_path / "host"
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["cp", "--archive", before, path], check=True)
        config = (path / "cepheid.conf").read_text().replace(str(before), str(path))
        (path / "cepheid.conf").write_text(config)
        if last < 0:
            assert not killed_pass.run(path, utc)
            wanted = state(path, now)
            assert wanted[:2] == (sorted([ORIGINAL, OTHER]), [GARBAGE])
            continue
        killed = killed_pass.run(path, utc, last)
        for name in (ORIGINAL, OTHER, GARBAGE):
            assert kept(path, name), (name, last)
        assert is_novas(path), last
        assert not killed_pass.run(path, utc)
        assert state(path, now) == wanted, last
        if not killed:
            break
    assert last > 20


#: A host on a file system of its own, in a mount namespace of its own.
MOUNTED = """
import sys
from pathlib import Path
from tests.functional.test_image_cache_faults import {function}
{function}(Path(sys.argv[1]))
"""


def in_namespace(function, path):
    """Call a function of this module in a process that can mount."""
    require("unshare", "mount")
    if os.geteuid() != 0:
        pytest.fail("file systems are root's to mount; run this as root")
    (path / "instances").mkdir()
    code = MOUNTED.format(function=function.__name__)
    script = 'mount -t tmpfs -o size=1M tmpfs "$1/instances" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", path, sys.executable, code],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def mounted_host(path):
    utc = make(path)
    host = ImageHost(path, clock=FakeClock(utc))
    host.define(1)
    return host


def fill(directory):
    """Leave no byte free; return the file that takes the room."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (65536, 1024, 1):
            with contextlib.suppress(OSError):
                while True:
                    stream.write(b"x" * size)
    return filler


def full(path):
    host = mounted_host(path)
    host.world.clock.sleep(60)
    registry = (host.instances / "compute_nodes").read_bytes()
    filler = fill(host.instances)
    run = host.run()
    for name in (ORIGINAL, OTHER, GARBAGE):
        assert kept(path, name), name
    # The registry is as it was; the rest needs no room, and gives some back.
    assert (host.instances / "compute_nodes").read_bytes() == registry
    assert not (host.instances / "cepheid_compute_nodes.part").exists()
    assert run.outcome == "ok", run.error
    assert (host.names(), host.aside()) == (sorted([ORIGINAL, OTHER]), [GARBAGE])
    filler.unlink()
    assert host.run().outcome == "ok"
    assert (host.instances / "compute_nodes").read_bytes() != registry


def read_only(path):
    host = mounted_host(path)
    subprocess.run(["mount", "-o", "remount,ro", host.instances], check=True)
    run = host.run()
    assert run.outcome == "failed"
    assert "Read-only file system" in run.error
    for name in (ORIGINAL, OTHER, GARBAGE, EXPIRED):
        assert kept(path, name), name
    subprocess.run(["mount", "-o", "remount,rw", host.instances], check=True)
    assert host.run().outcome == "ok"
    assert (host.names(), host.aside()) == (sorted([ORIGINAL, OTHER]), [GARBAGE])


def read_only_in_between(path):
    """It becomes so when everything was looked at and the first file is to come back."""
    host = mounted_host(path)
    surveyor = host.task.surveyor
    touch = surveyor.cache.touch

    def touch_then_remount(*arguments):
        touched = touch(*arguments)
        subprocess.run(["mount", "-o", "remount,ro", host.instances], check=True)
        return touched

    surveyor.cache.touch = touch_then_remount
    run = host.run()
    assert run.outcome == "partial", run.error
    assert {change.outcome for change in run.changes} == {"failed"}
    assert all("Read-only file system" in change.error for change in run.changes)
    for name in (ORIGINAL, OTHER, GARBAGE, EXPIRED):
        assert kept(path, name), name
    surveyor.cache.touch = touch
    subprocess.run(["mount", "-o", "remount,rw", host.instances], check=True)
    assert host.run().outcome == "ok"
    assert (host.names(), host.aside()) == (sorted([ORIGINAL, OTHER]), [GARBAGE])


def test_a_full_disk_loses_nothing_and_gets_room(tmp_path):
    in_namespace(full, tmp_path)


@pytest.mark.parametrize("function", [read_only, read_only_in_between])
def test_a_file_system_that_turns_read_only_loses_nothing(tmp_path, function):
    in_namespace(function, tmp_path)
