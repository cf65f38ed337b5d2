# SPDX-License-Identifier: Apache-2.0
import sqlite3

import pytest

from cepheid import config, errors, upgrade
from cepheid.journal import FILE_NAME, Journal
from tests.fake_agent import FakeAgent


@pytest.fixture
def make_agent(tmp_path):
    """A function that makes an agent of some settings whose journal is not on the disk."""
    agents = []
    (tmp_path / "state").mkdir()

    def make(settings=""):
        agent = FakeAgent(tmp_path / "state", settings=settings)
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        agent.close()


def test_options_that_something_reads_are_right_under_each_of_their_names(make_agent):
    agent = make_agent(
        "enabled_tasks = bundled\nsync_power_state_interval = 60\nlog-file = x\n"
        "[sync_power_states]\ndry_run = true\n[libvirt]\nconnection_uri = test:///default\n"
        "[task_providers]\nsync_power_states = cepheid\n"
    )
    assert upgrade.check_configuration(agent) is None


def test_the_options_of_libraries_that_cepheid_stands_on_are_right(make_agent):
    agent = make_agent(
        "transport_url = rabbit://broker/\n[network]\ndriver = neutron\n"
        "[neutron]\nauth_type = v3applicationcredential\napplication_credential_id = x\n"
        "[oslo_messaging_notifications]\ndriver = messagingv2\n"
    )
    assert upgrade.check_configuration(agent) is None


def test_an_option_that_nothing_reads_is_a_warning_with_its_file(make_agent):
    agent = make_agent("spacng = 3\n[sync_power_states]\nspacings = 3\n[acme]\nkey = 1\n")
    warning = upgrade.check_configuration(agent)
    for name in ("[DEFAULT] spacng", "[sync_power_states] spacings", "[acme] key"):
        assert f"{name} in {agent.conf_file}" in warning


def test_what_a_nova_conf_says_to_others_is_no_warning(make_agent, tmp_path):
    agent = make_agent()
    nova = tmp_path / "nova.conf"
    nova.write_text("[DEFAULT]\nmy_ip = 10.0.0.1\n[glance]\nregion = here\n")
    agent.conf = config.load([str(agent.conf_file), str(nova)])
    assert upgrade.check_configuration(agent) is None


def test_a_bad_value_stops_the_upgrade(make_agent):
    with pytest.raises(errors.ConfigError, match=r"\[sync_power_states\] spacing"):
        upgrade.check_configuration(make_agent("[sync_power_states]\nspacing = soon\n"))


def test_an_enabled_task_that_cannot_be_loaded_stops_the_upgrade(make_agent, distributions):
    distributions.add_task("acme", "broken", "import missing_library\n")
    assert upgrade.check_tasks(make_agent()) is None
    with pytest.raises(errors.PluginError, match=r"broken of acme 1\.0: failed: .*missing_library"):
        upgrade.check_tasks(make_agent("enabled_tasks = bundled, broken\n"))


def write_journal(agent, version):
    path = agent.state_path / FILE_NAME
    agent.journal.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    return path


def test_a_journal_that_will_be_migrated_is_left_as_it_is(make_agent):
    agent = make_agent()
    path = write_journal(agent, 1)
    before = path.read_bytes()
    assert upgrade.check_journal(agent) is None
    assert path.read_bytes() == before


def test_a_later_journal_stops_the_upgrade(make_agent):
    agent = make_agent()
    write_journal(agent, 99)
    with pytest.raises(errors.JournalError, match=r"version 99.* a step back"):
        upgrade.check_journal(agent)


def test_a_damaged_journal_stops_the_upgrade(make_agent):
    agent = make_agent()
    path = write_journal(agent, 2)
    path.write_bytes(b"SQLite format 3\0" + b"x" * 8192)
    with pytest.raises(errors.JournalError, match=r"cannot be read|is damaged"):
        upgrade.check_journal(agent)


def test_no_journal_yet_is_right(make_agent):
    agent = make_agent()
    agent.journal.close()
    for file in agent.state_path.glob(f"{FILE_NAME}*"):
        file.unlink()
    assert upgrade.check_journal(agent) is None


def test_the_state_path_can_be_written(make_agent):
    assert upgrade.check_state_path(make_agent()) is None


def test_no_agent_that_runs_is_right(make_agent):
    assert upgrade.check_agent(make_agent()) is None


def test_every_bundled_check_is_found_and_a_vendors_too(distributions):
    distributions.add(
        "acme-check",
        {upgrade.NAMESPACE: {"acme": "acme_check:check"}},
        {"acme_check": "def check(agent):\n    return f'look at {agent.host}'\n"},
    )
    checks = dict(upgrade.found_checks())
    assert {"agent", "configuration", "database", "hypervisor", "journal", "tasks"} <= set(checks)

    class Host:
        host = "host1"

    assert checks["acme"](Host()) == "look at host1"


def test_a_journal_in_memory_is_one(tmp_path):
    journal = Journal(":memory:")
    assert journal.verify().flaws == []
    journal.close()
