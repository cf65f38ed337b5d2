# SPDX-License-Identifier: Apache-2.0
"""Schedulers over a real RabbitMQ: agents, receivers and the broker in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cepheid.clock import Clock
from cepheid_plugins.database import models
from cepheid_plugins.scheduler import opts
from cepheid_plugins.scheduler.driver import SchedulerUnavailable
from cepheid_plugins.scheduler.messaging_driver import MessagingScheduler
from tests.contracts import SchedulerContract
from tests.fake_agent import FakeAgent
from tests.functional.agents import Installation
from tests.functional.nova_cell import NovaCell
from tests.functional.processes import PATIENCE_SECONDS, wait_until
from tests.functional.rabbitmq import RabbitMQ
from tests.functional.servers import free_port
from tests.listeners import listening
from tests.worlds import uuid_of

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

HOSTS = ("host1", "host2", "host3")
TASK = "sync_scheduler_instance_info"


@pytest.fixture(scope="module")
def broker():
    with RabbitMQ() as broker:
        yield broker


class Receiver:
    """A scheduler process that answers what it knows of a host."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self._read() == "listening\n", self.read_log()

    def ask(self, host: str) -> dict[str, Any]:
        """Return what it knows of a host."""
        self._process.stdin.write(f"{host}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def read_log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        self._process.stdin.close()
        try:
            assert self._process.wait(PATIENCE_SECONDS) == 0, self.read_log()
        finally:
            self._process.kill()
            self._process.wait()

    def _read(self) -> str:
        return self._process.stdout.readline()


class Fleet:
    """Three hosts with an agent each, one inventory, and a scheduler of one's own."""

    def __init__(self, path: Path, broker: RabbitMQ, concurrency: str) -> None:
        self.inventory = sa.create_engine(f"sqlite:///{path}/fleet.sqlite", poolclass=sa.NullPool)
        self.hosts = {}
        for host in HOSTS:
            (path / host).mkdir()
            self.hosts[host] = Installation(
                path / host,
                f"host = {host}\nconcurrency = {concurrency}\nenabled_tasks = {TASK}\n"
                f"scheduler_instance_sync_interval = 1\ntransport_url = {broker.url}\n"
                f"[database]\nconnection = sqlite:///{path}/fleet.sqlite\n",
            )
        self.hosts["host1"].run("db", "sync")
        (path / "scheduler").mkdir()
        conf = path / "scheduler" / "scheduler.conf"
        conf.write_text(
            f"[DEFAULT]\nstate_path = {path}/scheduler\ntransport_url = {broker.url}\n"
            f"[database]\nconnection = sqlite:///{path}/fleet.sqlite\n"
            "[oslo_messaging_rabbit]\nrabbit_interval_max = 1\n"  # it is not to back off
        )
        script = Path(__file__).parent / "update_listener.py"
        self.scheduler = Receiver([sys.executable, str(script), str(conf)], path / "scheduler.log")
        for installation in self.hosts.values():
            installation.start_agent()

    def add(self, number: int, host: str) -> None:
        with self.inventory.begin() as connection:
            connection.execute(
                sa.insert(models.instances).values(
                    uuid=uuid_of(number), host=host, vm_state="active", deleted=0
                )
            )

    def remove(self, number: int) -> None:
        table = models.instances
        with self.inventory.begin() as connection:
            connection.execute(
                sa.update(table).where(table.c.uuid == uuid_of(number)).values(deleted=table.c.id)
            )

    def wait_for(self, host: str, *numbers: int) -> None:
        """Wait until the scheduler knows, by the host's own word, that it has these instances."""
        wanted = {"confirmed": True, "instances": [uuid_of(number) for number in numbers]}
        wait_until(
            lambda: self.scheduler.ask(host) == wanted,
            lambda: f"{self.scheduler.ask(host)} {self.scheduler.read_log()}",
        )

    def close(self) -> None:
        for installation in self.hosts.values():
            installation.close()
        self.scheduler.close()


@pytest.fixture(params=["threading", "eventlet"])
def fleet(request, tmp_path, broker):
    fleet = Fleet(tmp_path, broker, request.param)
    yield fleet
    fleet.close()


FAILED = f"{TASK} failed: The message broker rabbit://127.0.0.1:"


def test_three_agents_keep_a_scheduler_up_to_date_through_a_restart_of_the_broker(fleet, broker):
    for number, host in enumerate(HOSTS):
        fleet.wait_for(host)
        fleet.add(number, host)
    for number, host in enumerate(HOSTS):
        fleet.wait_for(host, number)
    fleet.add(7, "host1")
    fleet.remove(1)
    fleet.wait_for("host1", 0, 7)
    fleet.wait_for("host2")
    fleet.wait_for("host3", 2)

    broker.stop()
    for installation in fleet.hosts.values():
        wait_until(lambda one=installation: FAILED in one.read_log(), installation.read_log)
    fleet.remove(7)
    broker.start()
    fleet.wait_for("host1", 0)
    fleet.add(8, "host3")
    fleet.wait_for("host3", 2, 8)

    for installation in fleet.hosts.values():
        assert installation.stop_agent() == 0
        # Said when it began (in other words while the broker was on its way down), and when it
        # was over; not each second.
        *said, over = [line for line in installation.read_log().splitlines() if FAILED in line]
        assert "Over: " in over
        assert 1 <= len(said) <= 2
        assert not any("Over: " in line for line in said)
        history = installation.rows("task", "history", TASK, "--limit", "1000")
        outcomes = [row["Outcome"] for row in history]
        assert outcomes[0] == "ok"
        assert outcomes.count("failed") > 2


def test_an_agent_ends_in_time_while_the_broker_hangs(fleet, broker):
    fleet.wait_for("host1")
    broker.freeze()
    try:
        time.sleep(1.5)  # a message is on its way
        started = time.monotonic()
        assert fleet.hosts["host1"].stop_agent() == 0
        assert time.monotonic() - started < 30
    finally:
        broker.thaw()


@pytest.fixture
def agent_with(tmp_path):
    agents = []

    def make(url):
        agent = FakeAgent(tmp_path, settings=f"transport_url = {url}\n", clock=Clock())
        agent.conf.register_opts(opts.OPTIONS, group="scheduler")
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        agent.close()


@pytest.fixture
def driver(agent_with, broker):
    return MessagingScheduler(agent_with(broker.url))


class TestRabbitMQ(SchedulerContract):
    @pytest.fixture
    def scheduler(self, driver):
        return driver

    @pytest.fixture
    def received(self, agent_with, broker):
        with listening(agent_with(broker.url)) as listener:
            yield listener.received


def test_a_broker_that_hangs_costs_a_pass_a_few_seconds(driver, broker):
    broker.freeze()
    try:
        started = time.monotonic()
        with pytest.raises(SchedulerUnavailable):
            driver.sync_instance_info("host1", [])
        assert time.monotonic() - started < 20
    finally:
        broker.thaw()
    wait_until(lambda: not driver._sending.is_alive())
    driver.sync_instance_info("host1", [])


@pytest.mark.parametrize(("before", "after"), [("guest@", "wrong@"), ("/", "/elsewhere")])
def test_a_broker_that_refuses_is_reported_at_once(agent_with, broker, before, after):
    agent = agent_with(after.join(broker.url.rsplit(before, 1)))
    started = time.monotonic()
    with pytest.raises(SchedulerUnavailable, match=r"ACCESS_REFUSED|NOT_ALLOWED") as caught:
        MessagingScheduler(agent).sync_instance_info("host1", [])
    assert time.monotonic() - started < agent.conf.scheduler.send_timeout
    assert "wrong" not in str(caught.value)


def test_of_a_cluster_each_broker_is_tried(agent_with, broker):
    away = f"rabbit://guest:guest@127.0.0.1:{free_port()}"
    agent = agent_with(f"{away},guest:guest@127.0.0.1:{broker.port}/")
    with listening(agent_with(broker.url)) as listener:
        for count in range(1, 7):  # oslo.messaging begins with any of them
            MessagingScheduler(agent).sync_instance_info("host1", [str(count)])
            assert listener.received(count)[-1] == ("host1", [str(count)])


@pytest.fixture
def cell(tmp_path, broker):
    url = sa.make_url(f"sqlite:///{tmp_path}/cell.sqlite")
    return NovaCell(tmp_path, url, settings=f"transport_url = {broker.url}\n")


def test_novas_own_scheduler_takes_the_message_as_it_is(tmp_path, cell, driver):
    cell.sync_api()
    (uuid,) = cell.write([{"display_name": "web", "vm_state": "active"}]).values()
    receiver = Receiver(cell.command("scheduler.py", "listen"), tmp_path / "nova.log")
    assert receiver.ask("host1") == {"updated": None, "instances": []}
    # Unknown: Nova's HostManager reads its database. Then it agrees, and trusts the host.
    for instances, updated in (([], False), ([uuid], True), ([], False), ([uuid], True)):
        driver.sync_instance_info("host1", instances, "req-5c1b9f3e-0000-4000-8000-000000000000")
        wait_until(
            lambda wanted=updated: (
                receiver.ask("host1") == {"updated": wanted, "instances": [uuid]}
            ),
            receiver.read_log,
        )
    receiver.close()
    assert "Exception during message handling" not in receiver.read_log()


def test_what_nova_compute_sends_is_understood(tmp_path, cell, broker):
    path = tmp_path / "own"
    path.mkdir()
    conf = path / "scheduler.conf"
    conf.write_text(
        f"[DEFAULT]\nstate_path = {path}\ntransport_url = {broker.url}\n"
        f"[database]\nconnection = {cell.url}\n"
    )
    uuids = sorted(cell.write([{"display_name": name} for name in ("web", "db")]).values())
    script = Path(__file__).parent / "update_listener.py"
    receiver = Receiver([sys.executable, str(script), str(conf)], path / "scheduler.log")

    def tell(*message: Any) -> None:
        command = cell.command("scheduler.py", "tell")
        given = json.dumps(message)
        done = subprocess.run(command, input=given, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr[-3000:]

    new = uuid_of(1)
    for message, confirmed, instances in (
        (("sync", "host1", [uuids[0]]), False, uuids),
        (("sync", "host1", uuids), True, uuids),
        (("update", "host1", [new]), True, sorted([*uuids, new])),
        (("delete", "host1", [uuids[0]]), True, sorted([uuids[1], new])),
    ):
        tell(*message)
        wanted = {"confirmed": confirmed, "instances": instances}
        wait_until(lambda wanted=wanted: receiver.ask("host1") == wanted, receiver.read_log)
    receiver.close()
