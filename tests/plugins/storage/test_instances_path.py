# SPDX-License-Identifier: Apache-2.0
"""Files of instances: nothing outside of the instances path is ever removed."""

import os
import stat
import uuid

import pytest

from cepheid_plugins.storage.instances_path import InstancesPath, StorageError

UUID = "ce000000-0000-0000-0000-000000000001"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "instances"
    path.mkdir()
    return path


@pytest.fixture
def files(path):
    return InstancesPath(str(path))


def fill(directory, *names):
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).write_text(name)


def test_removes_all_directories_of_an_instance_and_no_other(files, path):
    other = str(uuid.uuid4())
    for name in (UUID, f"{UUID}_resize", f"{UUID}_del", f"{UUID}_part", other, "_base"):
        fill(path / name / "deep", "disk")
    assert files.remove_instance(UUID)
    assert sorted(os.listdir(path)) == sorted([other, "_base"])
    assert not files.remove_instance(UUID)


def test_d4_a_stale_del_directory_is_in_nobodys_way(files, path):
    fill(path / f"{UUID}_del", "disk")
    fill(path / UUID, "disk")
    files.remove_instance(UUID)
    assert os.listdir(path) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "_base", "../etc", f"{UUID}/x", f"{UUID}_other", UUID.upper(), f"{UUID}\n"],
)
def test_names_that_are_not_an_instances_are_refused(files, name):
    for method in (files.remove, files.exists, files.files, files.make):
        with pytest.raises(StorageError, match="nothing was touched"):
            method(name)


@pytest.mark.parametrize("file", ["", ".", "..", "../disk", "a/b", ".hidden", "disk\n"])
def test_names_that_are_no_files_of_an_instance_are_refused(files, path, file):
    fill(path / UUID, "disk")
    for method in (files.read, files.unlink, files.file_path):
        with pytest.raises(StorageError, match="nothing was touched"):
            method(UUID, file)


def test_a_symbolic_link_in_place_of_a_directory_is_left_alone(files, path, tmp_path):
    fill(tmp_path / "precious", "data")
    (path / UUID).symlink_to(tmp_path / "precious")
    for act in (files.remove_instance, files.remove, files.files):
        with pytest.raises(StorageError, match="symbolic link"):
            act(UUID)
    assert (tmp_path / "precious" / "data").exists()
    assert (path / UUID).is_symlink()


def test_a_symbolic_link_in_a_directory_is_removed_and_not_followed(files, path, tmp_path):
    fill(tmp_path / "precious", "data")
    fill(path / UUID, "disk")
    (path / UUID / "link").symlink_to(tmp_path / "precious")
    (path / UUID / "disk.config").symlink_to(tmp_path / "precious" / "data")
    files.remove(UUID)
    assert (tmp_path / "precious" / "data").exists()
    assert not (path / UUID).exists()


def test_a_file_that_is_a_symbolic_link_is_not_read(files, path, tmp_path):
    (tmp_path / "secret").write_text("secret")
    fill(path / UUID)
    (path / UUID / "unrescue.xml").symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError):
        files.read(UUID, "unrescue.xml")


def test_the_instances_path_itself_may_be_a_symbolic_link(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    fill(path / UUID, "disk")
    InstancesPath(str(tmp_path / "link")).remove_instance(UUID)
    assert os.listdir(path) == []


def test_a_missing_instances_path_is_an_error_and_not_an_empty_directory(tmp_path):
    files = InstancesPath(str(tmp_path / "nowhere"))
    for act in (files.remove_instance, files.files, files.exists):
        with pytest.raises(StorageError, match="instances_path"):
            act(UUID)


def test_a_file_is_written_whole_for_its_owner_only(files, path):
    files.make(UUID)
    files.write(UUID, "unrescue.xml", b"<domain/>")
    assert files.read(UUID, "unrescue.xml") == b"<domain/>"
    assert files.files(UUID) == ["unrescue.xml"]
    assert (path / UUID / "unrescue.xml").stat().st_mode & 0o777 == 0o600
    assert files.read(UUID, "other") is None


def test_a_copy_is_complete_or_not_there(files, path):
    fill(path / UUID, "disk", "disk.config")
    fill(path / f"{UUID}_part", "left")
    files.copy(UUID, f"{UUID}_resize")
    assert files.files(f"{UUID}_resize") == ["disk", "disk.config"]
    assert sorted(files.names()) == [UUID, f"{UUID}_resize"]
    with pytest.raises(StorageError):
        files.copy(UUID, f"{UUID}_resize")


NAMES = ("", "_resize", "_del", "_part")


def test_everything_of_an_instance_is_set_aside_under_one_name_and_can_be_put_back(files, path):
    for suffix in NAMES:
        fill(path / f"{UUID}{suffix}", f"disk{suffix}")
    moved = files.set_aside(UUID)
    assert sorted(files.names()) == [f"{UUID}_del"]
    assert files.names_of(UUID) == [f"{UUID}_del"]
    assert files.files(f"{UUID}_del") == sorted(
        [UUID, f"{UUID}_part", f"{UUID}_resize", "disk_del"]
    )
    files.put_back(UUID, moved)
    for suffix in NAMES:
        assert files.files(f"{UUID}{suffix}") == [f"disk{suffix}"]
    assert files.set_aside(UUID) == moved


@pytest.mark.parametrize("suffixes", [["", "_resize"], ["_resize"], ["", "_del"]])
def test_what_was_set_aside_first_is_put_back_last(files, path, suffixes):
    for suffix in suffixes:
        fill(path / f"{UUID}{suffix}", "disk")
    before = sorted(files.names())
    files.put_back(UUID, files.set_aside(UUID))
    assert sorted(files.names()) == before


def test_a_name_that_is_taken_anew_keeps_what_was_set_aside(files, path):
    fill(path / UUID, "disk")
    moved = files.set_aside(UUID)
    fill(path / UUID, "new")
    with pytest.raises(StorageError, match="there anew"):
        files.put_back(UUID, moved)
    assert (files.files(UUID), files.files(f"{UUID}_del")) == (["new"], ["disk"])


def test_what_an_interrupted_try_has_set_aside_is_not_in_the_way(files, path):
    fill(path / UUID, "new")
    fill(path / f"{UUID}_del" / UUID, "old")
    files.set_aside(UUID)
    assert os.listdir(path / f"{UUID}_del" / UUID) == ["new"]
    assert files.remove_instance(UUID)
    assert sorted(files.names()) == []


def test_one_that_somebody_else_sets_aside_meanwhile_is_fine(files, path, monkeypatch):
    fill(path / UUID, "disk")
    rename = os.rename

    def too_late(old, new, **where):
        rename(path / UUID, path / "elsewhere")
        return rename(old, new, **where)

    monkeypatch.setattr(os, "rename", too_late)
    assert files.set_aside(UUID) == []


def test_qemu_enters_what_is_made_whatever_the_umask(files, path):
    previous = os.umask(0o077)
    try:
        files.make(UUID)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((path / UUID).stat().st_mode) == 0o755
