# SPDX-License-Identifier: Apache-2.0
"""Left-overs on real file systems: full, read-only, mounted into, immutable, and in use."""

import contextlib
import os
import subprocess
import sys

import pytest

from cepheid_plugins.storage import open_files, trees
from cepheid_plugins.storage.instances_path import InstancesPath
from cepheid_plugins.tasks.cleanup_incomplete_migrations import CleanupIncompleteMigrations
from cepheid_plugins.tasks.run_pending_deletes import RunPendingDeletes
from tests.functional import private_mounts
from tests.functional.private_mounts import fill, mount, new_file_system, unmount
from tests.functional.processes import PATIENCE_SECONDS, as_user, require, unprivileged_user
from tests.leftover_worlds import add_dead, add_migration, attempts, left, leftover_world
from tests.worlds import uuid_of

pytestmark = pytest.mark.functional

KINDS = ("tmpfs", "ext4")


def real_task(world, factory=RunPendingDeletes):
    """Return a task that looks at the machine's own processes."""
    return world.agent.build(factory)


def on_file_system(path, kind):
    """Return a world whose instances are on a file system of their own."""
    world = leftover_world(path)
    new_file_system(path / "instances", kind, path / "image")
    return world


def refused(run):
    """Return why the one change of a run failed."""
    (change,) = run.changes
    assert change.outcome == "failed"
    return change.error


# A full disk.


def remove_from_a_full_disk(path, kind):
    world = on_file_system(path, kind)
    add_dead(world, 1, ["", "_resize", "_del"])
    fill(world.path / "instances" / uuid_of(1) / "disk")
    with pytest.raises(OSError, match="No space left"):
        (world.path / "instances" / "more").write_bytes(b"x" * 65536)
    (world.path / "instances" / "more").unlink()
    before = os.statvfs(world.path / "instances").f_bavail
    run = world.agent.run(real_task(world))
    assert (run.outcome, left(world)) == ("ok", ["lost+found"] if kind == "ext4" else [])
    assert world.row(1).cleaned == 1
    assert os.statvfs(world.path / "instances").f_bavail > before


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_cleaned_up(tmp_path, kind):
    require("mkfs.ext4")
    private_mounts.run(remove_from_a_full_disk, tmp_path, kind)


def remove_with_a_full_state_path(path):
    state = path / "state"
    state.mkdir()
    new_file_system(state, "tmpfs", path / "image")
    world = leftover_world(state)
    instances = path / "instances"
    (state / "instances").rmdir()
    instances.mkdir()
    (state / "instances").symlink_to(instances)
    add_dead(world, 1)
    task = real_task(world)
    fill(state / "full")
    # No record, no change: the journal is written before anything is done.
    with pytest.raises(Exception, match=r"disk is full|No space left|cannot be written"):
        raise_failure(world.agent.run(task))
    assert left(world) == ["1"]
    (state / "full").unlink()
    assert world.agent.run(task).outcome == "ok"
    assert (left(world), world.row(1).cleaned) == ([], 1)


def raise_failure(run):
    raise RuntimeError(run.error or " ".join(change.error for change in run.changes))


def test_a_full_state_path_removes_nothing(tmp_path):
    private_mounts.run(remove_with_a_full_state_path, tmp_path)


# A file system that turns read-only.


def remove_from_a_read_only_one(path, kind, moment):
    world = on_file_system(path, kind)
    add_dead(world, 1, ["", "_resize"])
    task = real_task(world)
    instances = world.path / "instances"
    set_aside = InstancesPath.set_aside

    def then_read_only(files, uuid):
        moved = set_aside(files, uuid)
        mount("-o", "remount,ro", instances)
        return moved

    if moment == "before":
        mount("-o", "remount,ro", instances)
        error = refused(world.agent.run(task))
        expected = ["1", "1_resize"]
    else:
        InstancesPath.set_aside = then_read_only
        error = refused(world.agent.run(task))
        InstancesPath.set_aside = set_aside
        expected = ["1_del"]
    assert "Read-only file system" in error
    assert left(world)[: len(expected)] == expected
    assert (world.row(1).cleaned, attempts(world, 1)) == (0, "1")
    mount("-o", "remount,rw", instances)
    world.clock.sleep(300)
    assert world.agent.run(task).outcome == "ok"
    assert uuid_of(1) not in "".join(os.listdir(instances))
    assert (world.row(1).cleaned, attempts(world, 1)) == (1, "2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["before", "when the files have been set aside"])
def test_a_file_system_that_turns_read_only_is_tried_again(tmp_path, kind, moment):
    require("mkfs.ext4")
    private_mounts.run(remove_from_a_read_only_one, tmp_path, kind, moment)


# Mounts.


def keep_what_is_mounted(path, where, how):
    world = leftover_world(path)
    add_dead(world, 1, ["", "_resize"])
    precious = path / "precious"
    precious.mkdir()
    (precious / "data").write_text("data")
    target = world.path / "instances" / f"{uuid_of(1)}{where}"
    target.mkdir(exist_ok=True)
    if how == "tmpfs":
        mount("-t", "tmpfs", "none", target)
        (target / "data").write_text("data")
    else:
        mount("--bind", precious, target)  # of the same file system: the device is the same
    run = world.agent.run(real_task(world))
    assert (run.outcome, run.changes) == ("partial", [])
    assert left(world) == ["1", "1_resize"]
    assert (target / "data").read_text() == "data"
    for suffix in ("", "_resize"):
        directory = world.path / "instances" / f"{uuid_of(1)}{suffix}"
        assert (directory / "disk").exists() or directory == target
    assert attempts(world, 1) is None
    unmount(target)
    assert world.agent.run(real_task(world)).outcome == "ok"
    assert left(world) == []
    assert (precious / "data").read_text() == "data"


@pytest.mark.parametrize("how", ["tmpfs", "bind"])
@pytest.mark.parametrize("where", ["", "/mnt", "/snapshots/mnt", "_resize/mnt"])
def test_a_directory_with_a_mount_in_it_is_not_touched(tmp_path, where, how):
    private_mounts.run(keep_what_is_mounted, tmp_path, where, how)


def keep_what_is_mounted_in_between(path):
    world = leftover_world(path)
    add_dead(world, 1)
    (path / "precious").mkdir()
    (path / "precious" / "data").write_text("data")
    look = InstancesPath.survey

    def then_mount(files, name):
        found = look(files, name)
        if name.endswith("_del"):
            mount("--bind", path / "precious", f"{files.path}/{name}/snapshots")
        return found

    InstancesPath.survey = then_mount
    error = refused(world.agent.run(real_task(world)))
    InstancesPath.survey = look
    assert "snapshots is a mount point" in error
    assert (path / "precious" / "data").read_text() == "data"
    assert left(world) == ["1_del"]


def test_what_is_mounted_after_all_was_looked_at_is_not_entered(tmp_path):
    private_mounts.run(keep_what_is_mounted_in_between, tmp_path)


def keep_a_file_that_is_mounted(path):
    world = leftover_world(path)
    add_dead(world, 1)
    (path / "precious").write_text("data")
    mount("--bind", path / "precious", world.path / "instances" / uuid_of(1) / "disk")
    error = refused(world.agent.run(real_task(world)))
    assert "disk cannot be removed: Device or resource busy" in error
    assert (path / "precious").read_text() == "data"


def test_a_file_with_another_mounted_on_it_stays(tmp_path):
    private_mounts.run(keep_a_file_that_is_mounted, tmp_path)


# Files that cannot be removed.


def test_an_immutable_file_is_named_and_keeps_nothing_else(tmp_path):
    require("chattr")
    world = leftover_world(tmp_path)
    add_dead(world, 1, ["", "_del"])
    stuck = world.path / "instances" / f"{uuid_of(1)}_del" / "snapshots" / "old"
    subprocess.run(["chattr", "+i", stuck], check=True)
    try:
        error = refused(world.agent.run(real_task(world)))
        assert error == (
            f"{uuid_of(1)}_del/snapshots/old cannot be removed: Operation not permitted."
        )
        assert sorted(p.name for p in world.path.glob("instances/**/*")) == [
            f"{uuid_of(1)}_del", "old", "snapshots"
        ]  # fmt: skip
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)
    world.clock.sleep(300)
    assert world.agent.run(real_task(world)).outcome == "ok"
    assert (left(world), attempts(world, 1)) == ([], "2")
    world.close()


# Files that somebody uses.

LOCKER = """
import fcntl, sys
stream = open(sys.argv[1], "r+")
fcntl.lockf(stream, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path, how):
    """Let a process of an unprivileged user have a file open, or stand in its directory."""
    if how == "locks":
        command, options = [sys.executable, "-c", LOCKER, path], {"stdin": subprocess.PIPE}
    else:
        command = ["sleep", "1000"]
        options = {**as_user(unprivileged_user()), "stdin": subprocess.DEVNULL}
        if how == "cwd":
            options["cwd"] = path.parent
        else:
            options["stdin"] = os.open(path, {"reads": os.O_RDONLY, "writes": os.O_RDWR}[how])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
    if how in ("reads", "writes"):
        os.close(options["stdin"])
    if how == "locks":
        assert process.stdout.readline() == b"ready\n"
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture
def dead(tmp_path):
    """A host with the files of a deleted instance, and its disk."""
    world = leftover_world(tmp_path)
    add_dead(world, 1)
    yield world, world.path / "instances" / uuid_of(1) / "disk"
    world.close()


@pytest.mark.parametrize("how", ["reads", "writes", "locks", "cwd"])
def test_files_that_a_real_process_uses_stay_until_it_ends(dead, how, caplog):
    world, disk = dead
    with held(disk, how) as pid:
        run = world.agent.run(real_task(world))
        assert (run.outcome, run.changes, left(world)) == ("partial", [], ["1"])
        assert f"(process {pid}) has {uuid_of(1)}" in caplog.text
    assert world.agent.run(real_task(world)).outcome == "ok"
    assert left(world) == []


def test_a_lock_is_seen_by_whoever_looks(dead):
    world, disk = dead
    files = InstancesPath(str(world.path / "instances"))
    assert files.survey(uuid_of(1)).locked == ""
    with held(disk, "locks"):
        assert files.survey(uuid_of(1)).locked == f"{uuid_of(1)}/disk"


def see_through_another_mount(path):
    """A container has the directory under another name."""
    world = leftover_world(path)
    add_dead(world, 1)
    (path / "view").mkdir()
    mount("--bind", world.path / "instances" / uuid_of(1), path / "view")
    with held(path / "view" / "disk", "reads"):
        run = world.agent.run(real_task(world))
        assert (run.outcome, run.changes, left(world)) == ("partial", [], ["1"])


def test_a_process_that_has_the_file_by_another_mount_is_seen(tmp_path):
    private_mounts.run(see_through_another_mount, tmp_path)


def see_a_loop_device(path):
    world = leftover_world(path)
    add_dead(world, 1)
    disk = world.path / "instances" / uuid_of(1) / "disk"
    disk.write_bytes(b"\0" * 2**20)
    found = subprocess.run(
        ["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True
    )
    device = found.stdout.strip()
    try:
        identity = (disk.stat().st_dev, disk.stat().st_ino)
        assert open_files.holders({identity}).found == {identity: device}
        assert world.agent.run(real_task(world)).changes == []
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert world.agent.run(real_task(world)).outcome == "ok"
    assert left(world) == []


def test_an_image_on_a_real_loop_device_stays(tmp_path):
    require("losetup")
    private_mounts.run(see_a_loop_device, tmp_path)


def look_as_somebody_else(path):
    world = leftover_world(path)
    add_dead(world, 1)
    directory = os.open(path / "instances", os.O_RDONLY)
    assert trees.survey(directory, uuid_of(1)).held == ""
    os.seteuid(unprivileged_user().pw_uid)
    try:
        assert "cannot be looked at" in open_files.holders({(0, 0)}).blind
        # Only to whom a file belongs is told who else has it open.
        assert trees.survey(directory, uuid_of(1)).held.startswith(uuid_of(1))
    finally:
        os.seteuid(0)


def test_an_agent_that_is_not_root_is_told_nothing_and_so_removes_nothing(tmp_path):
    private_mounts.run(look_as_somebody_else, tmp_path)


@pytest.mark.parametrize("how", ["reads", "writes"])
def test_the_kernel_tells_of_an_open_file_without_a_look_at_its_process(dead, how):
    world, disk = dead
    files = InstancesPath(str(world.path / "instances"))
    with held(disk, how):
        assert files.survey(uuid_of(1)).held == f"{uuid_of(1)}/disk"
    assert files.survey(uuid_of(1)).held == ""


def test_the_other_task_keeps_what_a_real_process_uses(dead):
    world, disk = dead
    world.update(1, host="host2")
    add_migration(world, 1)
    task = real_task(world, CleanupIncompleteMigrations)
    with held(disk, "reads"):
        assert world.agent.run(task).changes == []
    assert [c.outcome for c in world.agent.run(task).changes] == ["done", "done"]
    assert left(world) == []
