# SPDX-License-Identifier: Apache-2.0
"""sync_power_states: the whole table, the reference's cases, faults and cost."""

import itertools

import pytest

from cepheid_plugins.compute import power_state, vm_states
from cepheid_plugins.compute.power_policy import Action, action_to_enforce, vm_state_to_follow
from cepheid_plugins.database import models
from cepheid_plugins.hypervisor.driver import HypervisorError
from cepheid_plugins.tasks.sync_power_states import SyncPowerStates
from tests.worlds import World, fake_world, uuid_of

NOSTATE, RUNNING, PAUSED, SHUTDOWN, CRASHED, SUSPENDED = STATES = (0, 1, 3, 4, 6, 7)
DB_STATES = (None, *STATES)

#: Policy enforce. Columns: the guest is NOSTATE, RUNNING, PAUSED, SHUTDOWN, CRASHED, SUSPENDED.
ENFORCE = """
    active             warn -          warn       again  again  stop
    stopped            -    force_stop force_stop -      -      force_stop
    paused             -    -          -          force_stop force_stop -
    soft-delete        -    warn       warn       -      warn   warn
    deleted            -    warn       warn       -      warn   warn
    building           -    -          -          -      -      -
    rescued            -    -          -          -      -      -
    resized            -    -          -          -      -      -
    suspended          -    -          -          -      -      -
    error              -    -          -          -      -      -
    shelved            -    -          -          -      -      -
    shelved_offloaded  -    -          -          -      -      -
"""

#: Policy follow: the vm_state after it, in the same columns.
FOLLOW = """
    active             - active paused stopped stopped -
    stopped            - active paused stopped stopped -
    paused             - active paused stopped stopped -
    suspended          - active paused -       -       -
    soft-delete        - -      -      -       -       -
    deleted            - -      -      -       -       -
    building           - -      -      -       -       -
    rescued            - -      -      -       -       -
    resized            - -      -      -       -       -
    error              - -      -      -       -       -
    shelved            - -      -      -       -       -
    shelved_offloaded  - -      -      -       -       -
"""

ACTIONS = {
    "-": Action.NOTHING,
    "warn": Action.WARN,
    "again": Action.STOP_IF_STILL_OFF,
    "stop": Action.STOP,
    "force_stop": Action.FORCE_STOP,
}


def table(text):
    """Return the cells of a written-out table by (vm_state, power state)."""
    cells = {}
    for line in text.strip().splitlines():
        vm_state, *row = line.split()
        cells |= {(vm_state, state): cell for state, cell in zip(STATES, row, strict=True)}
    return cells


@pytest.mark.parametrize(("vm_state", "state"), list(itertools.product(vm_states.ALL, STATES)))
def test_the_decision_to_enforce(vm_state, state):
    assert action_to_enforce(vm_state, state) == ACTIONS[table(ENFORCE)[vm_state, state]]


@pytest.mark.parametrize(("vm_state", "state"), list(itertools.product(vm_states.ALL, STATES)))
def test_the_decision_to_follow(vm_state, state):
    wanted = table(FOLLOW)[vm_state, state]
    assert vm_state_to_follow(vm_state, state) == (vm_state if wanted == "-" else wanted)


@pytest.mark.parametrize("state", STATES)
def test_an_unknown_or_null_vm_state_is_left_alone(state):
    for vm_state in (None, "somethingelse"):
        assert action_to_enforce(vm_state, state) == Action.NOTHING
        assert vm_state_to_follow(vm_state, state) == vm_state


@pytest.fixture
def make(tmp_path):
    """Make a world of fake domains and the task in it."""
    made = []

    def make(states, **options):
        world = fake_world(tmp_path, states, **options)
        made.append(world)
        return world, world.agent.build(SyncPowerStates)

    yield make
    for world in made:
        world.close()


def refuse(*arguments):
    """Stand in for a call that the hypervisor refuses."""
    raise HypervisorError("internal error")


def state_of(world, number):
    row = world.row(number)
    return row.vm_state, row.task_state, row.power_state


@pytest.mark.parametrize(
    ("vm_state", "db_state"), list(itertools.product(vm_states.ALL, DB_STATES))
)
def test_the_whole_table_on_a_database(make, vm_state, db_state):
    states = dict(enumerate(STATES))
    world, task = make(states)
    for number in states:
        world.add(number, vm_state=vm_state, power_state=db_state)
    world.agent.run(task)
    for number, state in states.items():
        stops = table(ENFORCE)[vm_state, state] in ("again", "stop", "force_stop")
        if not stops:
            wanted = (vm_state, None, state)
        elif state in (SHUTDOWN, CRASHED):  # off already: it stays as it went
            wanted = ("stopped", None, state)
        else:
            wanted = ("stopped", None, SHUTDOWN)
        assert state_of(world, number) == wanted


def test_nothing_is_saved_where_all_agrees(make):
    world, task = make({1: RUNNING})
    world.add(1)
    run = world.agent.run(task)
    assert run.changes == []
    assert world.row(1).updated_at is None


def test_an_active_instance_whose_guest_shut_down_is_stopped(make):
    world, task = make({1: SHUTDOWN})
    world.add(1)
    run = world.agent.run(task)
    assert [(c.kind, c.before, c.after) for c in run.changes] == [
        ("power_state", "running", "shut down"),
        ("stop", "active", "stopped"),
    ]
    assert state_of(world, 1) == ("stopped", None, SHUTDOWN)
    assert world.hypervisor.acts == []  # it was off already


def test_a_guest_that_came_back_before_the_second_look_is_not_stopped(make, monkeypatch):
    world, task = make({1: SHUTDOWN})
    world.add(1)
    look = world.hypervisor.domains
    answers = []

    def look_then_start():
        answers.append(look())
        world.hypervisor.states[uuid_of(1)] = RUNNING
        return answers[-1]

    monkeypatch.setattr(world.hypervisor, "domains", look_then_start)
    world.agent.run(task)
    assert state_of(world, 1) == ("active", None, SHUTDOWN)
    world.agent.run(task)
    assert state_of(world, 1) == ("active", None, RUNNING)


def test_an_active_instance_whose_guest_sleeps_is_stopped_without_asking_again(make):
    world, task = make({1: SUSPENDED})
    world.add(1)
    world.hypervisor.deaf.add(uuid_of(1))
    run = world.agent.run(task)
    assert run.outcome == "ok"
    assert state_of(world, 1) == ("stopped", None, SHUTDOWN)


@pytest.mark.parametrize("state", [PAUSED, NOSTATE])
def test_an_active_instance_that_is_paused_or_stateless_only_gets_its_power_state(make, state):
    world, task = make({1: state})
    world.add(1)
    world.agent.run(task)
    assert state_of(world, 1) == ("active", None, state)


def test_a_stopped_instance_whose_guest_runs_is_powered_off_again(make):
    world, task = make({1: RUNNING})
    world.add(1, vm_state="stopped", power_state=SHUTDOWN)
    world.agent.run(task)
    assert state_of(world, 1) == ("stopped", None, SHUTDOWN)
    assert world.hypervisor.states[uuid_of(1)] == SHUTDOWN


def test_an_instance_with_a_task_state_is_not_looked_at(make):
    world, task = make({1: SHUTDOWN})
    world.add(1, task_state="powering-off")
    run = world.agent.run(task)
    assert run.changes == []
    assert state_of(world, 1) == ("active", "powering-off", RUNNING)


def test_an_instance_without_a_domain_gets_nostate_once_the_hypervisor_says_so(make):
    world, task = make({})
    world.add(1)
    world.agent.run(task)
    assert state_of(world, 1) == ("active", None, NOSTATE)
    assert world.hypervisor.calls["virDomainLookupByUUIDString"] == 1
    world.agent.run(task)
    assert world.hypervisor.calls["virDomainLookupByUUIDString"] == 1


def test_a_domain_that_the_list_left_out_is_not_gone(make):
    world, task = make({1: RUNNING})
    world.add(1)
    world.hypervisor.hidden.add(uuid_of(1))
    run = world.agent.run(task)
    assert run.changes == []
    assert state_of(world, 1) == ("active", None, RUNNING)


def test_an_error_about_one_missing_domain_is_one_bad_row(make, monkeypatch):
    world, task = make({2: SHUTDOWN})
    world.add(1)
    world.add(2, vm_state="error")
    monkeypatch.setattr(world.hypervisor, "power_state", refuse)
    run = world.agent.run(task)
    assert run.outcome == "partial"
    assert run.counters["skipped"] == 1
    assert world.row(1).power_state == RUNNING
    assert world.row(2).power_state == SHUTDOWN


def test_a_domain_that_the_list_left_out_and_in_an_unknown_state_is_one_bad_row(make):
    world, task = make({1: None})
    world.add(1)
    world.hypervisor.hidden.add(uuid_of(1))
    run = world.agent.run(task)
    assert (run.outcome, run.counters["skipped"]) == ("partial", 1)
    assert world.row(1).power_state == RUNNING


def test_three_instances_not_found_running_and_shut_down(make):
    world, task = make({2: RUNNING, 3: SHUTDOWN})
    for number in (1, 2, 3):
        world.add(number, vm_state="error", power_state=None)
    world.agent.run(task)
    assert [world.row(number).power_state for number in (1, 2, 3)] == [0, 1, 4]


def test_a_hypervisor_that_does_not_answer_ends_the_pass_without_a_change(make):
    world, task = make({1: SHUTDOWN})
    world.add(1)
    world.hypervisor.available = False
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("failed", [])
    assert "does not answer" in run.error
    assert state_of(world, 1) == ("active", None, RUNNING)


def test_a_hypervisor_that_goes_away_in_the_middle_leaves_the_rest_as_it_is(make, monkeypatch):
    world, task = make({1: SHUTDOWN})
    world.add(1)
    look = world.hypervisor.domains

    def look_once():
        found = look()
        world.hypervisor.available = False
        return found

    monkeypatch.setattr(world.hypervisor, "domains", look_once)
    run = world.agent.run(task)
    assert run.outcome == "failed"
    assert state_of(world, 1) == ("active", None, SHUTDOWN)


def test_a_database_that_does_not_answer_ends_the_pass(make, monkeypatch):
    world, task = make({1: SHUTDOWN})
    (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
    run = world.agent.run(task)
    assert run.outcome == "failed"
    assert "cepheid db sync" in run.error
    assert world.hypervisor.calls.total() == 0


def test_an_instance_that_moved_away_meanwhile_is_left_alone(make, monkeypatch):
    world, task = make({1: RUNNING})
    world.add(1, vm_state="stopped", power_state=SHUTDOWN)
    look = world.hypervisor.domains

    def look_then_move():
        found = look()
        world.update(1, host="host2", vm_state="active")
        return found

    monkeypatch.setattr(world.hypervisor, "domains", look_then_move)
    run = world.agent.run(task)
    assert {change.outcome for change in run.changes} == {"raced"}
    assert world.hypervisor.acts == []
    assert state_of(world, 1) == ("active", None, SHUTDOWN)


def test_an_instance_that_somebody_acts_on_meanwhile_is_left_alone(make, monkeypatch):
    world, task = make({1: RUNNING})
    world.add(1, vm_state="stopped", power_state=SHUTDOWN)
    look = world.hypervisor.domains

    def look_then_start():
        found = look()
        world.update(1, task_state="powering-on")
        return found

    monkeypatch.setattr(world.hypervisor, "domains", look_then_start)
    world.agent.run(task)
    assert world.hypervisor.acts == []
    assert state_of(world, 1) == ("stopped", "powering-on", SHUTDOWN)


def test_soft_deleted_instances_get_their_power_state_and_nothing_else(make):
    world, task = make({1: RUNNING, 2: SHUTDOWN})
    world.add(1, vm_state="soft-delete", power_state=SHUTDOWN)
    world.add(2, vm_state="soft-delete")
    world.agent.run(task)
    assert state_of(world, 1) == ("soft-delete", None, RUNNING)
    assert state_of(world, 2) == ("soft-delete", None, SHUTDOWN)


def test_a_shelved_instance_that_runs_only_gets_its_power_state(make):
    world, task = make({1: RUNNING})
    world.add(1, vm_state="shelved", power_state=SHUTDOWN)
    world.agent.run(task)
    assert state_of(world, 1) == ("shelved", None, RUNNING)


def test_an_instance_never_launched_is_not_stopped_as_a_user_could_not(make):
    world, task = make({1: SHUTDOWN})
    world.add(1, launched_at=None)
    run = world.agent.run(task)
    assert run.outcome == "partial"
    assert "launched_at" in run.changes[-1].error
    assert state_of(world, 1) == ("active", None, SHUTDOWN)


def test_shutdown_terminate_neither_deletes_nor_stops(make):
    world, task = make({1: SHUTDOWN})
    world.add(1, shutdown_terminate=True)
    world.agent.run(task)
    assert state_of(world, 1) == ("active", None, SHUTDOWN)


def test_a_domain_in_an_unknown_state_is_one_bad_row(make):
    world, task = make({1: None, 2: SHUTDOWN})
    world.add(1)
    world.add(2, vm_state="error")
    run = world.agent.run(task)
    assert run.outcome == "partial"
    assert world.row(1).power_state == RUNNING
    assert world.row(2).power_state == SHUTDOWN


def test_a_warning_is_said_once_while_its_cause_lasts_and_once_when_it_ends(make, caplog):
    world, task = make({1: PAUSED})
    world.add(1)
    caplog.set_level("INFO", "cepheid.sync_power_states")
    for _ in range(3):
        world.agent.run(task)
    (said,) = caplog.messages
    assert uuid_of(1) in said
    assert "paused" in said
    caplog.clear()
    world.hypervisor.states[uuid_of(1)] = RUNNING
    for _ in range(2):
        world.agent.run(task)
    (ended,) = caplog.messages
    assert ended == f"Over: {said}"


def test_more_domains_than_instances_is_a_warning_and_nothing_else(make, caplog):
    world, task = make({1: RUNNING, 2: RUNNING})
    world.add(1)
    run = world.agent.run(task)
    assert (run.outcome, run.changes) == ("ok", [])
    (said,) = caplog.messages
    assert "1 instances" in said
    assert "2 domains" in said


def test_all_candidates_are_looked_at_again_in_one_call(make):
    world, task = make(dict.fromkeys(range(9), SHUTDOWN))
    world.add_many(range(9), shutdown_terminate=True)
    world.agent.run(task)
    assert world.hypervisor.calls == {"virConnectGetAllDomainStats": 2}


@pytest.mark.parametrize("vm_state", vm_states.ALL)
def test_the_whole_table_of_follow_on_a_database(make, vm_state):
    world, task = make(dict(enumerate(STATES)))
    world.agent.set(task.name, policy="follow")
    world.add_many(range(len(STATES)), vm_state=vm_state, power_state=None)
    world.agent.run(task)
    for number, state in enumerate(STATES):
        wanted = table(FOLLOW)[vm_state, state]
        assert state_of(world, number) == (vm_state if wanted == "-" else wanted, None, state)
    assert world.hypervisor.acts == []


def test_a_row_that_moved_on_does_not_follow(make, monkeypatch):
    world, task = make({1: SHUTDOWN, 2: SHUTDOWN})
    world.agent.set(task.name, policy="follow")
    world.add_many([1, 2])
    look = world.hypervisor.domains

    def look_then_rescue():
        found = look()
        world.update(1, vm_state="rescued")
        return found

    monkeypatch.setattr(world.hypervisor, "domains", look_then_rescue)
    run = world.agent.run(task)
    assert run.counters == {"instances": 2, "raced": 2, "done": 2}
    assert state_of(world, 1) == ("rescued", None, RUNNING)
    assert state_of(world, 2) == ("stopped", None, SHUTDOWN)


def test_follow_takes_the_guests_word_and_stops_nothing(make):
    world, task = make({1: SHUTDOWN, 2: RUNNING, 3: PAUSED})
    world.agent.set(task.name, policy="follow")
    world.add(1)
    world.add(2, vm_state="stopped", power_state=SHUTDOWN)
    world.add(3)
    world.agent.run(task)
    assert state_of(world, 1) == ("stopped", None, SHUTDOWN)
    assert state_of(world, 2) == ("active", None, RUNNING)
    assert state_of(world, 3) == ("paused", None, PAUSED)
    assert world.hypervisor.acts == []


def test_the_dry_run_changes_nothing(make):
    world, task = make({1: SHUTDOWN, 2: RUNNING})
    world.add(1)
    world.add(2, vm_state="stopped", power_state=SHUTDOWN)
    run = world.agent.run(task, dry_run=True)
    assert {change.kind for change in run.changes} == {"power_state", "stop", "force_stop"}
    assert {change.outcome for change in run.changes} == {"planned"}
    assert world.hypervisor.acts == []
    assert state_of(world, 1) == ("active", None, RUNNING)
    assert state_of(world, 2) == ("stopped", None, SHUTDOWN)


@pytest.mark.parametrize("count", [10, 1000])
def test_a_steady_pass_costs_one_statement_and_one_call(tmp_path, count):
    world = World(tmp_path, states=[power_state.RUNNING] * count)
    task = world.agent.build(SyncPowerStates)
    world.add_many(range(count))
    world.hypervisor.check()  # connecting is not part of a pass
    calls = world.hypervisor.calls.copy()
    run = world.agent.run(task)
    assert run.counters == {"instances": count}
    assert world.statements() == 1
    assert world.hypervisor.calls - calls == {"virConnectGetAllDomainStats": 1}
    world.close()


def test_when_all_differ_the_writes_are_batched(tmp_path):
    world = World(tmp_path, states=[power_state.PAUSED] * 1000)
    task = world.agent.build(SyncPowerStates)
    world.add_many(range(1000))
    run = world.agent.run(task)
    assert run.counters["done"] == 1000
    assert world.statements() == 1 + 2 * 2  # two batches: the rows are locked, then written
    world.close()


def test_when_all_must_be_stopped_that_is_batched(make):
    world, task = make(dict.fromkeys(range(400), SHUTDOWN))
    world.add_many(range(400))
    run = world.agent.run(task)
    assert run.counters["done"] == 800
    assert world.hypervisor.calls["virConnectGetAllDomainStats"] == 4
    assert world.statements() < 20


def test_says_how_many_were_stopped_one_kind_after_the_other(make, reports):
    world, task = make({1: SHUTDOWN, 2: SHUTDOWN, 3: RUNNING})
    world.add_many([1, 2])
    world.add(3, vm_state="stopped")
    world.agent.run(task)
    assert reports == [(0, 2), (2, 2), (2, 3), (2, 3), (3, 3)]


def test_nova_conf_sets_the_spacing(make):
    settings = "sync_power_state_interval = 120\n"
    _, task = make({}, settings=settings)
    assert task.conf.spacing == 120


def test_the_sequence_on_the_test_driver(tmp_path):
    world = World(tmp_path, states=[SHUTDOWN, RUNNING, PAUSED, CRASHED, RUNNING])
    task = world.agent.build(SyncPowerStates)
    for number in range(4):
        world.add(number)
    world.add(4, vm_state="stopped", power_state=SHUTDOWN)
    world.agent.run(task)
    assert [state_of(world, number) for number in range(5)] == [
        ("stopped", None, SHUTDOWN),
        ("active", None, RUNNING),
        ("active", None, PAUSED),
        ("stopped", None, CRASHED),
        ("stopped", None, SHUTDOWN),
    ]
    assert world.hypervisor.power_state(uuid_of(4)) == SHUTDOWN
    assert world.agent.run(task).changes == []
    world.close()


def test_a_stop_leaves_an_action_with_its_event(make):
    world, task = make({1: SHUTDOWN})
    world.add(1)
    run = world.agent.run(task)
    (action,) = world.rows(models.instance_actions)
    (event,) = world.rows(models.instance_actions_events)
    assert (action.action, action.instance_uuid) == ("stop", uuid_of(1))
    assert action.request_id == run.request_id
    assert (action.user_id, action.project_id, action.message) == (None, None, None)
    assert (event.event, event.result, event.host) == ("compute_stop_instance", "Success", "host1")
    assert event.action_id == action.id
    assert event.finish_time is not None
