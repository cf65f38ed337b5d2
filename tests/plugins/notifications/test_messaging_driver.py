# SPDX-License-Identifier: Apache-2.0
"""Notifications by oslo.messaging: at once, and over its transport within one process."""

import datetime
import json
import logging
import subprocess
import sys
import time

import oslo_messaging
import pytest
from oslo_context import context as oslo_context
from oslo_messaging._drivers import impl_fake
from oslo_messaging.notify import _impl_test

from cepheid import config, errors
from cepheid_plugins.notifications import opts, publisher
from cepheid_plugins.notifications.driver import Notification, NotificationsRefused
from cepheid_plugins.notifications.messaging_driver import MessagingNotifier
from cepheid_plugins.notifications.outbox import FILE_NAME, Message, Outbox, OutboxError
from tests.consumers import consuming
from tests.contracts import NotifierContract
from tests.fake_agent import FakeAgent, eventually

FAKE = "driver = messagingv2\ntransport_url = fake://\n"
#: Nobody listens on the discard port.
AWAY = "driver = messagingv2\ntransport_url = rabbit://guest:hush@127.0.0.1:9/\n"
NOTIFICATION = Notification("volume.usage", {"n": 1}, message_id="one", request_id="req-1")
NOTIFICATION_2 = Notification("volume.usage", {"n": 2}, message_id="two", request_id="req-1")


@pytest.fixture
def agent_with(tmp_path, clock):
    agents = []

    def make(settings):
        agent = FakeAgent(
            tmp_path, settings=f"[oslo_messaging_notifications]\n{settings}", clock=clock
        )
        agent.conf.register_opts(opts.OPTIONS, group="notifications")
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        agent.close()


@pytest.fixture
def make(agent_with):
    made = []

    def make(settings=FAKE):
        made.append(MessagingNotifier(agent_with(settings)))
        return made[-1]

    yield make
    for notifier in made:
        notifier.close()


@pytest.fixture
def bus(monkeypatch):
    """A bus of this test's own within this process.

    There, unlike with a broker, closing any one connection drops what was sent over all.
    """
    monkeypatch.setattr(impl_fake.FakeExchangeManager, "_exchanges", {})
    monkeypatch.setattr(impl_fake.FakeDriver, "cleanup", lambda driver: None)


@pytest.fixture
def consumer(agent_with, bus):
    with consuming(agent_with(FAKE)) as consumer:
        yield consumer


@pytest.fixture
def kept():
    """What oslo.messaging's test driver was given."""
    _impl_test.reset()
    yield lambda: [message for _, message, _, _ in _impl_test.NOTIFICATIONS]
    _impl_test.reset()


def logged(caplog):
    prefix = "oslo.messaging.notification."
    return [json.loads(r.getMessage()) for r in caplog.records if r.name.startswith(prefix)]


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if "cannot be sent" in r.getMessage()]


def nothing_waits(path):
    outbox = Outbox.read_only(path / FILE_NAME)
    try:
        return outbox.is_empty()
    finally:
        outbox.close()


class TestOverATransport(NotifierContract):
    @pytest.fixture
    def notifier(self, make, consumer):
        return make()

    @pytest.fixture
    def received(self, consumer):
        return consumer.received


class TestAtOnce(NotifierContract):
    @pytest.fixture
    def notifier(self, make, kept):
        return make("driver = test\n")

    @pytest.fixture
    def received(self, kept):
        return lambda count: kept()


def test_a_message_is_as_oslo_messagings_own_notifier_sends_it(make, agent_with, consumer):
    notifier = make()
    notifier.send([NOTIFICATION])
    (ours,) = consumer.received(1)
    agent = agent_with(FAKE)
    publisher.register_options(agent.conf)
    transport = oslo_messaging.get_notification_transport(agent.conf)
    own = oslo_messaging.Notifier(transport, publisher_id="compute.host1")
    own.info({}, "volume.usage", {"n": 1})
    theirs = consumer.received(2)[1]
    for name in ("context", "message_id", "timestamp"):
        assert ours.pop(name)
        theirs.pop(name)
    assert ours == theirs


def test_the_context_names_the_request(make, consumer):
    make().send([NOTIFICATION])
    (message,) = consumer.received(1)
    assert message["context"]["request_id"] == "req-1"
    assert (message["context"]["is_admin"], message["context"]["user_id"]) == (True, None)


def test_the_context_of_a_task_is_left_to_it(make):
    task = oslo_context.RequestContext(request_id="req-task", overwrite=True)
    make("driver = test\n").send([NOTIFICATION])
    assert oslo_context.get_current() is task


def test_it_goes_to_novas_exchange_unless_another_is_set(agent_with):
    conf = agent_with(FAKE).conf
    publisher.register_options(conf)
    assert conf.control_exchange == "nova"
    conf = agent_with("[DEFAULT]\ncontrol_exchange = mine\n").conf
    publisher.register_options(conf)
    assert conf.control_exchange == "mine"


def test_every_driver_gets_it_on_every_topic(make, agent_with, bus, kept, caplog, tmp_path):
    topics = ("one", "two")
    settings = (
        "driver = test\ndriver = messagingv2\ndriver = log\ntransport_url = fake://\n"
        "topics = one,two\n"
    )
    with (
        consuming(agent_with(FAKE), topics) as consumer,
        caplog.at_level(logging.INFO),
    ):
        notifier = make(settings)
        notifier.send([NOTIFICATION])
        messages = consumer.received(2)
        eventually(lambda: nothing_waits(tmp_path))
    assert {(m["topic"], m["message_id"]) for m in messages} == {("one", "one"), ("two", "one")}
    assert [m["message_id"] for m in kept()] == ["one"]
    assert [m["message_id"] for m in logged(caplog)] == ["one"]


def test_the_log_needs_no_broker_and_has_it_at_once(make, caplog):
    caplog.set_level(logging.INFO)
    make("driver = log\ntransport_url = rabbit://127.0.0.1:9/\n").send([NOTIFICATION])
    (message,) = logged(caplog)
    assert set(message) == {
        "message_id", "publisher_id", "event_type", "priority", "payload", "timestamp"
    }  # fmt: skip
    assert message["timestamp"] == "2026-11-23 12:00:00"


@pytest.mark.parametrize("settings", ["", "driver = noop\n"])
def test_where_nothing_is_to_be_sent_what_is_told_is_known_all_the_same(make, settings, kept):
    make(settings).send([NOTIFICATION])
    make("driver = test\n").send([NOTIFICATION])
    assert kept() == []


def test_the_next_agent_knows_what_was_sent(make, kept):
    make("driver = test\n").send([NOTIFICATION])
    make("driver = test\n").send([NOTIFICATION])
    assert len(kept()) == 1


def test_a_broker_that_is_away_costs_no_time_and_the_next_agent_sends(
    make, agent_with, consumer, caplog, tmp_path
):
    notifier = MessagingNotifier(agent_with(AWAY))
    started = time.monotonic()
    notifier.send([NOTIFICATION, Notification("volume.usage", {"n": 2})])
    assert time.monotonic() - started < 5
    eventually(lambda: warnings(caplog))
    (warning,) = warnings(caplog)
    assert "The message broker rabbit://127.0.0.1:9 took none: [Errno 111]" in warning
    assert "hush" not in caplog.text
    notifier.close()
    assert "cepheid-outbox.sqlite until they can be sent: 2" in caplog.text
    following = make()
    following.serve()
    first, second = consumer.received(2)
    assert (first["message_id"], first["payload"]) == ("one", {"n": 1})
    assert second["payload"] == {"n": 2}
    eventually(lambda: nothing_waits(tmp_path))


def test_no_outbox_is_made_before_there_is_use_for_one(make, tmp_path):
    notifier = make(AWAY)
    notifier.close()
    assert not (tmp_path / FILE_NAME).exists()
    notifier.serve()
    assert (tmp_path / FILE_NAME).exists()


def test_an_outbox_that_cannot_be_used_is_told_at_once(make, tmp_path):
    (tmp_path / FILE_NAME).write_text("no database" * 100)
    with pytest.raises(OutboxError, match="cannot be used"):
        make()


def test_a_full_outbox_refuses(make):
    notifier = make(f"{AWAY}[notifications]\nmax_waiting = 2\n")
    notifier.send([Notification("volume.usage", {"n": n}) for n in range(2)])
    with pytest.raises(NotificationsRefused, match="max_waiting is 2"):
        notifier.send([NOTIFICATION])


def test_what_a_destination_has_is_not_sent_there_again(agent_with, bus, kept, monkeypatch):
    """Whatever goes wrong behind it: another topic, or the record that it was sent."""
    agent = agent_with("driver = test\ndriver = messagingv2\ntransport_url = fake://\n")
    ours = publisher.OsloPublisher(lambda: agent.conf)
    message = Message("one", json.dumps({"message_id": "one", "priority": "INFO", "payload": {}}))
    send = impl_fake.FakeDriver.send_notification
    monkeypatch.setattr(impl_fake.FakeDriver, "send_notification", refuse)
    with pytest.raises(publisher.BrokerError):
        ours.publish(message)
    ours.close()
    monkeypatch.setattr(impl_fake.FakeDriver, "send_notification", send)
    with consuming(agent_with(FAKE), ["notifications"]) as consumer:
        ours.publish(message)
        ours.publish(message)
        assert len(consumer.received(1)) == 1
    assert len(kept()) == 1


def refuse(*arguments, **named):
    raise oslo_messaging.MessageDeliveryFailure("refused")


def test_an_error_of_the_transport_comes_out_which_oslo_messagings_driver_only_logs(
    agent_with, bus, monkeypatch, caplog
):
    """What the publisher relies on, and why it does not use the Notifier."""
    agent = agent_with(FAKE)
    monkeypatch.setattr(impl_fake.FakeDriver, "send_notification", refuse)
    message = Message("one", json.dumps({"message_id": "one", "priority": "INFO"}))
    with pytest.raises(publisher.BrokerError, match=r"broker fake://.* took none: refused\."):
        publisher.OsloPublisher(lambda: agent.conf).publish(message)
    transport = oslo_messaging.get_notification_transport(agent.conf)
    oslo_messaging.Notifier(transport, publisher_id="compute.host1").info({}, "volume.usage", {})
    assert "Could not send notification to notifications" in caplog.text


def test_a_reload_takes_effect_with_the_next_notification(make, kept, caplog):
    caplog.set_level(logging.INFO)
    notifier = make("driver = log\n")
    notifier.send([Notification("volume.usage", {})])
    file = notifier._agent.conf_file
    file.write_text(file.read_text().replace("driver = log", "driver = test"))
    conf = config.load([str(file)])
    conf.register_opts(opts.OPTIONS, group="notifications")
    notifier._agent.conf = conf
    notifier.send([Notification("volume.usage", {})])
    assert (len(logged(caplog)), len(kept())) == (1, 1)


@pytest.mark.parametrize("instead", ["", "driver = noop"])
def test_what_waits_is_not_dropped_when_the_drivers_are_taken_away(
    make, clock, caplog, tmp_path, instead
):
    notifier = make(AWAY)
    notifier.send([NOTIFICATION])
    eventually(lambda: warnings(caplog))
    file = notifier._agent.conf_file
    file.write_text(file.read_text().replace("driver = messagingv2", instead))
    conf = config.load([str(file)])
    conf.register_opts(opts.OPTIONS, group="notifications")
    notifier._agent.conf = conf
    clock.settle(1)
    clock.advance(60)
    eventually(lambda: len(warnings(caplog)) == 2)
    assert "names no driver, or noop alone" in warnings(caplog)[1]
    assert not nothing_waits(tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("driver = mesagingv2\n", r"driver = mesagingv2: no such driver .* log, messaging, "),
        ("driver = routing\n", r"driver = routing cannot be used here"),
        ("driver = messagingv2\ntransport_url = pigeon://x/\n", r"pigeon.*Look at transport_url"),
        ("driver = messagingv2\ntransport_url = rabbit://h:port/\n", r"Look at transport_url in"),
    ],
)
def test_a_configuration_that_cannot_work_is_named_at_once(make, settings, said):
    with pytest.raises(errors.ConfigError, match=said):
        make(settings)


def test_without_oslo_messaging_the_reason_names_the_extra(tmp_path):
    (tmp_path / "cepheid.conf").write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\n[oslo_messaging_notifications]\ndriver = log\n"
    )
    script = (
        "import sys\n"
        "sys.modules['oslo_messaging'] = None\n"
        "from cepheid import agent, config, errors\n"
        "try:\n"
        f"    agent.Agent(config.load(['{tmp_path}/cepheid.conf'])).driver('notifications')\n"
        "except errors.PluginError as err:\n"
        "    print(err)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert "pip install 'cepheid[messaging]', or remove [oslo_messaging_notifications]" in (
        done.stdout
    ), done.stderr


def test_nothing_is_said_of_eventlet_when_oslo_messaging_loads(tmp_path):
    (tmp_path / "cepheid.conf").write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\n[oslo_messaging_notifications]\ndriver = log\n"
    )
    script = (
        "from cepheid import agent, config\n"
        f"agent.Agent(config.load(['{tmp_path}/cepheid.conf'])).driver('notifications')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_tells_as_metrics_what_waits(make, clock):
    notifier = make(AWAY)
    assert [(m.name, dict(m.values)) for m in notifier.metrics()] == [
        ("cepheid_notifications_waiting", {(): 0}),
        ("cepheid_notifications_oldest_timestamp_seconds", {}),
    ]
    now = clock.utcnow().replace(tzinfo=datetime.UTC).timestamp()
    notifier.send([NOTIFICATION, NOTIFICATION_2])
    assert [(m.name, dict(m.values)) for m in notifier.metrics()] == [
        ("cepheid_notifications_waiting", {(): 2}),
        ("cepheid_notifications_oldest_timestamp_seconds", {(): now}),
    ]
