# SPDX-License-Identifier: Apache-2.0
"""Trees of files: what is in them, and that a removal stays within."""

import os

import pytest

from cepheid_plugins.storage import trees
from cepheid_plugins.storage.errors import StorageError


@pytest.fixture
def parent(tmp_path):
    """A directory, open, with a tree in it and something precious beside it."""
    root = tmp_path / "root"
    (root / "tree" / "deep" / "deeper").mkdir(parents=True)
    (root / "tree" / "disk").write_text("disk")
    (root / "tree" / "deep" / "deeper" / "old").write_text("old")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").write_text("data")
    (root / "tree" / "deep" / "link").symlink_to(tmp_path / "precious")
    descriptor = os.open(root, trees.DIRECTORY)
    yield descriptor
    os.close(descriptor)
    assert (tmp_path / "precious" / "data").read_text() == "data"


def test_a_survey_knows_all_that_is_there_by_what_it_is(parent, tmp_path):
    found = trees.survey(parent, "tree")
    assert sorted(found.paths.values()) == [
        "tree", "tree/deep", "tree/deep/deeper", "tree/deep/deeper/old", "tree/deep/link",
        "tree/disk",
    ]  # fmt: skip
    disk = (tmp_path / "root" / "tree" / "disk").stat()
    assert found.paths[disk.st_dev, disk.st_ino] == "tree/disk"
    assert found.locked == ""


def test_a_removal_leaves_nothing_and_follows_no_link(parent, tmp_path):
    trees.remove(parent, "tree")
    assert os.listdir(tmp_path / "root") == []
    trees.remove(parent, "tree")


def test_files_of_any_kind_are_removed(parent, tmp_path):
    tree = tmp_path / "root" / "tree"
    os.mkfifo(tree / "console.pipe")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "without rights").mkdir(mode=0)
    (tree / "new\nline").touch()
    assert trees.survey(parent, "tree").locked == ""
    trees.remove(parent, "tree")
    assert os.listdir(tmp_path / "root") == []


def test_what_cannot_be_removed_keeps_nothing_else(parent, tmp_path, monkeypatch):
    unlink = os.unlink

    def refuse(name, **arguments):
        if name == "old":
            raise PermissionError(1, "Operation not permitted")
        unlink(name, **arguments)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StorageError, match=r"^tree/deep/deeper/old cannot be removed: Operation"):
        trees.remove(parent, "tree")
    assert os.listdir(tmp_path / "root" / "tree") == ["deep"]
    assert os.listdir(tmp_path / "root" / "tree" / "deep") == ["deeper"]


def test_a_tree_that_is_nested_without_end_is_left_alone(parent, tmp_path):
    deepest = tmp_path / "root" / "tree"
    for _ in range(trees.MOST_LEVELS + 1):
        deepest = deepest / "d"
        deepest.mkdir()
    with pytest.raises(StorageError, match="nested more than 100 levels"):
        trees.survey(parent, "tree")
    with pytest.raises(StorageError, match="nested more than 100 levels"):
        trees.remove(parent, "tree")
    assert deepest.exists()


def test_another_file_system_is_not_entered(parent, tmp_path, monkeypatch):
    inner = (tmp_path / "root" / "tree" / "deep").stat().st_ino
    mount_of = trees.mount_of

    def mounted(descriptor):
        device, mount = mount_of(descriptor)
        return device, mount + (os.fstat(descriptor).st_ino == inner)

    monkeypatch.setattr(trees, "mount_of", mounted)
    with pytest.raises(StorageError, match="tree/deep is a mount point"):
        trees.survey(parent, "tree")
    with pytest.raises(StorageError, match="tree/deep is a mount point"):
        trees.remove(parent, "tree")
    assert (tmp_path / "root" / "tree" / "deep" / "deeper" / "old").exists()


def test_who_waits_may_give_up(parent, tmp_path):
    steps = []

    def check():
        steps.append(None)
        if len(steps) > 2:
            raise StorageError("it takes too long")

    with pytest.raises(StorageError, match="too long"):
        trees.remove(parent, "tree", check)
    assert (tmp_path / "root" / "tree").exists()


def test_what_somebody_else_removes_meanwhile_is_passed_over(parent, tmp_path, monkeypatch):
    listdir = os.listdir
    deeper = tmp_path / "root" / "tree" / "deep" / "deeper"

    def then_remove(directory):
        names = listdir(directory)
        if "deeper" in names and deeper.exists():
            (deeper / "old").unlink()
            deeper.rmdir()
        return names

    monkeypatch.setattr(os, "listdir", then_remove)
    assert "tree/deep/deeper" not in trees.survey(parent, "tree").paths.values()
    trees.remove(parent, "tree")
    assert trees.survey(parent, "tree").paths == {}
