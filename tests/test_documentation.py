# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows is true: its commands parse, its options exist, its code runs."""

import importlib.metadata
import re
import shutil

import pytest

from cepheid import config, upgrade
from cepheid.agent import Agent
from cepheid.cli.app import App
from cepheid.journal import Journal
from cepheid.status.metrics import Exposition
from cepheid_plugins.compute import power_state
from tests import documentation
from tests.distributions import Distributions
from tests.explained import instance
from tests.fake_agent import FakeAgent
from tests.test_conventions import EXAMPLES, declared_entry_points
from tests.worlds import fake_world, uuid_of

TYPED = [
    (block, words)
    for block in documentation.all_blocks(*documentation.TYPED)
    for words in documentation.commands(block)
]
CONFIGURATIONS = documentation.all_blocks("ini")
PYTHON = documentation.all_blocks("python")


@pytest.fixture(scope="module", autouse=True)
def examples(tmp_path_factory):
    """Let the examples be found, for the pages that use them."""
    site = Distributions(tmp_path_factory.mktemp("site"))
    for folder in EXAMPLES:
        points = {}
        for namespace, name, value in declared_entry_points(folder):
            points.setdefault(namespace, {})[name] = value
        site.add(folder.name, points)
        shutil.copytree(
            folder / folder.name.replace("-", "_"), site.path / folder.name.replace("-", "_")
        )
    yield
    site.remove()


def test_the_pages_show_commands_configurations_and_code():
    assert len(TYPED) > 40
    assert len(CONFIGURATIONS) > 5
    assert PYTHON


@pytest.mark.parametrize(
    ("block", "words"), TYPED, ids=[f"{b.place} {' '.join(w)}" for b, w in TYPED]
)
def test_a_command_that_is_shown_is_one(block, words):
    app = App()
    options, rest = app.parser.parse_known_args(words)
    assert rest, f"{block.place} shows no command"
    factory, name, arguments = app.command_manager.find_command(rest)
    command = factory(app, options, cmd_name=name)
    command.get_parser(name).parse_args(arguments)  # exits where it does not understand


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.place)
def test_a_configuration_that_is_shown_has_options_that_are_read(block, tmp_path):
    path = tmp_path / "cepheid.conf"
    path.write_text(block.text)
    conf = config.load([str(path)])
    conf.set_override("state_path", str(tmp_path / "state"))
    agent = Agent(conf, journal=Journal(":memory:"))
    try:
        assert upgrade.check_configuration(agent) is None
    finally:
        agent.close()


def options_of_ours():
    """Yield each option of this distribution with its group."""
    for point in importlib.metadata.distribution("cepheid").entry_points:
        if point.group == "oslo.config.opts":
            for group, options in point.load()():
                yield from ((str(group or "DEFAULT"), option) for option in options)


def names_read_from_nova_conf():
    """Return the (group, name) that the first column of the table on the page has."""
    page = (documentation.SOURCE / "nova.rst").read_text()
    table = page.partition("Options that are read from nova.conf\n")[2].partition("\nEverything")[0]
    found = set()
    for row in re.findall(r"^   \* - (.*?)^     - ", table, re.MULTILINE | re.DOTALL):
        group = "DEFAULT"
        for literal in re.findall(r"``(.+?)``", row):
            named, name = re.fullmatch(r"(?:\[(\w+)\] ?)?(\w*)", literal).groups()
            group = named or group
            found.add((group, name))
    return found


def test_the_table_of_novas_options_has_all_that_are_read_under_another_name():
    old = {
        (str(deprecated.group or group), deprecated.name)
        for group, option in options_of_ours()
        for deprecated in option.deprecated_opts
        if group != "neutron"  # keystoneauth's own old names
    }
    assert len(old) > 40
    assert old <= names_read_from_nova_conf()


def test_the_table_of_novas_options_has_no_name_that_is_not_read():
    ours = set(config.load([])) | {"log_dir", "transport_url", "control_exchange"}
    read = {("DEFAULT", name) for name in ours}
    for group, option in options_of_ours():
        read |= {(group, option.dest), (group, "")}
        read |= {(str(old.group or group), old.name) for old in option.deprecated_opts}
    libraries = {"database", "neutron", "oslo_messaging_rabbit", "oslo_messaging_notifications"}
    read |= {(group, "") for group in libraries}
    assert names_read_from_nova_conf() <= read


def code_of(page, number=0):
    """Return a block of Python of a page."""
    return [block.text for block in PYTHON if block.page == documentation.SOURCE / page][number]


def test_all_code_that_is_shown_is_run_below():
    assert {str(block.page.relative_to(documentation.SOURCE)) for block in PYTHON} == {
        "metrics.rst",
        "tasks/sync_scheduler_instance_info.rst",
        "writing_a_task.rst",
    }


def test_the_task_that_watches_guests_warns_of_a_crashed_one(tmp_path, caplog):
    shown = {}
    exec(code_of("writing_a_task.rst"), shown)
    world = fake_world(tmp_path, {1: power_state.RUNNING, 2: power_state.CRASHED})
    run = world.agent.build(shown["WatchGuests"]).run_now("operator")
    assert (run.outcome, run.error) == ("ok", "")
    assert [r.message for r in caplog.records if "has crashed" in r.message] == [
        "watch_guests: guest-2 has crashed"
    ]
    world.close()


def test_the_metrics_of_a_plugin_are_exposed(tmp_path):
    shown = {}
    exec(code_of("metrics.rst"), shown)
    agent = FakeAgent(tmp_path)
    task = agent.build(shown["CountGuestDumps"])
    registry = Exposition(lambda: [(task.name, task.metrics)]).registry()
    assert registry.get_sample_value("acme_guest_dumps", {"age": "new"}) == 0
    assert task.run_now("operator").outcome == "ok"
    assert registry.get_sample_value("acme_guest_dumps", {"age": "new"}) == 3
    agent.close()


def test_the_task_that_explains_itself_says_why_it_warns_of_nobody(tmp_path):
    shown = {}
    exec(code_of("writing_a_task.rst"), shown)
    exec(code_of("writing_a_task.rst", 1), shown)
    world = fake_world(tmp_path, {1: power_state.RUNNING, 2: power_state.CRASHED})
    task = world.agent.build(shown["ExplainGuests"])
    (well,), (crashed,) = (task.explain(instance(uuid_of(number))) for number in (1, 2))
    assert (well.text, well.until) == ("it has not crashed", "it crashes")
    assert crashed.text == "guest-2 has crashed"
    world.close()


def test_a_scheduler_of_ones_own_reads_the_instances_of_a_host(tmp_path, capsys):
    world = fake_world(tmp_path, {1: power_state.RUNNING})
    world.add(1)
    conf = tmp_path / "my-scheduler.conf"
    conf.write_text(
        f"[DEFAULT]\nstate_path = {tmp_path / 'scheduler'}\ntransport_url = fake://\n"
        f"[database]\nconnection = {world.agent.conf.database.connection}\n"
    )
    shown = code_of("tasks/sync_scheduler_instance_info.rst")
    exec(shown.replace("/etc/my-scheduler/my-scheduler.conf", str(conf)), {})
    assert uuid_of(1) in capsys.readouterr().out
    world.close()
