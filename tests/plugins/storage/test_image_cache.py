# SPDX-License-Identifier: Apache-2.0
"""Renaming aside, bringing back and deleting: what is swapped meanwhile, where it ends half-way."""

import os

import pytest

from cepheid.run import Raced
from cepheid_plugins.storage.image_cache import ASIDE, ImageCache
from cepheid_plugins.storage.instances_path import StorageError

NAME = "0d5e6b61602d758984b3bf038267614d6016eb2a"
NOW = 1_700_000_000.0
OLD = NOW - 90_000


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "_base").mkdir()
    return ImageCache(str(tmp_path))


@pytest.fixture
def file(tmp_path, cache):
    path = tmp_path / "_base" / NAME
    path.write_text("image")
    os.utime(path, (OLD, OLD))
    (found,) = cache.scan()
    return found


@pytest.fixture
def aside(cache, file):
    cache.set_aside(file, OLD, NOW)
    (found,) = cache.scan()
    return found


def test_its_name_aside_tells_name_and_time(cache, file, aside, tmp_path):
    assert (tmp_path / "_base" / ASIDE / f"{NAME}@{int(NOW)}").read_text() == "image"
    assert (aside.name, aside.kind, aside.aside_at) == (NAME, "original", int(NOW))
    assert (aside.inode, aside.modified_at) == (file.inode, OLD)


@pytest.mark.parametrize("what", ["another file", "a link", "gone", "used", "a directory"])
def test_what_is_no_longer_what_was_looked_at_is_left_alone(cache, file, tmp_path, what):
    path = tmp_path / "_base" / NAME
    precious = tmp_path / "precious"
    precious.write_text("precious")
    os.utime(precious, (OLD, OLD))
    if what != "used":
        path.rename(tmp_path / "away")
    if what == "another file":
        path.write_text("another")
        os.utime(path, (OLD, OLD))
    elif what == "a link":
        path.symlink_to(precious)
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    elif what == "used":
        os.utime(path)
    elif what == "a directory":
        path.mkdir()
        os.utime(path, (OLD, OLD))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Raced):
        cache.set_aside(file, OLD, NOW)
    assert set(before) <= set(tmp_path.rglob("*"))
    assert precious.read_text() == "precious"


def test_a_name_aside_that_is_taken_is_not_replaced(cache, aside, tmp_path):
    (tmp_path / "_base" / NAME).write_text("another")
    os.utime(tmp_path / "_base" / NAME, (OLD, OLD))
    another = next(file for file in cache.scan() if file.aside_at is None)
    with pytest.raises(StorageError, match="is there already"):
        cache.set_aside(another, OLD, NOW)
    assert (tmp_path / "_base" / NAME).read_text() == "another"
    assert (tmp_path / "_base" / ASIDE / f"{NAME}@{int(NOW)}").read_text() == "image"


def test_what_has_taken_its_place_is_not_replaced(cache, aside, tmp_path):
    (tmp_path / "_base" / NAME).write_text("another")
    with pytest.raises(StorageError, match="has taken its place since"):
        cache.restore(aside, NOW)
    assert (tmp_path / "_base" / NAME).read_text() == "another"
    assert len(cache.scan()) == 2


def test_it_comes_back_as_new_and_as_the_same_file(cache, file, aside):
    cache.restore(aside, NOW)
    (back,) = cache.scan()
    assert (back.inode, back.modified_at, back.aside_at) == (file.inode, NOW, None)


def test_one_that_has_both_names_comes_back_under_its_own(cache, aside, tmp_path):
    """An agent died between the two."""
    os.link(tmp_path / "_base" / ASIDE / aside.entry, tmp_path / "_base" / NAME)
    cache.restore(aside, NOW)
    (back,) = cache.scan()
    assert (back.inode, back.aside_at) == (aside.inode, None)


@pytest.mark.parametrize("act", ["restore", "delete"])
def test_an_entry_aside_that_is_another_now_is_left_alone(cache, aside, tmp_path, act):
    entry = tmp_path / "_base" / ASIDE / aside.entry
    entry.rename(tmp_path / "away")
    entry.write_text("another")
    with pytest.raises(Raced):
        cache.restore(aside, NOW) if act == "restore" else cache.delete(aside)
    assert entry.read_text() == "another"


@pytest.mark.parametrize("name", [ASIDE, "_base", "locks"])
def test_a_directory_that_is_a_link_is_not_entered(cache, file, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    if name == ASIDE:
        (tmp_path / "_base" / ASIDE).symlink_to(outside)
    elif name == "_base":
        (tmp_path / "_base").rename(outside / "real")
        (tmp_path / "_base").symlink_to(outside / "real")
    else:
        (tmp_path / "locks").symlink_to(outside)
    with pytest.raises(StorageError):
        cache.set_aside(file, OLD, NOW)
    assert not list(outside.glob("nova-*"))
    assert not list(outside.glob(f"{NAME}*"))


def test_what_somebody_else_put_aside_is_not_ours(cache, aside, tmp_path):
    directory = tmp_path / "_base" / ASIDE
    for name in ("README", f"{NAME}", f"{NAME}@", f"{NAME}@x", f"x@{int(NOW)}", f"../{NAME}@1"):
        (directory / name.replace("/", "_")).write_text("kept")
    (directory / f"{NAME}@5").symlink_to(tmp_path)
    assert [file.entry for file in cache.scan()] == [aside.entry]


def test_without_hard_links_it_comes_back_all_the_same(cache, aside, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    cache.restore(aside, NOW)
    assert [file.aside_at for file in cache.scan()] == [None]


def test_only_what_is_still_the_same_file_is_made_new(cache, file, tmp_path):
    path = tmp_path / "_base" / NAME
    path.rename(tmp_path / "away")
    assert cache.touch([file], NOW) == 0
    path.write_text("another")
    os.utime(path, (OLD, OLD))
    assert cache.touch([file], NOW) == 0
    assert path.stat().st_mtime == OLD
