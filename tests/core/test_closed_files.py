# SPDX-License-Identifier: Apache-2.0
"""Who can open what is in state_path, which QEMU's user passes through."""

import os
import stat

import pytest
import sqlalchemy as sa

from cepheid import closed_files, config
from cepheid.agent import Agent
from cepheid_plugins.compute.sightings import Sightings, SightingsFile
from cepheid_plugins.database import migrate


@pytest.fixture(autouse=True)
def generous():
    """A user whose umask takes nothing away."""
    previous = os.umask(0)
    yield
    os.umask(previous)


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "cepheid.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {tmp_path / 'state'}\nenabled_tasks =\n")
    return config.load([str(path)])


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_others_pass_through_state_path_and_can_neither_list_it_nor_open_what_is_in_it(conf):
    agent = Agent(conf)
    SightingsFile(conf.state_path).write(Sightings())
    migrate.sync(sa.create_engine(f"sqlite:///{agent.state_path / 'cepheid.sqlite'}"))
    assert mode(agent.state_path) & stat.S_IRWXO == stat.S_IXOTH
    files = {path.name: mode(path) for path in agent.state_path.iterdir() if path.is_file()}
    assert {"cepheid-journal.sqlite", "cepheid-sightings.json", "cepheid.sqlite"} <= set(files)
    assert {name for name, bits in files.items() if bits & closed_files.OTHERS} == set()
    agent.close()


def test_closes_what_an_earlier_version_made_and_leaves_what_is_not_the_agents(conf, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    names = ("cepheid.sqlite", "cepheid-journal.sqlite-wal", "notes.txt")
    for name in names:
        (state / name).touch(0o644)
    (state / "cepheid-link").symlink_to(state / "notes.txt")
    Agent(conf).close()
    assert mode(state / "cepheid.sqlite") == 0o640
    assert mode(state / "notes.txt") == 0o644


def test_a_file_that_is_there_is_not_opened_anew(tmp_path):
    # SQLite's locks on it would go with the descriptor.
    path = tmp_path / "cepheid.sqlite"
    path.write_text("kept")
    closed_files.make(path)
    assert path.read_text() == "kept"
    closed_files.make(tmp_path / "away" / "cepheid.sqlite")
    assert not (tmp_path / "away").exists()


def test_others_pass_through_whatever_the_umask_of_who_makes_it(conf):
    os.umask(0o077)
    agent = Agent(conf)
    assert mode(agent.state_path) == closed_files.DIRECTORY_MODE
    agent.close()


@pytest.mark.parametrize("name", ["", ":memory:", "file:inventory?mode=memory"])
def test_no_file_is_made_of_what_is_no_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    closed_files.make(name)
    assert list(tmp_path.iterdir()) == []
