# SPDX-License-Identifier: Apache-2.0
"""poll_bandwidth_usage on three kinds of databases: its statements, and two agents at once."""

import datetime
import multiprocessing

import pytest
import sqlalchemy as sa

from cepheid_plugins.bandwidth.libvirt_driver import LibvirtMeter
from cepheid_plugins.database import bulk, models
from cepheid_plugins.hypervisor.driver import NetworkCounters
from cepheid_plugins.tasks.poll_bandwidth_usage import PollBandwidthUsage
from tests.fake_agent import FakeAgent
from tests.fakes import FakeHypervisor
from tests.functional.inventories import add_many, open_database, rows
from tests.worlds import uuid_of

pytestmark = pytest.mark.functional

MAC = "fa:16:3e:00:00:01"
NOVEMBER = datetime.datetime(2026, 11, 1)


class Statements:
    """How many statements a server has seen; where it does not tell, how many were sent to it."""

    WORDS = ("select", "insert", "update", "delete")

    def __init__(self, database, engine):
        self._database, self._engine = database, engine

    def __call__(self):
        """Return the statements since the last call, by word."""
        if self._engine.dialect.name == "mysql":
            with self._engine.connect() as connection:
                status = connection.execute(sa.text("SHOW GLOBAL STATUS LIKE 'Com\\_%'"))
                seen = {row.Variable_name: int(row.Value) for row in status}
            found = {word: seen[f"Com_{word}"] for word in self.WORDS}
            before, self._seen = getattr(self, "_seen", dict.fromkeys(self.WORDS, 0)), found
            found = {word: found[word] - before[word] for word in self.WORDS}
        else:
            found = {word: self._database.statements[word.upper()] for word in self.WORDS}
        self._database.statements.clear()
        return {word: number for word, number in found.items() if number}


def make(path, database, count):
    """Return an agent of host1 with so many guests, its task, and its hypervisor."""
    hypervisor = FakeHypervisor([(uuid_of(n), f"guest-{n}", 1) for n in range(count)])
    agent = FakeAgent(path, {"database": database, "hypervisor": hypervisor})
    agent.drivers.use("bandwidth", LibvirtMeter(agent))
    return agent, agent.build(PollBandwidthUsage), hypervisor


def count(hypervisor, received):
    for uuid in hypervisor.states:
        hypervisor.traffic[uuid] = [NetworkCounters(MAC, received, 2**40)]


def usage(engine):
    return {
        (row.bw_in, row.bw_out, row.last_ctr_in, row.last_ctr_out)
        for row in rows(engine, models.bw_usage_cache)
    }


@pytest.mark.parametrize("number", [10, 1000])
def test_a_pass_takes_so_many_statements_whatever_the_number_of_instances(
    tmp_path, database, engine, number
):
    add_many(engine, range(number))
    with engine.begin() as connection:
        connection.execute(
            sa.insert(models.instance_info_caches),
            [
                {"instance_uuid": uuid_of(n), "network_info": f'[{{"address": "{MAC}"}}]',
                 "deleted": 0}
                for n in range(number)
            ],
        )  # fmt: skip
    agent, task, hypervisor = make(tmp_path, database, number)
    statements = Statements(database, engine)
    batches = -(-number // bulk.BATCH)
    read = {"select": 2}

    # The first look of a period: instances are locked, rows looked for and made.
    count(hypervisor, 2**40)
    statements()
    assert agent.run(task).counters["done"] == 1
    assert statements() == {"select": 2 + 2 * batches, "insert": batches}
    assert usage(engine) == {(0, 0, 2**40, 2**40)}

    # All of them changed, some began anew; then nothing.
    for received in (2**40 + 5, 7):
        count(hypervisor, received)
        statements()
        assert agent.run(task).counters["done"] == 1
        assert statements() == {**read, "update": batches}
    assert usage(engine) == {(12, 0, 7, 2**40)}
    assert len(rows(engine, models.bw_usage_cache)) == number
    statements()
    assert agent.run(task).changes == []
    assert statements() == read
    assert {row.start_period for row in rows(engine, models.bw_usage_cache)} == {NOVEMBER}
    agent.close()


def test_rows_with_nulls_are_written_like_others(tmp_path, database, engine):
    add_many(engine, range(3))
    with engine.begin() as connection:
        for n, last in enumerate([(None, None), (None, 5), (5, 5)]):
            connection.execute(
                sa.insert(models.bw_usage_cache).values(
                    uuid=uuid_of(n), mac=MAC, start_period=NOVEMBER, bw_in=None, bw_out=1,
                    last_ctr_in=last[0], last_ctr_out=last[1], deleted=None,
                )
            )  # fmt: skip
    agent, task, hypervisor = make(tmp_path, database, 3)
    count(hypervisor, 10)
    assert agent.run(task).counters["done"] == 1
    assert [(row.bw_in, row.bw_out, row.last_ctr_in) for row in rows(engine, models.bw_usage_cache)
            ] == [(0, 1, 10), (0, 2**40 - 4, 10), (5, 2**40 - 4, 10)]  # fmt: skip
    agent.close()


def test_a_sum_that_only_nulls_stand_for_is_compared_all_the_same(database, engine):
    # A server is to be told the type of what is NULL in every row.
    add_many(engine, [1])
    with engine.begin() as connection:
        connection.execute(
            sa.insert(models.bw_usage_cache).values(uuid=uuid_of(1), mac=MAC, start_period=NOVEMBER)
        )
    _, (row,) = database.bandwidth_on_host("host1", [NOVEMBER])
    values = {"bw_in": 1, "bw_out": 1, "last_ctr_in": 2, "last_ctr_out": 2}
    other = row._replace(last_ctr_out=7)
    assert database.save_bandwidth_usage(NOVEMBER, [(other, values)], []) == 1
    assert usage(engine) == {(None, None, None, None)}
    assert database.save_bandwidth_usage(NOVEMBER, [(row, values)], []) == 0
    assert usage(engine) == {(1, 1, 2, 2)}


ROUNDS, INTERFACES = 10, 20


def _count_in_turn(path, url, start):
    """Be one of two agents of the same host, which count the same at the same time."""
    path.mkdir()
    owner, database = open_database(path, url)
    agent, task, hypervisor = make(path, database, INTERFACES)
    for number in range(ROUNDS):
        count(hypervisor, 100 * number)
        start.wait(60)
        run = agent.run(task)
        assert run.outcome == "ok", run.error
        start.wait(60)
    database.close()
    for one in (agent, owner):
        one.close()


def test_two_agents_of_one_host_make_no_row_twice_and_count_nothing_twice(
    tmp_path, url, database, engine
):
    add_many(engine, range(INTERFACES))
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    rivals = [
        context.Process(target=_count_in_turn, args=(tmp_path / name, url, start))
        for name in ("one", "two")
    ]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(100)
    assert [rival.exitcode for rival in rivals] == [0, 0]
    found = rows(engine, models.bw_usage_cache)
    assert len(found) == INTERFACES
    total = 100 * (ROUNDS - 1)
    assert {(row.bw_in, row.last_ctr_in) for row in found} == {(total, total)}
