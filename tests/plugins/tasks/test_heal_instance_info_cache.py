# SPDX-License-Identifier: Apache-2.0
"""heal_instance_info_cache: the cases of the behaviour reference."""

import json

import pytest
import sqlalchemy as sa

from cepheid.explanation import Kind
from cepheid_plugins.database import models
from cepheid_plugins.network import network_info
from cepheid_plugins.network.driver import NetworkError, NetworkUnavailable
from cepheid_plugins.tasks.heal_instance_info_cache import HealInstanceInfoCache
from tests.explained import ask, instance
from tests.fakes import FakeNetwork
from tests.worlds import fake_world, uuid_of


@pytest.fixture
def world(tmp_path):
    """Eight instances: the first is building, the second is being deleted."""
    world = fake_world(tmp_path, {})
    world.network = FakeNetwork()
    world.agent.drivers.use("network", world.network)
    for number in range(8):
        add(world, number)
    world.update(0, vm_state="building")
    world.update(1, task_state="deleting")
    yield world
    world.close()


def add(world, number, cached="[]"):
    world.add(number)
    world.network.vifs[uuid_of(number)] = [vif(number)]
    with world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.instance_info_caches).values(
                instance_uuid=uuid_of(number), network_info=cached, deleted=0
            )
        )


def vif(number, address=None):
    ips = [network_info.ip(address or f"10.0.0.{number + 1}")]
    network = network_info.network(
        "net-1", "private", "br-int", [network_info.subnet("10.0.0.0/24", ips)], {}
    )
    return network_info.vif(f"port-{number}", f"fa:16:3e:00:00:{number:02x}", network=network)


@pytest.fixture
def task(world):
    return world.agent.build(HealInstanceInfoCache)


def cached(world, number):
    for row in world.rows(models.instance_info_caches):
        if row.instance_uuid == uuid_of(number):
            return network_info.parsed(row.network_info)
    return None


def looked_up(world):
    """Return the numbers of those that were looked up since the last time."""
    found = [int(uuid[-4:], 16) for uuid in world.network.looked_up]
    world.network.looked_up.clear()
    return found


# Rounds.


def test_one_pass_heals_one_instance_of_the_host(world, task):
    run = world.agent.run(task)
    assert looked_up(world) == [2]
    assert cached(world, 2) == [vif(2)]
    assert cached(world, 3) == []
    (change,) = run.changes
    assert (change.target, change.before, change.outcome) == (uuid_of(2), [], "done")
    assert change.after == ["fa:16:3e:00:00:02 10.0.0.3"]


def test_a_round_asks_for_the_hosts_instances_once(world, task, monkeypatch):
    asked = []
    for name in ("instances_on_host", "info_caches"):
        function = getattr(world.database, name)
        monkeypatch.setattr(
            world.database, name, lambda *a, n=name, f=function: asked.append(n) or f(*a)
        )
    world.agent.run(task)
    assert asked == ["instances_on_host", "info_caches"]
    world.agent.run(task)
    assert asked == ["instances_on_host", "info_caches", "info_caches"]
    assert looked_up(world) == [2, 3]


def test_those_that_left_or_go_are_passed_over_in_the_same_pass(world, task):
    world.agent.run(task)
    world.agent.run(task)
    looked_up(world)
    world.update(4, host="host2")
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances).where(models.instances.c.uuid == uuid_of(5)))
    world.update(6, task_state="deleting")
    world.agent.run(task)
    assert looked_up(world) == [7]


def test_where_only_building_and_deleting_ones_are_left_nothing_is_healed(world, task):
    for number in range(2, 8):
        world.update(number, deleted=number + 1)
    world.agent.run(task)
    for _ in range(2):
        world.database.statements.clear()
        assert world.agent.run(task).counters == {}
        assert world.statements() == 1
    assert looked_up(world) == []


def test_a_building_one_is_left_out_of_a_new_round_only(world, task):
    world.agent.run(task)
    world.update(3, vm_state="building")
    world.agent.run(task)
    assert looked_up(world) == [2, 3]


def test_all_are_healed_in_turn_and_then_again(world, task):
    for _ in range(7):
        world.agent.run(task)
    assert looked_up(world) == [2, 3, 4, 5, 6, 7, 2]


def test_more_are_healed_in_a_pass_where_that_is_wanted(world, task):
    world.agent.set(task.name, instances_per_run=4)
    world.agent.run(task)
    assert looked_up(world) == [2, 3, 4, 5]
    world.agent.run(task)
    assert looked_up(world) == [6, 7]


def test_says_how_many_were_looked_up(world, task, reports):
    world.agent.set(task.name, instances_per_run=6, calls_per_minute=4)
    world.agent.run(task)
    assert reports == [(done, 6) for done in range(5)]
    reports.clear()
    world.clock.sleep(60)
    world.agent.run(task)
    assert reports == [(0, 2), (1, 2), (2, 2)]


def test_the_calls_of_a_minute_are_bounded_and_the_rest_comes_later(world, task):
    world.agent.set(task.name, instances_per_run=6, calls_per_minute=2)
    run = world.agent.run(task)
    assert run.counters["put_back"] == 4
    assert looked_up(world) == [2, 3]
    world.clock.sleep(59)
    world.agent.run(task)
    assert looked_up(world) == []
    world.clock.sleep(1)
    world.agent.run(task)
    assert looked_up(world) == [4, 5]


# One instance.


def test_d12_an_emptied_cache_is_healed_from_the_network(world, task):
    world.agent.run(task)
    with world.engine.begin() as connection:
        connection.execute(sa.update(models.instance_info_caches).values(network_info=None))
    for _ in range(6):
        world.agent.run(task)
    assert cached(world, 2) == [vif(2)]


def test_what_agrees_is_not_written(world, task):
    with world.engine.begin() as connection:
        connection.execute(
            sa.update(models.instance_info_caches).values(network_info=json.dumps([vif(2)]))
        )
    assert world.agent.run(task).changes == []


@pytest.mark.parametrize(
    "text",
    [
        "{broken",
        "5",
        '[{"address": 5, "id": "a"}]',
        '[{"address": "fa:16:3e:00:00:02"}]',
        '[{"address": "fa:16:3e:00:00:02", "id": "a", "network": "private"}]',
        '[{"address": "fa:16:3e:00:00:02", "id": "a", "network": {"subnets": [{"ips": [5]}]}}]',
    ],
)
def test_a_cache_that_cannot_be_read_is_written_anew(world, task, text):
    with world.engine.begin() as connection:
        connection.execute(sa.update(models.instance_info_caches).values(network_info=text))
    world.agent.run(task)
    assert cached(world, 2) == [vif(2)]


def test_only_the_cache_is_written(world, task):
    before = world.row(2)
    world.agent.run(task)
    assert world.row(2) == before


def test_a_cache_that_somebody_wrote_meanwhile_is_left_alone(world, task, monkeypatch):
    look_up = world.network.look_up

    def write_and_look_up(*arguments):
        with world.engine.begin() as connection:
            connection.execute(
                sa.update(models.instance_info_caches).values(network_info=json.dumps([vif(9)]))
            )
        return look_up(*arguments)

    monkeypatch.setattr(world.network, "look_up", write_and_look_up)
    assert world.agent.run(task).counters["raced"] == 1
    assert cached(world, 2) == [vif(9)]


def test_a_missing_cache_is_one_bad_row(world, task):
    with world.engine.begin() as connection:
        connection.execute(sa.delete(models.instance_info_caches))
    assert world.agent.run(task).counters == {"instances": 1, "skipped": 1}
    world.agent.run(task)
    assert looked_up(world) == []


# Ports that are bound elsewhere.


def test_ports_bound_elsewhere_are_bound_here_and_then_looked_up_again(world, task):
    world.network.misbound[uuid_of(2)] = {"port-2": "it is bound to host2"}
    run = world.agent.run(task)
    assert world.network.bound == [uuid_of(2)]
    assert looked_up(world) == [2, 2]
    assert [(c.kind, c.outcome) for c in run.changes] == [
        ("rebind", "done"),
        ("network_info", "done"),
    ]


def test_while_somebody_works_on_the_instance_its_ports_are_left_where_they_are(world, task):
    world.update(2, task_state="migrating")
    world.network.misbound[uuid_of(2)] = {"port-2": "it is bound to host2"}
    world.agent.run(task)
    assert world.network.bound == []
    assert cached(world, 2) == [vif(2)]


# Faults, cost, dry run.


def test_one_that_fails_does_not_end_the_pass_and_the_next_comes_next(world, task):
    world.network.failures[uuid_of(2)] = NetworkError("Neutron answered 500")
    assert world.agent.run(task).counters == {"instances": 1, "calls": 1, "skipped": 1}
    world.agent.run(task)
    assert looked_up(world) == [2, 3]


def test_a_network_service_that_is_away_ends_the_pass_and_keeps_the_round(world, task):
    world.agent.set(task.name, instances_per_run=3)
    world.network.failures[uuid_of(3)] = NetworkUnavailable("Neutron does not answer")
    run = world.agent.run(task)
    assert (run.outcome, run.error) == ("failed", "Neutron does not answer")
    assert looked_up(world) == [2, 3]
    world.agent.run(task)
    assert looked_up(world) == [4, 5, 6]


def test_a_dry_run_puts_back_what_it_could_not_look_up(world, task):
    world.agent.set(task.name, instances_per_run=3, calls_per_minute=1)
    run = world.agent.run(task, dry_run=True)
    assert (looked_up(world), run.counters["put_back"]) == ([2], 2)
    world.clock.sleep(60)
    world.agent.run(task)
    assert looked_up(world) == [3]


# What is asked about out of turn.


def test_who_asks_out_of_turn_leaves_the_round_as_it_is(world, task):
    world.agent.run(task)
    assert [verdict.kind for verdict in said(world, task, 5)] == [Kind.LEAVES, Kind.ACTS]
    assert looked_up(world) == [2, 5]
    world.agent.run(task)
    assert looked_up(world) == [3]


def test_with_no_calls_left_it_says_so_and_leaves_the_round_as_it_is(world, task):
    world.agent.set(task.name, calls_per_minute=1)
    world.agent.run(task)
    verdict = said(world, task, 2)[-1]
    assert (verdict.kind, verdict.rule) == (Kind.UNKNOWN, "calls_per_minute = 1")
    assert looked_up(world) == [2]
    world.clock.sleep(60)
    world.agent.run(task)
    assert looked_up(world) == [3]


def test_where_the_network_is_away_it_says_so_and_leaves_the_round_as_it_is(world, task):
    world.agent.run(task)
    world.network.failures[uuid_of(5)] = NetworkUnavailable("Neutron does not answer")
    verdict = said(world, task, 5)[-1]
    assert (verdict.kind, verdict.text) == (Kind.UNKNOWN, "Neutron does not answer")
    world.agent.run(task)
    assert looked_up(world) == [2, 5, 3]


def said(world, task, number):
    """Return what the task says of an instance; nothing is written for it."""
    return ask(world, task, [instance(uuid_of(number))])[uuid_of(number)]


@pytest.mark.parametrize("count", [10, 1000])
def test_a_pass_costs_the_same_whatever_the_number_of_instances(tmp_path, count):
    world = fake_world(tmp_path, {})
    world.network = FakeNetwork()
    world.agent.drivers.use("network", world.network)
    task = world.agent.build(HealInstanceInfoCache)
    world.add_many(range(1, count))
    add(world, 0)
    with world.engine.begin() as connection:
        connection.execute(
            sa.update(models.instance_info_caches).values(network_info=json.dumps([vif(0)]))
        )
    world.agent.run(task)
    world.database.statements.clear()
    world.agent.run(task)
    assert world.statements() == 1
    assert world.network.calls <= 2
    world.close()


def test_a_database_that_goes_away_in_the_middle_ends_the_pass(world, task, monkeypatch):
    look_up = world.network.look_up

    def lose_the_database(*arguments):
        (world.path / "cepheid.sqlite").rename(world.path / "elsewhere")
        return look_up(*arguments)

    monkeypatch.setattr(world.network, "look_up", lose_the_database)
    run = world.agent.run(task)
    assert run.counters["failed"] == 1
    (world.path / "elsewhere").rename(world.path / "cepheid.sqlite")
    assert cached(world, 2) == []


def test_the_dry_run_plans_and_changes_nothing(world, task):
    world.network.misbound[uuid_of(2)] = {"port-2": "it is bound to host2"}
    run = world.agent.run(task, dry_run=True)
    assert [c.outcome for c in run.changes] == ["planned", "planned"]
    assert world.network.bound == []
    assert cached(world, 2) == []


def test_an_interval_of_zero_does_nothing(world, task):
    world.agent.set(task.name, spacing=0)
    world.agent.run(task)
    assert world.statements() == 0
    assert looked_up(world) == []


def test_beside_nova_only_neutron_knows_the_networks(world, task, caplog, monkeypatch):
    monkeypatch.setattr(world.database, "is_novas", lambda: True)
    monkeypatch.setattr(world.network, "is_of_cloud", False)
    world.agent.run(task)
    assert looked_up(world) == []
    assert "set [network] driver = neutron" in caplog.text


def test_nova_conf_sets_the_spacing(tmp_path):
    world = fake_world(tmp_path, {}, settings="heal_instance_info_cache_interval = 30\n")
    world.agent.drivers.use("network", FakeNetwork())
    assert world.agent.build(HealInstanceInfoCache).conf.spacing == 30
    world.close()
