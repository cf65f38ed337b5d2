# SPDX-License-Identifier: Apache-2.0
"""The command line as an operator meets it: results, and one clear line for each mistake."""

import contextlib
import json
import os
import pty
import sqlite3
import subprocess
import termios

import pytest

from cepheid import errors
from cepheid.cli import cells
from cepheid.cli.app import App
from tests.distributions import Distributions
from tests.functional.agents import Installation
from tests.worlds import node_xml

RUNNING, PAUSED, SHUTDOWN, CRASHED = 1, 3, 4, 6

pytestmark = pytest.mark.process


DRIVER = '''
from oslo_config import cfg
from cepheid import errors

class Driver:
    """Measures."""

    options = [cfg.IntOpt("volts", default=230)]

    def __init__(self, agent):
        self.volts = agent.conf.meter.volts

    def check(self):
        if self.volts > 400:
            raise errors.CepheidError("[meter] volts is too high")
'''


@pytest.fixture
def host(tmp_path):
    """A host on libvirt's test driver whose database is not made yet."""
    (tmp_path / "node.xml").write_text(node_xml([RUNNING, PAUSED, SHUTDOWN, CRASHED]))
    return Installation(tmp_path, f"[hypervisor]\nuri = test:///{tmp_path}/node.xml\n")


@pytest.fixture
def adopted(host):
    """The same with its domains in the inventory."""
    host.run("db", "sync")
    host.run("host", "adopt")
    return host


def install(host, path, *packages):
    """Install distributions for what the host runs: (name, entry points, modules) each."""
    site = path / "site"
    site.mkdir()
    distributions = Distributions(site)
    for package in packages:
        distributions.add(*package)
    distributions.remove()
    host.environment = {**os.environ, "PYTHONPATH": str(site)}


def refused(host, *words):
    """Run a command that fails; return its one line."""
    done = host.run(*words, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr + done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_the_database_is_made_once(host):
    assert "Migrated the database from nothing to 0001" in host.run("db", "sync").stdout
    assert "at revision 0001 already" in host.run("db", "sync").stdout
    version = json.loads(host.run("db", "version", "-f", "json").stdout)
    assert version["owner"] == "cepheid"
    assert version["revision"] == version["needed"] == "0001"


def test_adopting_takes_each_domain_in_as_it_is(adopted):
    states = {
        row["Name"]: (row["VM state"], row["Power state"], row["vCPUs"], row["Memory MiB"])
        for row in adopted.rows("instance", "list")
    }
    assert states == {
        "guest-0": ("active", "running", 2, 128),
        "guest-1": ("paused", "paused", 2, 128),
        "guest-2": ("stopped", "shut down", 2, 128),
        "guest-3": ("stopped", "crashed", 2, 128),
    }


def test_adopting_dry_changes_nothing(host):
    host.run("db", "sync")
    done = host.run("host", "adopt", "--dry-run")
    assert "4 domains would be adopted" in done.stderr
    assert host.rows("instance", "list") == []


def test_adopting_again_adopts_nothing_and_recommends_following(adopted):
    assert "0 domains adopted, 4 known already" in adopted.run("host", "adopt").stderr
    adopted.run("host", "adopt")


def test_a_domain_whose_instance_is_deleted_is_listed_as_that(adopted):
    with contextlib.closing(sqlite3.connect(adopted.path / "cepheid.sqlite")) as inventory:
        inventory.execute(
            "UPDATE instances SET deleted = id, vm_state = 'deleted' WHERE display_name = 'guest-0'"
        )
        inventory.commit()
    done = adopted.run("host", "adopt", "-f", "json")
    assert "0 domains adopted, 3 known already, 1 deleted" in done.stderr
    assert "define it under another uuid" in done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["Name"], row["Power state"], row["Result"]) == ("guest-0", "running", "deleted")


def test_a_name_cannot_command_the_terminal_and_scripts_get_it_as_it_is(adopted):
    name = "web\x1b[2J\x1b]0;owned\x07"
    with contextlib.closing(sqlite3.connect(adopted.path / "cepheid.sqlite")) as inventory:
        inventory.execute(
            "UPDATE instances SET display_name = ? WHERE display_name = 'guest-0'", [name]
        )
        inventory.commit()
    assert r"web\x1b[2J\x1b]0;owned\x07" in adopted.run("instance", "list").stdout
    assert name in {row["Name"] for row in adopted.rows("instance", "list")}
    uuid = next(row["UUID"] for row in adopted.rows("instance", "list") if row["Name"] == name)
    for words in (("show", uuid), ("show", name)):
        assert "\x1b" not in adopted.run("instance", *words).stdout
    assert "\x1b" not in adopted.run("instance", "show", "\x1b[2J", check=False).stderr


def test_an_instance_is_shown_with_its_domain_by_name_or_uuid(adopted):
    shown = json.loads(adopted.run("instance", "show", "guest-1", "-f", "json").stdout)
    assert (shown["vm_state"], shown["domain"]) == ("paused", "paused")
    by_uuid = json.loads(adopted.run("instance", "show", shown["uuid"], "-f", "json").stdout)
    assert by_uuid == shown


def test_to_list_tasks_imports_nothing_that_takes_long_and_is_not_needed(host):
    code = (
        "import sys; from cepheid.__main__ import main; status = main(sys.argv[1:]); "
        "print(status, *{'eventlet', 'libvirt', 'lxml', 'sqlalchemy'} & set(sys.modules))"
    )
    words = ["--config-file", host.conf, "task", "list", "-f", "value", "-c", "State"]
    listed = subprocess.run(
        [host.python, "-c", code, *words],
        check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert listed.stdout.split("\n")[-2] == "0"
    assert "failed" not in listed.stdout


def test_tasks_are_listed_with_state_spacing_and_provenance(host):
    (row,) = [r for r in host.rows("task", "list") if r["Name"] == "sync_power_states"]
    assert row["State"] == "enabled"
    assert (row["Spacing"], row["Last run"], row["Next run"]) == (600, None, None)
    assert row["Distribution"] == "cepheid"
    assert row["Summary"].startswith("Save each guest's power state")
    assert not any("…" in row["Summary"] for row in host.rows("task", "list"))


@pytest.mark.parametrize("format_", ["table", "json", "yaml", "csv", "value"])
def test_lists_come_in_every_format(host, format_):
    assert "check_instance_build_time" in host.run("task", "list", "-f", format_).stdout


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("words", [("task", "list"), ("driver", "list")])
def test_lists_fit_a_terminal_with_every_name_whole(host, words, width):
    names = {row["Name"] for row in host.rows(*words)}
    lines = in_terminal(host, width, *words)
    assert max(map(len, lines)) <= width
    assert names <= {cell.strip() for line in lines for cell in line.split("|")}


def test_the_history_fits_a_terminal_with_every_task_and_target_whole(adopted):
    adopted.run("task", "run", "update_available_resource")
    targets = {f"…{row['UUID'][-8:]}" for row in adopted.rows("instance", "list")}
    for width in (80, 100):
        lines = in_terminal(adopted, width, "task", "history")
        assert max(map(len, lines)) <= width
        shown = {cell.strip() for line in lines for cell in line.split("|")}
        assert {"host_adopt", "update_available_resource"} | targets <= shown


def in_terminal(host, width, *words):
    """Run a command in a terminal of this width; return the lines that it shows."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (100, width))
    with open(its, "wb") as end:
        # The program asks standard input, output and error how wide they are.
        running = host.popen(*words, stdin=end, stdout=end, stderr=end)
    shown = b""
    with open(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # it has ended
        while piece := terminal.read(65536):
            shown += piece
    assert running.wait() == 0
    return shown.decode().splitlines()


def test_drivers_are_listed_with_what_is_chosen_and_provenance(host):
    host.conf.write_text(host.conf.read_text() + "[network]\ndriver = neutron\n")
    rows = {(row["Kind"], row["Name"]): row for row in host.rows("driver", "list")}
    assert rows["hypervisor", "libvirt"] == {
        "Kind": "hypervisor", "Name": "libvirt", "Chosen": "yes", "State": "installed",
        "Reason": "", "In use": "", "Distribution": "cepheid", "Version": "0.1.0",
        "Summary": rows["hypervisor", "libvirt"]["Summary"],
    }  # fmt: skip
    assert rows["hypervisor", "libvirt"]["Summary"].startswith("The domains behind")
    chosen = [name for (kind, name), row in rows.items() if kind == "network" and row["Chosen"]]
    assert chosen == ["neutron"]


def test_a_vendors_kinds_are_listed_and_what_is_wrong_with_each_driver(host, tmp_path):
    install(
        host,
        tmp_path,
        ("acme", {"cepheid.meter": {"good": "acme_good:Driver"}}, {"acme_good": DRIVER}),
        ("beta", {"cepheid.meter": {"bad": "beta_bad:Driver"}}, {"beta_bad": "import libmeter\n"}),
        ("gamma", {"cepheid.meter": {"twice": "acme_good:Driver"}}, {}),
        ("delta", {"cepheid.meter": {"twice": "acme_good:Driver"}}, {}),
    )

    def meters(wanted):
        host.conf.write_text(f"{host.conf.read_text()}[meter]\ndriver = {wanted}\n")
        rows = [row for row in host.rows("driver", "list") if row["Kind"] == "meter"]
        return {(row["Name"], row["Distribution"]): row for row in rows}

    rows = meters("good")
    assert {key: (row["Chosen"], row["State"]) for key, row in rows.items()} == {
        ("bad", "beta"): ("", "failed"),
        ("good", "acme"): ("yes", "installed"),
        ("twice", "delta"): ("", "installed"),
        ("twice", "gamma"): ("", "installed"),
    }
    assert rows["bad", "beta"]["Reason"] == "the Python module libmeter is missing"
    rows = meters("twice")
    assert rows["twice", "gamma"]["State"] == "in conflict"
    assert rows["twice", "gamma"]["Reason"] == "offered by delta 1.0 and gamma 1.0; uninstall one"
    rows = meters("better")
    assert rows["better", ""]["State"] == "missing"
    assert "installed are: bad, good, twice" in rows["better", ""]["Reason"]


def test_a_driver_is_built_and_checks_itself(host, tmp_path):
    install(
        host, tmp_path, ("acme", {"cepheid.meter": {"one": "acme_m:Driver"}}, {"acme_m": DRIVER})
    )
    done = host.run("driver", "check", "meter")
    assert done.stdout == "The meter driver one of acme 1.0 works.\n"
    assert "is built; it has no check" in host.run("driver", "check", "network").stdout
    host.conf.write_text(host.conf.read_text() + "[meter]\nvolts = 900\n")
    assert "[meter] volts is too high" in refused(host, "driver", "check", "meter")
    assert "run 'cepheid db sync'" in refused(host, "driver", "check", "database")
    assert "no kind of driver 'fuse'" in refused(host, "driver", "check", "fuse")
    host.conf.write_text(host.conf.read_text() + "driver = two\n")
    assert "[meter] driver = two: no such driver" in refused(host, "driver", "check", "meter")


def test_a_driver_that_an_agent_uses_is_said_to_be_in_use(adopted, tmp_path):
    adopted.start_agent()
    try:
        used = {(r["Kind"], r["Name"]) for r in adopted.rows("driver", "list") if r["In use"]}
        assert {("database", "sqlalchemy"), ("hypervisor", "libvirt")} <= used
    finally:
        adopted.close()


def test_a_task_is_shown_with_every_option_and_where_it_was_set(host):
    host.conf.write_text(host.conf.read_text() + "[sync_power_states]\nspacing = 30\n")
    shown = json.loads(host.run("task", "show", "sync_power_states", "-f", "json").stdout)
    assert shown["drivers"] == "database = sqlalchemy, hypervisor = libvirt"
    option = "[sync_power_states] spacing"
    assert (shown[option], shown[f"{option} is set in"]) == (30, str(host.conf))
    assert f"30  ({host.conf})" in host.run("task", "show", "sync_power_states").stdout


def test_a_task_is_shown_with_its_whole_summary(host):
    shown = host.run("task", "show", "sync_power_states").stdout
    assert "Save each guest's power state; stop guests that should not run." in shown


def test_an_option_that_is_a_list_is_shown_as_a_configuration_file_has_it():
    assert cells.option(["running", "paused"]) == "running,paused"
    assert (cells.option([]), cells.option(3), cells.option(None)) == ("", "3", "None")


def test_nova_conf_is_understood(host, tmp_path):
    nova_conf = tmp_path / "nova.conf"
    nova_conf.write_text(
        "[DEFAULT]\nsync_power_state_interval = 120\ninstance_build_timeout = 900\n"
        "host = compute7\n[libvirt]\nconnection_uri = qemu:///system\n"
        "[database]\nconnection = sqlite:////nowhere\n"
    )
    done = host.run("--config-file", str(nova_conf), "task", "list", "-f", "json")
    spacings = {row["Name"]: row["Spacing"] for row in json.loads(done.stdout)}
    assert spacings["sync_power_states"] == 120
    shown = host.run(
        "--config-file", str(nova_conf), "task", "show", "check_instance_build_time", "-f", "json"
    ).stdout
    option = "[check_instance_build_time] instance_build_timeout"
    fields = json.loads(shown)
    assert (fields[option], fields[f"{option} is set in"]) == (900, str(nova_conf))


def test_a_task_runs_here_where_no_agent_does(adopted):
    adopted.path.joinpath("node.xml").write_text(node_xml([SHUTDOWN, PAUSED, SHUTDOWN, CRASHED]))
    planned = adopted.rows("task", "run", "sync_power_states", "--dry-run")
    assert {row["Outcome"] for row in planned} == {"planned"}
    rows = adopted.rows("task", "run", "sync_power_states")
    assert [(row["Change"], row["Before"], row["After"], row["Outcome"]) for row in rows] == [
        ("power_state", "running", "shut down", "done"),
        ("stop", "active", "stopped", "done"),
    ]
    assert adopted.rows("task", "run", "sync_power_states") == []


LEAVES = """
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    @periodic_task(spacing=3600)
    def {name}(self, context):
        {act}
"""


def test_a_task_that_exits_or_fails_by_hand_is_told_of_here_and_by_the_agent(host, tmp_path):
    modules = {
        "leaves": LEAVES.format(name="leaves", act="raise SystemExit(0)"),
        "breaks": LEAVES.format(name="breaks", act="raise ValueError('no')"),
    }
    points = {"cepheid.tasks": {name: f"{name}:Plugin" for name in modules}}
    install(host, tmp_path, ("acme", points, modules))
    host.conf.write_text(
        host.conf.read_text().replace("[hypervisor]", "enabled_tasks = leaves\n[hypervisor]")
    )
    said = "cepheid: leaves failed: it exits (sys.exit(0)). Its package has to be mended."
    assert refused(host, "task", "run", "leaves") == said
    # That no agent runs has nothing to do with it.
    failed = host.run("task", "run", "breaks", check=False)
    assert "ValueError: no" in failed.stderr
    assert "agent" not in failed.stderr
    host.start_agent()
    assert refused(host, "task", "run", "leaves") == said
    assert host.stop_agent() == 0


def test_the_history_has_runs_and_their_changes(adopted):
    adopted.path.joinpath("node.xml").write_text(node_xml([SHUTDOWN, PAUSED, SHUTDOWN, CRASHED]))
    adopted.run("task", "run", "sync_power_states")
    adopted.run("task", "run", "sync_power_states")
    rows = adopted.rows("task", "history", "sync_power_states")
    assert [row["Change"] for row in rows] == ["power_state", "stop", ""]
    assert len(adopted.rows("task", "history", "sync_power_states", "--changed")) == 2
    assert len(adopted.rows("task", "history", "--changed", "--limit", "1")) == 2


def test_bash_completion_is_offered(host):
    assert "task" in host.run("complete").stdout


def test_instances_are_stopped_and_started_and_rebooted(adopted):
    def states():
        return {r["Name"]: r["VM state"] for r in adopted.rows("instance", "list")}

    # Each command is a process of its own, and with it the test driver's host.
    rows = adopted.rows("instance", "stop", "guest-0")
    assert [(row["Name"], row["Result"]) for row in rows] == [("guest-0", "done")]
    assert states()["guest-0"] == "stopped"
    adopted.rows("instance", "start", "guest-0", "guest-2")
    assert (states()["guest-0"], states()["guest-2"]) == ("active", "active")
    assert "answer yes" in refused(adopted, "instance", "reboot", "guest-1").split("] ")[-1]
    adopted.rows("instance", "reboot", "--yes", "guest-1")
    assert states()["guest-1"] == "active"
    shown = json.loads(adopted.run("instance", "show", "guest-1", "-f", "json").stdout)
    assert shown["action 1"].startswith("reboot at ")


def test_an_operation_that_is_not_possible_is_refused(adopted):
    line = refused(adopted, "instance", "start", "guest-0")
    assert "cannot be asked to start: its vm_state is active" in line
    assert "no instance 'guest-9'" in refused(adopted, "instance", "stop", "guest-9")


def test_what_was_done_is_told_though_another_of_the_instances_was_refused(adopted):
    done = adopted.run("instance", "stop", "guest-0", "guest-2", "-f", "json", check=False)
    assert done.returncode == 1
    assert "cannot be asked to stop: its vm_state is stopped" in done.stderr
    results = {row["Name"]: row["Result"] for row in json.loads(done.stdout)}
    assert results == {"guest-0": "done", "guest-2": "failed"}


def test_a_resize_to_nothing_and_a_size_that_is_none_are_refused(adopted):
    assert "--vcpus, --memory-mib or --disk-gib" in refused(
        adopted, "instance", "resize", "guest-0"
    )
    for size in ("many", "0"):
        done = adopted.run("instance", "resize", "guest-0", "--vcpus", size, check=False)
        assert done.returncode == 2
        assert f"--vcpus: {size!r} is not a whole number above 0" in done.stderr


def test_what_destroys_asks_first_and_takes_silence_for_no(adopted):
    before = adopted.rows("instance", "list")
    for verb in ("delete", "offload", "confirm-resize", "reboot", "shelve"):
        done = adopted.run("instance", verb, "guest-0", check=False)
        assert done.returncode == 1
        assert "guest-0" in done.stdout
        assert "Nothing was done; answer yes, or give --yes." in done.stderr
    assert adopted.rows("instance", "list") == before


def test_an_instance_is_soft_deleted_restored_and_deleted(adopted):
    adopted.rows("instance", "soft-delete", "guest-0")
    assert "soft-delete" in {r["VM state"] for r in adopted.rows("instance", "list")}
    adopted.rows("instance", "restore", "guest-0")
    adopted.rows("instance", "delete", "--yes", "guest-0")
    assert "guest-0" not in {r["Name"] for r in adopted.rows("instance", "list")}


def test_what_destroys_takes_whole_names_only(adopted):
    adopted.rows("instance", "delete", "--yes", "guest-1", "guest-2", "guest-3")
    (before,) = adopted.rows("instance", "list")
    beginning = before["UUID"][:-1]
    assert "is empty" in refused(adopted, "instance", "delete", "--yes", "")
    assert before["UUID"] in refused(adopted, "instance", "delete", "--yes", beginning)
    assert adopted.rows("instance", "list") == [before]
    adopted.rows("instance", "stop", beginning)


def test_an_instance_of_another_host_is_refused(adopted):
    adopted.conf.write_text(adopted.conf.read_text().replace("host = host1", "host = host2"))
    line = refused(adopted, "instance", "delete", "--yes", "guest-0")
    assert "is on host1; this host is host2" in line


def test_an_offloaded_instance_is_named_with_how_it_comes_back(adopted):
    path = adopted.path / "cepheid.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as inventory, inventory:
        inventory.execute(
            "UPDATE instances SET host = NULL, vm_state = 'shelved_offloaded'"
            " WHERE display_name = 'guest-0'"
        )
    line = refused(adopted, "instance", "delete", "--yes", "guest-0")
    assert "is on no host since it was offloaded" in line
    assert "cepheid instance unshelve" in line


def test_a_resize_that_nobody_asked_for_is_not_confirmed(adopted):
    line = refused(adopted, "instance", "confirm-resize", "--yes", "guest-0")
    assert "no resize of it waits" in line


def test_single_domains_are_adopted_by_name(host):
    host.run("db", "sync")
    assert "1 domain adopted" in host.run("instance", "adopt", "guest-1").stderr
    assert [row["Name"] for row in host.rows("instance", "list")] == ["guest-1"]
    assert "no domain guest-9" in refused(host, "instance", "adopt", "guest-9")


# Pauses and the audit of the journal.


def test_a_task_is_paused_and_resumed(host):
    said = host.run("pause", "sync_power_states", "--for", "2h", "--reason", "a new  switch")
    assert said.stdout.startswith("sync_power_states: paused by ")
    assert said.stdout.endswith(" UTC: a new switch\n")
    shown = json.loads(host.run("task", "show", "sync_power_states", "-f", "json").stdout)
    assert (shown["state"], shown["reason"][:10]) == ("paused", "paused by ")
    states = {row["Name"]: row["State"] for row in host.rows("task", "list")}
    assert states["sync_power_states"] == "paused"
    assert states["check_instance_build_time"] == "enabled"
    assert host.run("resume", "sync_power_states").stdout.startswith("sync_power_states: resumed")
    assert [row["Outcome"] for row in host.rows("task", "history")] == ["pause", "resume"]
    assert [row["Task"] for row in host.rows("task", "history", "sync_power_states")] == [
        "sync_power_states"
    ] * 2


@pytest.mark.parametrize(
    ("task", "consequence"),
    [
        ([], "no task of this host runs by itself until 'cepheid resume'."),
        (["sync_power_states"],
         "sync_power_states does not run by itself until 'cepheid resume sync_power_states'."),
    ],
)  # fmt: skip
def test_who_gives_a_pause_no_end_is_told_what_ends_it(host, task, consequence):
    said = host.run("pause", *task)
    assert said.stdout.endswith(" until resumed\n")
    again = " ".join(["cepheid pause", *task, "--for 2h"])
    assert said.stderr == (f"This pause has no end: {consequence}\nTo give it an end: '{again}'.\n")
    assert host.run("pause", *task, "--for", "2h").stderr == ""
    ended = host.run("resume", *task).stdout
    assert "; was paused by " in ended
    assert "until resumed" not in ended


def test_a_pause_of_all_leaves_those_by_name_when_it_ends(host):
    host.run("pause", "sync_power_states")
    assert host.run("pause", "--until", "2099-01-01T00:00Z").stdout.startswith("All tasks are pau")
    states = {row["State"] for row in host.rows("task", "list") if row["State"] != "disabled"}
    assert states == {"paused"}
    done = host.run("resume")
    assert done.stdout.startswith("All tasks: resumed; was paused by ")
    assert "Still paused: sync_power_states, paused by " in done.stderr
    line = refused(host, "resume")
    assert line == ("cepheid: There is no pause of all tasks; paused by name: sync_power_states.")


def test_a_task_is_not_resumed_out_of_a_pause_of_all(host):
    host.run("pause")
    line = refused(host, "resume", "sync_power_states")
    assert "sync_power_states is not paused by itself, but all tasks are paused by " in line
    host.run("resume")
    assert "sync_power_states is not paused." in refused(host, "resume", "sync_power_states")


def test_a_pause_that_cannot_be_is_refused(host):
    assert "'2x' is not a duration" in refused(host, "pause", "--for", "2x")
    assert "'soon' is not a time" in refused(host, "pause", "--until", "soon")
    assert "'2020-01-01' is over" in refused(host, "pause", "--until", "2020-01-01")
    assert "no task 'sync'" in refused(host, "pause", "sync")
    assert host.rows("task", "history") == []


def test_a_paused_task_is_run_by_hand_only_if_it_is_forced(adopted):
    adopted.run("pause", "--reason", "a new switch")
    line = refused(adopted, "task", "run", "sync_power_states")
    assert "sync_power_states is not run: all tasks are paused by " in line
    assert "--force" in line
    adopted.rows("task", "run", "sync_power_states", "--dry-run")
    adopted.rows("task", "run", "sync_power_states", "--force")


def test_a_journal_is_verified_and_what_was_edited_is_named(adopted):
    adopted.rows("task", "run", "sync_power_states")
    noted = adopted.run("audit", "head").stdout.strip()
    shown = json.loads(adopted.run("audit", "verify", "--expect", noted, "-f", "json").stdout)
    assert (shown["result"], shown["expected"], shown["head"]) == ("intact", "in the chain", noted)
    connection = sqlite3.connect(adopted.path / "cepheid-journal.sqlite")
    connection.execute("UPDATE runs SET task = 'other' WHERE task = 'sync_power_states'")
    connection.commit()
    connection.close()
    line = refused(adopted, "audit", "verify")
    assert "is not as it was written: run " in line
    assert "was edited after it was sealed" in line


def test_a_seal_that_is_not_in_the_chain_is_named(adopted):
    adopted.rows("task", "run", "sync_power_states")
    line = refused(adopted, "audit", "verify", "--expect", f"1:{'0' * 64}")
    assert f"seal 1:{'0' * 64} is not in its chain" in line
    assert "is not a seal" in refused(adopted, "audit", "verify", "--expect", "1:0")


def test_without_a_journal_there_is_nothing_to_verify(host):
    for words in (("audit", "verify"), ("audit", "head")):
        assert "There is no journal" in refused(host, *words)


# Before an upgrade.


def upgrade_check(host, *words):
    done = host.run("upgrade", "check", *words, check=False)
    assert "Traceback" not in done.stderr + done.stdout
    return done


def test_a_host_that_is_ready_for_an_upgrade_is_told_so(adopted):
    done = upgrade_check(adopted)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Result: Success") == 8


def test_an_upgrade_check_says_what_is_doubtful_and_what_stops_it(host):
    host.conf.write_text(host.conf.read_text() + "[sync_power_states]\nspacings = 3\n")
    done = upgrade_check(host, "--json")
    assert done.returncode == 2
    results = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert results["configuration"]["result"] == 1
    assert "[sync_power_states] spacings" in results["configuration"]["details"]
    assert results["database"]["result"] == 2
    assert results["hypervisor"]["result"] == 0
    host.run("db", "sync")
    assert upgrade_check(host).returncode == 1


def test_an_upgrade_check_leaves_an_earlier_journal_as_it_is(adopted):
    path = adopted.path / "cepheid-journal.sqlite"
    adopted.run("resume", check=False)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert upgrade_check(adopted).returncode == 0
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()


def test_an_upgrade_check_that_cannot_be_made_is_no_result(host):
    host.conf.write_text(host.conf.read_text().replace("host = host1", "native_workers = few"))
    done = upgrade_check(host)
    assert done.returncode == 255
    assert "native_workers" in done.stderr


# Mistakes.


def test_an_unknown_task_is_named(host):
    for words in (("task", "show", "sync"), ("task", "run", "sync"), ("task", "history", "sync")):
        assert "no task 'sync'; 'cepheid task list'" in refused(host, *words)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("history", {"task history"}),
        ("histroy", {"task history"}),
        ("adopt", {"host adopt", "instance adopt"}),
        ("statsu", {"status", "notifications status"}),
        ("xyzzy", set()),
    ],
)
def test_an_unknown_command_names_those_that_have_the_word(word, meant):
    assert set(App().get_fuzzy_matches(word)) == meant


@pytest.mark.parametrize(("word", "what"), [("xyzzy", "command"), ("--dry", "option")])
def test_what_is_no_command_is_named_with_where_they_are(host, word, what):
    line = refused(host, word)
    assert line == f"cepheid: There is no {what} {word!r}; 'cepheid --help' shows those there are."


def test_the_nearest_task_is_named():
    said = str(
        errors.NoSuchTask("poll_bandwith_usage", ["poll_volume_usage", "poll_bandwidth_usage"])
    )
    assert (
        "There is no task 'poll_bandwith_usage'; the nearest name is 'poll_bandwidth_usage';"
        in said
    )
    assert "nearest" not in str(errors.NoSuchTask("xyzzy", ["poll_bandwidth_usage"]))


def test_a_malformed_option_is_named_with_its_file(host):
    host.conf.write_text(host.conf.read_text() + "[sync_power_states]\nspacing = often\n")
    for words in (("task", "list"), ("agent",)):
        line = refused(host, *words)
        assert f"[sync_power_states] spacing in {host.conf}" in line
        assert "'often'" in line


def test_a_missing_configuration_file_is_named(host):
    host.conf = host.path / "missing.conf"
    assert "missing.conf cannot be read" in refused(host, "task", "list")


def test_a_database_that_is_not_there_is_named_and_not_made(host):
    for words in (("instance", "list"), ("host", "adopt"), ("agent",)):
        assert "run 'cepheid db sync'" in refused(host, *words)
    assert not (host.path / "cepheid.sqlite").exists()


def test_a_database_that_is_not_migrated_is_named(host):
    (host.path / "cepheid.sqlite").touch()
    for words in (("instance", "list"), ("agent",)):
        assert "run 'cepheid db sync'" in refused(host, *words)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("missing/inventory.sqlite", "See that its directory is there"), ("text", "put a backup")],
)
def test_a_database_file_that_cannot_be_used_is_named_with_what_to_do(host, name, remedy):
    (host.path / "text").write_text("This is no database.\n")
    host.conf.write_text(
        host.conf.read_text() + f"[database]\nconnection = sqlite:///{host.path}/{name}\n"
    )
    line = refused(host, "db", "sync")
    assert name in line
    assert remedy in line
    assert "server" not in line


def test_a_database_server_that_does_not_answer_is_named_without_its_password(host):
    host.conf.write_text(
        host.conf.read_text()
        + "[database]\nconnection = mysql+pymysql://cepheid:secret@127.0.0.1:1/nova\n"
    )
    line = refused(host, "instance", "list")
    assert "mysql+pymysql://cepheid:***@127.0.0.1:1/nova does not answer" in line
    assert "secret" not in line


def test_a_database_url_that_is_none_is_named(host):
    host.conf.write_text(host.conf.read_text() + "[database]\nconnection = nonsense\n")
    assert "[database] connection is not a database URL" in refused(host, "instance", "list")


def test_a_hypervisor_that_does_not_answer_is_named(adopted):
    (adopted.path / "node.xml").write_text("<node")
    for words in (("task", "run", "sync_power_states"), ("agent",)):
        done = adopted.run(*words, check=False)
        assert done.returncode == 1
        assert "node.xml does not answer" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_enabled_task_that_nobody_provides_is_an_error_at_start(adopted):
    adopted.conf.write_text(
        adopted.conf.read_text().replace("[hypervisor]", "enabled_tasks = sync_power\n[hypervisor]")
    )
    assert "enabled_tasks names the task 'sync_power'" in refused(adopted, "agent")
    # The list that it refers to is there.
    done = adopted.run("task", "list", "-f", "json", check=False)
    assert done.returncode == 1
    assert "enabled_tasks names the task 'sync_power'" in done.stderr
    assert "sync_power_states" in [row["Name"] for row in json.loads(done.stdout)]


def test_a_state_path_that_cannot_be_made_is_named(host):
    host.conf.write_text("[DEFAULT]\nstate_path = /proc/nothing\n")
    assert "state_path = /proc/nothing cannot be made" in refused(host, "instance", "list")


def test_a_plugin_that_cannot_load_is_listed_with_its_reason(host, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    distributions = Distributions(site)
    distributions.add_task("acme", "broken", "import missing_library\n")
    distributions.remove()
    host.environment = {**os.environ, "PYTHONPATH": str(site)}
    host.conf.write_text(
        host.conf.read_text().replace("[hypervisor]", "enabled_tasks = *\n[hypervisor]")
    )
    rows = {row["Name"]: row for row in host.rows("task", "list")}
    assert rows["broken"]["State"] == "failed"
    assert "missing_library is missing" in rows["broken"]["Reason"]
    assert rows["sync_power_states"]["State"] == "enabled"
    line = refused(host, "task", "run", "broken")
    assert "The task broken of acme 1.0 cannot be used" in line
