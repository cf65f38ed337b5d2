# SPDX-License-Identifier: Apache-2.0
"""Locks beside nova-compute's: the same files, by the same call."""

import contextlib
import os
import subprocess
import sys

import pytest

from cepheid_plugins.storage import nova_locks
from cepheid_plugins.storage.instances_path import StorageError
from cepheid_plugins.storage.nova_locks import Held

NAME = "0d5e6b61602d758984b3bf038267614d6016eb2a"

#: Takes Nova's lock as Nova does, says whether it could, and keeps it until it is told to end.
OSLO = """
import sys
from oslo_concurrency import lockutils
lock = lockutils.external_lock({name!r}, lock_file_prefix="nova-", lock_path={path!r})
print(lock.acquire(blocking=False), lock.path.decode(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def oslo_lock(path, name=NAME):
    """Let a process take the lock by oslo.concurrency; give whether it could, and the file."""
    code = OSLO.format(name=name, path=str(path / "locks"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().split()
        process.communicate()


def test_a_lock_that_oslo_concurrency_holds_is_held(tmp_path, root):
    with oslo_lock(tmp_path) as (taken, file):
        assert (taken, file) == ("True", f"{tmp_path}/locks/nova-{NAME}")
        with pytest.raises(Held, match="nova-compute is at work"), nova_locks.held(root, NAME):
            pass
    with nova_locks.held(root, NAME):
        pass


def test_a_lock_of_ours_keeps_oslo_concurrency_out_and_no_other_does(tmp_path, root):
    with nova_locks.held(root, NAME):
        with oslo_lock(tmp_path) as (taken, _):
            assert taken == "False"
        with oslo_lock(tmp_path, "another") as (taken, _):
            assert taken == "True"
    with oslo_lock(tmp_path) as (taken, _):
        assert taken == "True"


def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path, root, monkeypatch):
    """Its holder removes it; who opened it before would have a lock that nobody else sees."""
    (tmp_path / "locks").mkdir()
    lockf = nova_locks.fcntl.lockf

    def remove_then_lock(*arguments):
        (tmp_path / "locks" / f"nova-{NAME}").unlink()
        lockf(*arguments)

    monkeypatch.setattr(nova_locks.fcntl, "lockf", remove_then_lock)
    with pytest.raises(Held, match="was removed while it was taken"), nova_locks.held(root, NAME):
        pass


@pytest.mark.parametrize("what", ["link", "pipe", "directory"])
def test_what_is_no_file_is_no_lock(tmp_path, root, what):
    (tmp_path / "locks").mkdir()
    file = tmp_path / "locks" / f"nova-{NAME}"
    if what == "link":
        file.symlink_to(tmp_path / "precious")
    elif what == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises((StorageError, OSError)), nova_locks.held(root, NAME):
        pass
    assert not (tmp_path / "precious").exists()
