# SPDX-License-Identifier: Apache-2.0
"""cepheid host show."""

import json

import pytest
import sqlalchemy as sa

from cepheid_plugins.database import models
from cepheid_plugins.tasks.update_available_resource import UpdateAvailableResource
from tests.functional.agents import Installation
from tests.worlds import fake_world

pytestmark = pytest.mark.process

TINY = {"memory_mb": 128, "vcpus": 1, "root_gb": 1}


@pytest.fixture
def world(tmp_path):
    (tmp_path / "instances").mkdir()
    world = fake_world(tmp_path, {})
    yield world
    world.close()


@pytest.fixture
def show(tmp_path, world):
    """Run the command; return how it ended, and the fields."""
    installation = Installation(tmp_path, "")

    def show():
        done = installation.run("host", "show", "-f", "json", check=False)
        return done, json.loads(done.stdout or "{}")

    return show


def test_a_host_without_a_record_is_told_how_to_get_one(show):
    done, _ = show()
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "'cepheid task run update_available_resource' makes one" in line


def test_the_record_is_shown_with_its_statistics_one_by_one(world, show):
    world.add(1, **TINY)
    world.agent.run(world.agent.build(UpdateAvailableResource))
    _, fields = show()
    assert (fields["vcpus"], fields["vcpus_used"], fields["running_vms"]) == (4, 1, 1)
    assert (fields["cpu"], fields["num_vm_active"]) == ("x86_64 Intel Nehalem", "1")
    assert fields["supported_instances"] == "x86_64 qemu hvm"
    assert fields["updated_at"] == str(world.clock.utcnow())


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 1}'])
def test_what_another_writer_left_in_the_record_does_not_hide_it(world, show, text):
    world.agent.run(world.agent.build(UpdateAvailableResource))
    with world.engine.begin() as connection:
        connection.execute(
            sa.update(models.compute_nodes).values(
                cpu_info=text, stats=text, supported_instances=text, updated_at=None
            )
        )
    done, fields = show()
    assert (done.returncode, fields["vcpus"]) == (0, 4)
