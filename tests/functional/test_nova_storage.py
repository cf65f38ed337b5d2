# SPDX-License-Identifier: Apache-2.0
"""The image cache beside real nova-compute: its locks, its registry, its own pass."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from cepheid_plugins.storage import image_names
from tests.functional.nova_cell import SCRIPTS, environment
from tests.images import DAY, HOUR, IMAGE, ORIGINAL, OTHER, ImageHost

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

GARBAGE = image_names.fingerprint("garbage")


class Nova:
    """nova-compute's code on the storage of a host."""

    def __init__(self, host: ImageHost, path: Path) -> None:
        self._python = environment() / "bin" / "python"
        self._conf = path / "nova.conf"
        self._conf.write_text(
            f"[DEFAULT]\ninstances_path = {host.instances}\nstate_path = {path}\n"
            "[image_cache]\nremove_unused_original_minimum_age_seconds = 3600\n"
            "[libvirt]\n[database]\nconnection = sqlite://\n"
        )

    def run(self, *words: str) -> str:
        """Run a command of tests/functional/nova/storage.py; return what it prints."""
        done = subprocess.run(
            self._command(*words), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    @contextlib.contextmanager
    def holds(self, name: str):
        """Let nova-compute be at work on a file."""
        with subprocess.Popen(
            self._command("hold", name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "held\n"
            yield
            process.communicate()

    def _command(self, *words: str) -> list[str]:
        return [str(self._python), str(SCRIPTS / "storage.py"), str(self._conf), *words]


@pytest.fixture
def host(tmp_path):
    host = ImageHost(tmp_path)
    host.add(1, image_ref=IMAGE)
    host.define(1)
    yield host
    host.close()


@pytest.fixture
def nova(host, tmp_path):
    return Nova(host, tmp_path)


def test_a_file_that_nova_compute_copies_is_left_alone_until_it_is_done(host, nova):
    host.file(GARBAGE)
    with nova.holds(GARBAGE):
        run = host.run()
        assert (run.counters["raced"], host.names()) == (1, [GARBAGE])
    host.run()
    assert (host.names(), host.aside()) == ([], [GARBAGE])


def test_nova_finds_our_hosts_in_the_registry_and_we_find_its(host, nova):
    host.task.surveyor.users.register("host1", host.now)
    nova.run("register", "host2")
    known = host.task.surveyor.users.hosts()
    assert set(known) == {"host1", "host2"}
    host.task.surveyor.users.register("host1", max(known.values()))
    assert sorted(json.loads(nova.run("users"))) == ["host1", "host2"]
    # A host that was silent for long is no user for Nova any more, and still one for us.
    host.task.surveyor.users.register("host1", max(known.values()) - 2 * DAY)
    assert json.loads(nova.run("users")) == ["host2"]
    assert set(host.task.surveyor.users.hosts()) == {"host1", "host2"}


def test_a_registry_that_nova_began_anew_has_lost_no_host_for_us(host, nova):
    nova.run("register", "host2")
    host.run()
    (host.instances / "compute_nodes").write_text("{")
    nova.run("register", "host3")
    assert set(json.loads((host.instances / "compute_nodes").read_text())) == {"host3"}
    assert set(host.task.surveyor.users.hosts()) == {"host1", "host2", "host3"}


def test_novas_own_pass_keeps_what_we_found_used_and_what_we_set_aside(host, nova):
    """Without an instance it knows nothing to be used: all that is old goes."""
    for name in (OTHER, GARBAGE, f"{GARBAGE}_20"):
        host.file(name)
    host.disk("ce000000-0000-0000-0000-000000000007", host.base / OTHER, "disk.local")
    host.run()
    assert (host.names(), host.aside()) == ([OTHER], sorted([GARBAGE, f"{GARBAGE}_20"]))
    # The fake clock and Nova's differ.
    os.utime(host.base / OTHER, (time.time() - HOUR / 2,) * 2)
    host.file(ORIGINAL)
    os.utime(host.base / ORIGINAL, (time.time() - 2 * HOUR,) * 2)
    nova.run("pass")
    assert (host.names(), host.aside()) == ([OTHER], sorted([GARBAGE, f"{GARBAGE}_20"]))
