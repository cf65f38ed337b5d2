# SPDX-License-Identifier: Apache-2.0
"""Generated storages: what the tasks that remove files say of each is what they then do to it."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from cepheid.explanation import Kind
from cepheid_plugins.storage.image_cache import ASIDE
from tests.explained import FOLLOWING, agree, ask, file, instance
from tests.plugins.tasks.test_image_cache_worlds import DAY, FILES, OTHERS, Storage, storages
from tests.plugins.tasks.test_leftover_worlds import Host, hosts
from tests.worlds import uuid_of

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

SOME = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def leftovers(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("leftovers"))
    yield host
    host.world.close()


@pytest.fixture(scope="module")
def storage():
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        storage = Storage(Path(directory))
        yield storage
        storage.host.close()


@SOME
@given(example=hosts())
def test_what_is_left_of_instances_becomes_what_is_said(leftovers, example):
    leftovers.make(example)
    world, uuids = leftovers.world, [uuid_of(number) for number in range(len(example["rows"]))]
    for number in range(2):
        if number == example["first"]:
            leftovers.break_down(example["fault"])
        for task in leftovers.tasks if example["order"] else leftovers.tasks[::-1]:
            before, _ = leftovers.there()
            said = ask(world, task, [instance(uuid) for uuid in uuids])
            of_files = ask(world, task, [file(uuid) for uuid in uuids])
            assert kinds(of_files) == kinds(said)
            assert leftovers.there()[0] == before
            for uuid, verdicts in said.items():
                # Of a directory that is here every task says what becomes of it.
                if uuid in before and example["fault"] == "none":
                    assert verdicts[0].kind is not Kind.UNCONCERNED
            agree(said, world.agent.run(task), FOLLOWING)
        world.clock.sleep(300)


@SOME
@given(example=storages())
def test_the_files_of_the_image_cache_become_what_is_said(storage, example):
    ages, present, uses, fault, broken_pass = example
    storage.make(ages, present)
    host = storage.host
    for number in range(3):
        for index, (how, name, since) in enumerate(uses):
            if since == number:
                storage.use(how, name, index + 1)
        repair = storage.break_down(fault) if number == broken_pass else lambda: None
        before = content(host)
        aside = host.base / ASIDE
        there = {*host.names(), *(path.name for path in aside.glob("*"))} - set(OTHERS)
        names = sorted({*there, *OTHERS, *FILES[:2]})
        said = ask(host.world, host.task, [file(name) for name in names])
        assert content(host) == before
        for name, verdicts in said.items():
            if verdicts[0].kind is not Kind.UNKNOWN:
                assert (name in there) == (verdicts[0].kind is not Kind.UNCONCERNED)
        agree(said, host.run())
        repair()
        host.world.clock.sleep(DAY)


def kinds(said):
    return {name: [verdict.kind for verdict in verdicts] for name, verdicts in said.items()}


def content(host):
    """Return all files of the storage, with their times and what is in them."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(host.instances.rglob("*"))
    }
