# SPDX-License-Identifier: Apache-2.0
"""Who has files open, by a /proc of files; a real one is asked in tests/functional."""

import os

import pytest

from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.storage.open_files import holders


def identity(path):
    found = path.stat()
    return found.st_dev, found.st_ino


@pytest.fixture
def disk(tmp_path):
    disk = tmp_path / "disk"
    disk.touch()
    return disk


@pytest.fixture
def ask(tmp_path, disk):
    (tmp_path / "proc").mkdir()
    return lambda: holders({identity(disk)}, str(tmp_path / "proc"), str(tmp_path / "sys")).found


def add_process(tmp_path, pid, *targets, cwd="/"):
    process = tmp_path / "proc" / str(pid)
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("qemu\n")
    (process / "cwd").symlink_to(cwd)
    for number, target in enumerate(targets):
        (process / "fd" / str(number)).symlink_to(target)
    return process


def test_a_process_is_named_that_has_the_file_open(tmp_path, disk, ask):
    add_process(tmp_path, 1, "/dev/null", "socket:[1]", "anon_inode:[eventpoll]")
    assert ask() == {}
    add_process(tmp_path, 2, "pipe:[7]", disk)
    assert ask() == {identity(disk): "qemu (process 2)"}


def test_another_name_of_the_file_is_the_same_file(tmp_path, disk, ask):
    os.link(disk, tmp_path / "elsewhere")
    add_process(tmp_path, 1, tmp_path / "elsewhere")
    disk.rename(tmp_path / "renamed")
    (tmp_path / "renamed").rename(disk)
    assert list(ask()) == [identity(disk)]


def test_what_is_no_process_is_passed_over(tmp_path, disk, ask):
    (tmp_path / "proc" / "sys" / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "sys" / "fd" / "0").symlink_to(disk)
    (tmp_path / "proc" / "meminfo").touch()
    assert ask() == {}


def test_a_process_that_ends_meanwhile_is_passed_over(tmp_path, disk, ask):
    (tmp_path / "proc" / "1").mkdir()
    add_process(tmp_path, 2, tmp_path / "closed and unlinked", disk)
    assert list(ask()) == [identity(disk)]


def test_a_process_that_cannot_be_looked_at_may_have_anything_open(
    tmp_path, disk, ask, monkeypatch
):
    add_process(tmp_path, 1)
    readlink = os.readlink

    def refuse(path, **arguments):
        if str(path).endswith("/1/cwd"):
            raise PermissionError(13, "Permission denied", path)
        return readlink(path, **arguments)

    monkeypatch.setattr(os, "readlink", refuse)
    found = holders({identity(disk)}, str(tmp_path / "proc"), str(tmp_path / "sys"))
    assert found.blind == "what process 1 has open cannot be looked at (Permission denied)"


@pytest.mark.parametrize(("namespace", "is_blind"), [("4026531836", False), ("4026532201", True)])
def test_in_a_pid_namespace_of_its_own_not_all_processes_are_seen(
    tmp_path, disk, ask, namespace, is_blind
):
    (tmp_path / "proc" / "self" / "ns").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "ns" / "pid").symlink_to(f"pid:[{namespace}]")
    found = holders({identity(disk)}, str(tmp_path / "proc"), str(tmp_path / "sys"))
    assert bool(found.blind) == is_blind


def test_without_a_proc_nothing_is_known(tmp_path, disk):
    with pytest.raises(StorageError, match="Is it mounted"):
        holders({identity(disk)}, str(tmp_path / "nowhere"))


def test_a_file_that_not_even_root_may_look_at_is_none_of_those_that_were_looked_at(
    tmp_path, disk, ask, monkeypatch
):
    """Such as one on a user's own FUSE mount."""
    add_process(tmp_path, 1, disk)
    stat = os.stat

    def refuse(path, **arguments):
        if str(path).endswith("/fd/0"):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **arguments)

    monkeypatch.setattr(os, "stat", refuse)
    assert ask() == {}
