# SPDX-License-Identifier: Apache-2.0
"""The directories of instances on native threads: whoever hangs there hangs alone."""

import threading

import pytest

from cepheid import concurrency, errors
from cepheid_plugins.storage import native_files, trees
from cepheid_plugins.storage.errors import StorageError
from cepheid_plugins.storage.instances_path import InstancesPath
from cepheid_plugins.storage.native_files import NativeInstancesPath
from tests.fake_agent import FakeAgent, eventually
from tests.worlds import uuid_of

UUID = uuid_of(1)
RESIZE = f"{UUID}_resize"


@pytest.fixture
def agent(tmp_path):
    agent = FakeAgent(tmp_path)
    yield agent
    agent.close()


@pytest.fixture
def path(tmp_path):
    directory = tmp_path / "instances" / UUID
    directory.mkdir(parents=True)
    (directory / "disk").write_text("disk")
    return directory.parent


@pytest.fixture
def files(agent, path):
    return NativeInstancesPath(agent.run_native, agent.clock, str(path))


@pytest.fixture
def storage(monkeypatch):
    """Storage that hangs when an entry is looked up, until it is released."""
    return HangingStorage(monkeypatch)


class HangingStorage:
    def __init__(self, monkeypatch):
        threads = concurrency.original("threading")
        self.hangs, self.released, self.is_over = (threads.Event() for _ in range(3))
        look = InstancesPath._is_directory

        def hang(folder, root, name):
            found = look(folder, root, name)
            self.hangs.set()
            self.released.wait(20)
            return found

        monkeypatch.setattr(InstancesPath, "_is_directory", hang)


def test_it_is_the_same_directory_as_for_who_may_be_held_up(files, path):
    plain = InstancesPath(str(path))
    assert files.path == plain.path
    assert files.names() == plain.names() == (UUID,)
    assert files.files(UUID) == plain.files(UUID) == ["disk"]
    assert files.modified_at(UUID, "disk") == plain.modified_at(UUID, "disk") > 0
    assert files.modified_at(UUID, "gone") is None
    assert files.holds(UUID, str(path / UUID / "disk"))
    assert not files.holds(UUID, str(path / "disk"))
    files.write(UUID, "domain.xml.part", b"text")
    files.complete(UUID, "domain.xml.part", "domain.xml")
    assert files.read(UUID, "domain.xml") == b"text"
    files.unlink(UUID, "domain.xml")
    files.copy(UUID, RESIZE)
    assert (path / RESIZE / "disk").read_text() == "disk"
    files.remove(UUID)
    files.rename(RESIZE, UUID)
    files.make(RESIZE)
    assert files.exists(UUID)
    assert sorted(files.names()) == [UUID, RESIZE]
    with pytest.raises(StorageError, match="names no directory"):
        files.remove("..")


def test_other_threads_go_on_while_the_storage_hangs(files, storage):
    def release():
        eventually(storage.hangs.is_set)
        storage.released.set()

    other = threading.Thread(target=release)
    other.start()
    assert files.exists(UUID)
    assert storage.released.is_set()
    other.join()


@pytest.mark.parametrize(
    "act",
    [
        lambda files: files.remove(UUID),
        lambda files: files.rename(UUID, RESIZE),
        lambda files: files.make(RESIZE),
        lambda files: files.unlink(UUID, "disk"),
        lambda files: files.write(UUID, "disk", b"other"),
        lambda files: files.complete(UUID, "disk", "other"),
    ],
)
def test_a_call_that_was_given_up_changes_nothing_when_the_storage_is_back(
    files, storage, agent, path, monkeypatch, act
):
    for name in ("LOOK_SECONDS", "REMOVE_SECONDS"):
        monkeypatch.setattr(native_files, name, 0.1)
    with pytest.raises(errors.CallTimeout):
        act(files)
    agent.clock.sleep(1)
    storage.released.set()
    eventually(lambda: agent.native.abandoned == 0)
    assert [entry.name for entry in path.iterdir()] == [UUID]
    assert (path / UUID / "disk").read_text() == "disk"


def test_a_removal_that_is_slow_stops_when_its_time_is_over(files, agent, path, monkeypatch):
    survey = trees._Removal.remove

    def slow(removal, *arguments):
        agent.clock.sleep(200)
        survey(removal, *arguments)

    monkeypatch.setattr(trees._Removal, "remove", slow)
    with pytest.raises(errors.CallTimeout, match="not done within 300 s"):
        files.remove(UUID)
    assert (path / UUID / "disk").exists()
