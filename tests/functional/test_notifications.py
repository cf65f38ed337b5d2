# SPDX-License-Identifier: Apache-2.0
"""Notifications over a real RabbitMQ that is stopped, frozen and killed, from real agents."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from cepheid.clock import Clock
from cepheid_plugins.notifications import opts
from cepheid_plugins.notifications.messaging_driver import MessagingNotifier
from cepheid_plugins.notifications.sender import LONGEST_DELAY_SECONDS
from tests.consumers import consuming
from tests.contracts import NotifierContract
from tests.fake_agent import FakeAgent
from tests.functional.notifying_host import TASK, NotifyingHost, settings
from tests.functional.processes import PATIENCE_SECONDS, wait_until
from tests.functional.queues import Queue
from tests.functional.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

MODES = ("threading", "eventlet")


@pytest.fixture(scope="module")
def running():
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture
def broker(running):
    """A broker whose queue is empty."""
    running.thaw()
    if not running.is_running:
        running.start()
    Queue(running).take()
    return running


@pytest.fixture
def queue(broker):
    return Queue(broker)


@pytest.fixture
def host_with(tmp_path, broker):
    hosts = []

    def make(mode="threading", more="", url=None):
        text = settings(broker, mode, more)
        hosts.append(NotifyingHost(tmp_path, text.replace(broker.url, url or broker.url)))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture(params=MODES)
def host(request, host_with):
    return host_with(request.param)


def names(messages):
    return [message["payload"]["name"] for message in messages]


class TestRabbitMQ(NotifierContract):
    @pytest.fixture
    def agent(self, tmp_path, broker):
        agent = FakeAgent(tmp_path, settings=settings(broker), clock=Clock())
        agent.conf.register_opts(opts.OPTIONS, group="notifications")
        yield agent
        agent.close()

    @pytest.fixture
    def notifier(self, agent):
        notifier = MessagingNotifier(agent)
        yield notifier
        notifier.close()

    @pytest.fixture
    def received(self, agent, broker):
        with consuming(agent) as consumer:
            yield consumer.received


def test_while_the_broker_is_away_passes_go_on_and_nothing_is_lost(host, broker, queue):
    host.start_agent()
    queue.wait_for(2)
    broker.stop()
    first = host.wait_for_waiting(3)
    host.kill_agent()
    assert host.waiting()[:3] == first
    host.start_agent()
    kept = host.wait_for_waiting(len(host.waiting()) + 2)
    assert host.status()["waiting"] >= len(kept)
    broker.start()
    # What came before is taken already; a broker that is stopped says so in time.
    wanted = len(queue.messages) + len(kept) + 2
    # The longer the broker took to start, the later is the agent's next attempt.
    queue.wait_for(wanted, LONGEST_DELAY_SECONDS + PATIENCE_SECONDS)
    assert host.stop_agent() == 0
    queue.take()
    assert [one for one in queue.ids if one in kept] == kept
    assert len(set(queue.ids)) == len(queue.ids)
    times = [message["timestamp"] for message in queue.messages]
    assert times == sorted(times)
    assert host.waiting() == []
    log = host.read_log()
    assert log.count("Over: notifications are sent again") == 1
    # Each agent says what is wrong, not each attempt; a broker on its way down in other words.
    assert 2 <= log.count("Notifications cannot be sent") <= 4
    history = host.rows("task", "history", TASK)
    assert {row["Outcome"] for row in history} <= {"ok", "interrupted"}
    assert max(float(row["Seconds"] or 0) for row in history) < 5


def test_a_broker_that_hangs_holds_up_neither_passes_nor_the_end(host, broker, queue):
    host.start_agent()
    queue.wait_for(1)
    broker.freeze()
    kept = host.wait_for_waiting(3)
    started = time.monotonic()
    assert host.stop_agent() == 0
    assert time.monotonic() - started < 45
    assert "Notifications are left in" in host.read_log()
    assert host.waiting()[:3] == kept
    broker.thaw()
    host.start_agent()
    queue.wait_for(len(kept) + 2)
    assert host.stop_agent() == 0
    queue.take()
    found = [one for one in queue.ids if one in kept]
    # The broker may have had the first in its hands when it was stopped, which no one can know.
    assert found in (kept, [kept[0], *kept])
    assert max(float(row["Seconds"] or 0) for row in host.rows("task", "history", TASK)) < 5


def test_a_broker_that_is_killed_and_comes_back_gets_the_rest(host_with, broker, queue):
    host = host_with()
    with host.process("a", "2000") as process:
        assert process.stdout.readline() == "taken\n"
        broker.kill()
        process.wait(PATIENCE_SECONDS)
    assert process.returncode == 0
    left = host.waiting()
    assert left
    broker.start()
    # An agent that has nothing to tell by itself.
    host.conf.write_text(host.conf.read_text().replace("interval = 1\n", "interval = 3600\n"))
    host.start_agent()
    # What the broker had taken before is in its queue still.
    wait_until(lambda: queue.take() and left[-1] in queue.ids, host.read_log, 3 * PATIENCE_SECONDS)
    assert host.stop_agent() == 0
    came = Counter(one for one in queue.ids if one in left)
    assert list(came) == left
    # The one that was under way when the broker died may have reached its queue before.
    assert [one for one, times in came.items() if times > 1] in ([], left[:1])
    assert host.waiting() == []


@pytest.mark.parametrize("mode", MODES)
def test_the_one_window_a_process_that_dies_before_it_records_what_the_broker_took(
    host_with, queue, mode
):
    host = host_with(mode)
    with host.process("a", "20", "5", mode=mode) as process:
        process.wait(PATIENCE_SECONDS)
    assert process.returncode == -signal.SIGKILL
    assert names(queue.wait_for(5)) == [f"a-{n}" for n in range(5)]
    assert host.waiting()[0] == queue.ids[4]
    with host.process("b", "1", mode=mode) as process:
        process.wait(PATIENCE_SECONDS)
    queue.wait_for(22)
    assert names(queue.messages) == [
        *(f"a-{n}" for n in range(5)),
        *(f"a-{n}" for n in range(4, 20)),
        "b-0",
    ]
    # Which is how a consumer tells it.
    assert queue.ids[4] == queue.ids[5]
    assert len(set(queue.ids)) == 21
    assert host.waiting() == []


def test_an_agent_killed_with_a_full_outbox_loses_nothing_that_was_taken(host_with, broker, queue):
    host = host_with(more="max_waiting = 3\n")
    broker.stop()
    host.start_agent()
    kept = host.wait_for_waiting(3)
    wait_until(
        lambda: "partial" in [row["Outcome"] for row in host.rows("task", "history", TASK)],
        host.read_log,
    )
    assert "max_waiting is 3" in host.read_log()
    host.kill_agent()
    assert host.waiting() == kept
    broker.start()
    host.start_agent()
    queue.wait_for(4)
    assert host.stop_agent() == 0
    assert queue.ids[:3] == kept


def test_of_several_processes_one_sends_at_a_time(host_with, broker, queue):
    host = host_with(more=f"flush_timeout = {PATIENCE_SECONDS}\n")
    host.start_agent()
    processes = [host.process(name, "400") for name in ("a", "b", "c")]
    for process in processes:
        process.communicate(timeout=2 * PATIENCE_SECONDS)
        assert process.returncode == 0
    wait_until(lambda: len([m for m in queue.take() if "name" in m["payload"]]) == 1200)
    assert host.stop_agent() == 0
    queue.take()
    assert len(set(queue.ids)) == len(queue.ids)
    found = names([m for m in queue.messages if "name" in m["payload"]])
    for name in "abc":
        assert [one for one in found if one[0] == name] == [f"{name}-{n}" for n in range(400)]


def test_a_command_sends_before_it_ends_where_it_can(host_with, broker, queue):
    host = host_with()
    done = host.run("task", "run", TASK)
    assert "ok in" in done.stderr
    assert "WARN" not in done.stderr
    assert len(queue.take()) == 1
    assert host.waiting() == []


def test_a_command_leaves_to_the_agent_what_it_cannot_send(host_with, broker, queue):
    host = host_with()
    broker.stop()
    started = time.monotonic()
    done = host.run("task", "run", TASK)
    assert time.monotonic() - started < 45
    assert "ok in" in done.stderr
    assert "cepheid-outbox.sqlite until they can be sent: 1" in done.stderr
    (kept,) = host.waiting()
    status = host.status()
    assert status["waiting"] == 1
    assert "Connection refused" in status["trouble"]
    assert status["since"] >= status["oldest"]
    broker.start()
    host.start_agent()
    queue.wait_for(1)
    assert queue.ids[0] == kept
    assert host.stop_agent() == 0


def test_a_command_ends_in_time_while_the_broker_hangs(host_with, broker, queue):
    host = host_with(more="flush_timeout = 1\n")
    broker.freeze()
    started = time.monotonic()
    done = host.run("task", "run", TASK)
    assert time.monotonic() - started < 45
    assert done.returncode == 0
    assert "cepheid-outbox.sqlite until they can be sent: 1" in done.stderr
    (kept,) = host.waiting()
    broker.thaw()
    host.run("task", "run", TASK)
    queue.wait_for(2)
    assert kept in queue.ids
    assert len(set(queue.ids)) == 2


def test_a_broker_that_refuses_is_said_without_the_password(host_with, broker, queue):
    host = host_with(url=broker.url.replace("guest:guest", "guest:wrong"))
    host.start_agent()
    host.wait_for_waiting(2)
    wait_until(lambda: "ACCESS_REFUSED" in host.read_log(), host.read_log)
    assert "guest:wrong" not in host.read_log()
    # A reload that puts it right takes effect.
    host.conf.write_text(host.conf.read_text().replace("guest:wrong", "guest:guest"))
    kept = host.waiting()
    host.signal_agent(signal.SIGHUP)
    queue.wait_for(len(kept) + 1)
    assert queue.ids[: len(kept)] == kept
    assert host.stop_agent() == 0


def test_an_outbox_that_cannot_be_used_ends_only_the_tasks_that_tell_anything(host_with):
    host = host_with()
    tasks = f"enabled_tasks = {TASK}"
    host.conf.write_text(host.conf.read_text().replace(tasks, f"{tasks},update_available_resource"))
    (host.path / "cepheid-outbox.sqlite").write_text("no database" * 100)
    host.start_agent()
    states = {row["Name"]: row["State"] for row in host.rows("task", "list")}
    assert (states[TASK], states["update_available_resource"]) == ("failed", "enabled")
    assert f"Task {TASK} of cepheid" in host.read_log()
    assert "cepheid-outbox.sqlite cannot be used" in host.read_log()
    assert host.stop_agent() == 0
