# SPDX-License-Identifier: Apache-2.0
"""What an agent says of a configuration that is probably not what was meant."""

import pytest

from cepheid import config, errors, loading, mistakes, unread
from cepheid.service import Service
from cepheid.systemd import Notifier
from tests.fake_agent import FakeAgent


@pytest.fixture
def said(tmp_path, distributions, caplog):
    """A function that returns what is said of some settings; ``sync`` and ``mine`` are tasks."""
    distributions.add_task("acme", "sync")
    distributions.add_task("umbrella", "mine")

    def say(settings="", files=(), folders=()):
        agent = FakeAgent(tmp_path, settings=settings)
        agent.conf = config.load([str(agent.conf_file), *map(str, files)], [*map(str, folders)])
        agent.load_tasks()
        caplog.clear()
        mistakes.warn(agent.conf, agent.plugins)
        agent.close()
        assert {record.levelname for record in caplog.records} <= {"WARNING"}
        return [
            record.getMessage().replace(str(agent.conf_file), "FILE") for record in caplog.records
        ]

    return say


def test_of_what_is_read_nothing_is_said(said):
    settings = (
        "enabled_tasks = sync, bundled\ndisabled_tasks = sync_*\nlog-file = x\n"
        "sync_power_state_interval = 60\ntransport_url = rabbit://broker/\n"
        "[sync]\nspacing = 5\n[libvirt]\nconnection_uri = test:///default\n"
        "[task_providers]\nsync = acme\n"
    )
    assert said(settings) == []


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ("[compute]\ninstances_path = /x\n", set()),
        ("[oslo_messaging_notifications]\ndriver = noop\n", set()),
        ("[oslo_messaging_notifications]\ntopics = mine\n", {"oslo.messaging"}),
        ("[neutron]\nauth_url = https://keystone/\n", set(unread.COSTLY)),
    ],
)
def test_libraries_are_loaded_only_as_far_as_they_are_needed(said, monkeypatch, settings, needed):
    loaded = set()
    load = loading.Plugin.load
    monkeypatch.setattr(
        loading.Plugin, "load", lambda plugin: loaded.add(plugin.name) or load(plugin)
    )
    assert said(settings) == []
    assert loaded & set(unread.COSTLY) == needed


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("enabled_task = x\n", "[DEFAULT] enabled_task in FILE (is it [DEFAULT] enabled_tasks?)"),
        (
            "[sync_power_state]\npolicy = follow\n",
            "[sync_power_state] policy in FILE (is it [sync_power_states] policy?)",
        ),
        (
            "[sync_power_states]\nspacings = 3\n",
            "[sync_power_states] spacings in FILE (is it [sync_power_states] spacing?)",
        ),
        ("[volcano]\nlava = 3\n", "[volcano] lava in FILE"),
    ],
)
def test_an_option_that_nothing_reads_is_named_with_its_file_and_the_nearest(said, settings, told):
    (line,) = said(settings)
    assert line == f"Nothing that is installed reads {told}. Correct or remove it."


def test_of_the_options_of_a_task_that_is_not_loaded_nothing_is_said(said):
    assert said("enabled_tasks = sync\n[mine]\nshaft = 3\n") == []


def test_what_a_nova_conf_says_to_others_is_not_named(said, tmp_path):
    nova = tmp_path / "nova.conf"
    nova.write_text("[DEFAULT]\nmy_ip = 10.0.0.1\n[glance]\nregion = here\n")
    assert said(files=[nova]) == []


@pytest.mark.parametrize("name", ["00-nova.conf", "00-compute.conf"])
def test_nor_where_it_is_linked_to(said, tmp_path, name):
    nova, folder = tmp_path / "nova.conf", tmp_path / "conf.d"
    nova.write_text("[DEFAULT]\nmy_ip = 10.0.0.1\n[glance]\nregion = here\n")
    folder.mkdir()
    (folder / name).symlink_to(nova)
    assert said(folders=[folder]) == []


def test_a_name_that_has_novas_in_it_is_no_nova_conf(said, tmp_path):
    file = tmp_path / "innovation.conf"
    file.write_text("[volcano]\nlava = 3\n")
    assert len(said(files=[file])) == 1


BAD = """
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    options = ("x",)

    @periodic_task(spacing=60)
    def bad(self, context):
        pass
"""


def test_a_task_whose_options_are_bad_keeps_nothing_else_from_being_named(said, distributions):
    distributions.add_task("acme-bad", "bad", BAD)
    (line,) = said("enabled_tasks = *\n[bad]\nmood = 3\n[volcano]\nlava = 3\n")
    assert "[volcano] lava" in line


def test_what_a_task_raises_when_it_is_asked_is_a_warning(said, distributions):
    source = (
        BAD.replace('options = ("x",)', "asked = 0")
        + """
    @classmethod
    def all_options(cls):
        cls.asked += 1
        if cls.asked > 1:
            raise LookupError("not again")
        return super().all_options()
"""
    )
    distributions.add_task("acme-bad", "bad", source)
    assert said("enabled_tasks = *\n") == ["It is not known which options nothing reads"]


def test_a_file_that_is_of_another_program_is_no_flood(said):
    lines = said("[other]\n" + "".join(f"option_{n} = 1\n" for n in range(300)))
    assert len(lines) == mistakes.NAMED + 1
    assert lines[-1] == (
        "Nothing that is installed reads 290 options more; 'cepheid upgrade check' names them."
    )


@pytest.mark.parametrize("option", ["enabled_tasks", "disabled_tasks"])
@pytest.mark.parametrize("pattern", ["poll-*", "['bundled']"])
def test_a_pattern_that_matches_no_task_is_named(said, option, pattern):
    (line,) = said(f"{option} = sync, {pattern}\n")
    assert line.startswith(f"[DEFAULT] {option} in FILE: {pattern} matches no task.")


def test_it_is_said_at_the_start_and_at_a_reload(tmp_path, caplog, monkeypatch):
    # It would take the log from the test.
    monkeypatch.setattr("oslo_log.log.setup", lambda conf, project: None)
    settings = "enabled_tasks = poll-*\n[sync_power_state]\npolicy = follow\n"
    agent = FakeAgent(tmp_path, settings=settings)
    service = Service(agent, lambda: config.load([str(agent.conf_file)]), Notifier({}))

    def count():
        told = ("poll-* matches no task", "[sync_power_state] policy")
        return [sum(text in line for line in caplog.messages) for text in told]

    try:
        service.start()
        assert count() == [1, 1]
        service.reload()
    finally:
        service.stop()
    assert count() == [2, 2]


def test_an_agent_is_asked_for_a_task_that_nobody_provides(tmp_path):
    agent = FakeAgent(tmp_path, settings="enabled_tasks =\n")
    agent.load_tasks()
    service = Service(agent, lambda: agent.conf, Notifier({}))
    with pytest.raises(
        errors.CepheidError, match="There is no task 'poll_bandwith_usage'; the near"
    ):
        service.run_task("poll_bandwith_usage")
    with pytest.raises(errors.PluginError, match="The agent does not run the task"):
        service.run_task("poll_bandwidth_usage")
    agent.close()
