# SPDX-License-Identifier: Apache-2.0
import pytest

from cepheid import errors
from cepheid_plugins.compute import upgrade_checks
from cepheid_plugins.database.driver import Database
from tests.fake_agent import FakeAgent
from tests.fakes import FakeHypervisor

CHECKS = (
    upgrade_checks.check_database,
    upgrade_checks.check_hypervisor,
    upgrade_checks.check_instances_path,
)


@pytest.fixture
def make_agent(tmp_path):
    agents = []

    def make(settings="enabled_tasks = sync_power_states\n"):
        agent = FakeAgent(tmp_path, {"hypervisor": FakeHypervisor()}, settings)
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        agent.close()


def test_a_host_that_is_ready_passes(make_agent, tmp_path):
    (tmp_path / "instances").mkdir()
    agent = make_agent()
    agent.conf.register_opts(Database.options, group="database")
    agent.driver("database").sync()
    assert [check(agent) for check in CHECKS] == [None, None, None]


def test_a_database_that_is_not_migrated_stops_the_upgrade(make_agent):
    with pytest.raises(errors.CepheidError, match="run 'cepheid db sync'"):
        upgrade_checks.check_database(make_agent())


def test_a_hypervisor_that_does_not_answer_stops_the_upgrade(make_agent):
    agent = make_agent()
    agent.driver("hypervisor").available = False
    with pytest.raises(errors.CepheidError, match="does not answer"):
        upgrade_checks.check_hypervisor(agent)


def test_an_instances_path_that_is_not_there_is_a_warning(make_agent, tmp_path):
    warning = upgrade_checks.check_instances_path(make_agent())
    assert warning.startswith(f"[compute] instances_path = {tmp_path}/instances is no directory.")


def test_what_no_enabled_task_asks_for_is_not_looked_at(make_agent):
    agent = make_agent("disabled_tasks = *\n")
    agent.driver("hypervisor").available = False
    assert [check(agent) for check in CHECKS] == [None, None, None]
