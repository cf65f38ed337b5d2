# SPDX-License-Identifier: Apache-2.0
"""The messages themselves, over oslo.messaging's transport within one process."""

import logging
import socket
import subprocess
import sys
import time
import uuid

import oslo_messaging
import pytest
from oslo_messaging._drivers import impl_fake

from cepheid import config, errors
from cepheid_plugins.database.errors import DatabaseUnavailable
from cepheid_plugins.scheduler import HostManager, opts, rpc, server
from cepheid_plugins.scheduler.driver import SchedulerUnavailable
from cepheid_plugins.scheduler.messaging_driver import MessagingScheduler
from cepheid_plugins.scheduler.none_driver import NoScheduler
from tests.contracts import SchedulerContract
from tests.fake_agent import FakeAgent, eventually
from tests.fakes import FakeScheduler
from tests.listeners import listening

A, B = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


class Inventory:
    """A database of one host."""

    def __init__(self, uuids):
        self.uuids = uuids
        self.available = True

    def instance_uuids_on_host(self, host):
        if not self.available:
            raise DatabaseUnavailable("The database does not answer.")
        return self.uuids


@pytest.fixture
def agent_with(tmp_path):
    agents = []

    def make(url, **options):
        settings = "" if url is None else f"transport_url = {url}\n"
        agent = FakeAgent(tmp_path, settings=settings)
        agents.append(agent)
        agent.conf.register_opts(opts.OPTIONS, group="scheduler")
        agent.set("scheduler", **options)
        return agent

    yield make
    for agent in agents:
        agent.close()


@pytest.fixture
def agent(agent_with, monkeypatch):
    """An agent on the transport within this process.

    There, unlike with a broker, closing any one connection drops what was sent over all.
    """
    monkeypatch.setattr(impl_fake.FakeExchangeManager, "_exchanges", {})
    monkeypatch.setattr(impl_fake.FakeDriver, "cleanup", lambda driver: None)
    return agent_with("fake://")


def send(agent, method, **arguments):
    """Send what somebody else's client would."""
    bus = rpc.open_transport(agent.conf)
    target = oslo_messaging.Target(topic="scheduler", version="4.0")
    client = oslo_messaging.get_rpc_client(bus, target)
    client.prepare(fanout=True, version="4.2").cast({}, method, **arguments)


class TestFake(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return FakeScheduler()

    @pytest.fixture
    def received(self, scheduler):
        return lambda count: [(host, uuids) for host, uuids, _ in scheduler.messages]


class TestMessaging(SchedulerContract):
    @pytest.fixture
    def scheduler(self, agent):
        return MessagingScheduler(agent)

    @pytest.fixture
    def received(self, agent):
        with listening(agent) as listener:
            yield listener.received


def test_the_message_reaches_every_scheduler_as_nova_expects_it(agent):
    with listening(agent, "one") as first, listening(agent, "two") as second:
        MessagingScheduler(agent).sync_instance_info("host1", [B, A], "req-1")
        for listener in (first, second):
            assert listener.received(1) == [("host1", [B, A])]
            ((context, arguments),) = listener.messages
            assert set(arguments) == {"host_name", "instance_uuids"}
            assert (context["is_admin"], context["request_id"]) == (True, "req-1")
            assert (context["user_id"], context["project_id"]) == (None, None)
            assert (context["roles"], context["read_deleted"]) == (["admin"], "no")


def test_without_a_transport_url_there_is_nobody_to_tell(agent_with, caplog):
    with caplog.at_level(logging.INFO):
        scheduler = MessagingScheduler(agent_with(None))
    assert scheduler.enabled is False
    assert "transport_url is not set" in caplog.text


def test_without_a_transport_url_oslo_messaging_is_not_loaded(tmp_path):
    (tmp_path / "cepheid.conf").write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n")
    script = (
        "import sys; from cepheid import config; from cepheid.agent import Agent\n"
        "agent = Agent(config.load([sys.argv[1]]))\n"
        "agent.driver('scheduler')\n"
        "assert 'oslo_messaging' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cepheid.conf")]
    done = subprocess.run(command, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_with_a_transport_url_a_missing_oslo_messaging_is_named_and_nothing_else_is_printed(
    tmp_path,
):
    (tmp_path / "cepheid.conf").write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = rabbit://127.0.0.1/\n"
    )
    script = (
        "import sys; from cepheid import config, errors; from cepheid.agent import Agent\n"
        "agent = Agent(config.load([sys.argv[1]]))\n"
        "sys.modules.update({name: None for name in sys.argv[2:]})\n"
        "try:\n    agent.driver('scheduler')\n"
        "except errors.PluginError as err:\n    print(err)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cepheid.conf")]
    done = subprocess.run([*command, "oslo_messaging"], text=True, capture_output=True)
    assert "pip install 'cepheid[messaging]'" in done.stdout
    done = subprocess.run(command, text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_with_a_transport_url_there_is(agent):
    assert MessagingScheduler(agent).enabled is True


def test_the_driver_none_tells_nobody(agent):
    scheduler = NoScheduler(agent)
    assert scheduler.enabled is False
    assert scheduler.sync_instance_info("host1", [A]) is None


def test_a_reload_changes_whom_it_tells(agent):
    scheduler = MessagingScheduler(agent)
    text = agent.conf_file.read_text()
    agent.conf_file.write_text(text.replace("transport_url = fake://", ""))
    agent.conf = config.load([str(agent.conf_file)])
    assert scheduler.enabled is False


@pytest.mark.parametrize("url", ["carrier-pigeon://loft/", "rabbit://[::1/", "not a url"])
def test_a_bad_transport_url_is_named(agent_with, url):
    with pytest.raises(errors.ConfigError, match="transport_url"):
        MessagingScheduler(agent_with(url))


def test_a_transport_url_that_a_reload_made_bad_is_named(agent):
    scheduler = MessagingScheduler(agent)
    text = agent.conf_file.read_text()
    agent.conf_file.write_text(text.replace("fake://", "carrier-pigeon://loft/"))
    agent.conf = config.load([str(agent.conf_file)])
    agent.conf.register_opts(opts.OPTIONS, group="scheduler")
    with pytest.raises(errors.ConfigError, match="transport_url"):
        scheduler.sync_instance_info("host1", [A])


def test_a_broker_that_is_away_is_named_without_its_password(agent_with):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        agent = agent_with(f"rabbit://me:secret@127.0.0.1:{port}/")
        with pytest.raises(SchedulerUnavailable, match=rf"127\.0\.0\.1:{port}") as caught:
            MessagingScheduler(agent).sync_instance_info("host1", [A])
    assert "secret" not in str(caught.value)


def test_d20_a_broker_that_hangs_costs_a_pass_its_time_and_no_second_thread(agent_with):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        agent = agent_with(f"rabbit://guest:guest@127.0.0.1:{port}/", send_timeout=1)
        scheduler = MessagingScheduler(agent)
        started = time.monotonic()
        with pytest.raises(SchedulerUnavailable, match="within 1 seconds"):
            scheduler.sync_instance_info("host1", [A])
        assert time.monotonic() - started < 3
        with pytest.raises(SchedulerUnavailable, match="an earlier message still hangs"):
            scheduler.sync_instance_info("host1", [A])
        eventually(lambda: not scheduler._sending.is_alive())


def test_an_update_server_feeds_its_host_manager(agent):
    hosts = HostManager(Inventory([A]))
    with server.UpdateServer(agent.conf, hosts, "one"):
        scheduler = MessagingScheduler(agent)
        scheduler.sync_instance_info("host1", [A])
        eventually(lambda: hosts.hosts == ["host1"])
        eventually(lambda: hosts.instances("host1") == {A})
        scheduler.sync_instance_info("host1", [A])
        eventually(lambda: hosts.is_confirmed("host1"))
        send(agent, "update_instance_info", host_name="host1", instance_info=[B])
        eventually(lambda: hosts.instances("host1") == {A, B})
        send(agent, "delete_instance_info", host_name="host1", instance_uuid=A)
        eventually(lambda: hosts.instances("host1") == {B})


def test_a_database_that_is_away_is_said_once_for_a_host_and_again_when_it_was_back(caplog):
    inventory = Inventory([A])
    hosts = HostManager(inventory)
    endpoint = server.Endpoint(hosts)
    inventory.available = False
    for _ in range(3):
        endpoint.sync_instance_info({}, "host1", [A])
    assert caplog.text.count("host1 are not known: The database does not answer.") == 1
    inventory.available = True
    endpoint.sync_instance_info({}, "host1", [A])
    endpoint.sync_instance_info({}, "host1", [A])
    assert hosts.is_confirmed("host1")
    inventory.available = False
    endpoint.sync_instance_info({}, "host1", [A, B])
    assert caplog.text.count("host1 are not known") == 2


def nova_list(*uuids):
    """Return an InstanceList as Nova serializes it."""
    return {
        "nova_object.name": "InstanceList",
        "nova_object.namespace": "nova",
        "nova_object.version": "2.6",
        "nova_object.data": {
            "objects": [
                {"nova_object.name": "Instance", "nova_object.data": {"uuid": uuid, "id": 7}}
                for uuid in uuids
            ]
        },
    }


@pytest.mark.parametrize("info", [[A, B], nova_list(A, B)])
def test_an_update_names_instances_by_uuid_or_as_nova_serializes_them(info):
    assert server.uuids_of(info) == [A, B]


@pytest.mark.parametrize("info", [None, A, [1], {}, {"nova_object.data": {"objects": [None]}}])
def test_an_update_in_another_form_is_left_out(info, caplog):
    hosts = HostManager(Inventory([A]))
    endpoint = server.Endpoint(hosts)
    endpoint.update_instance_info({}, "host1", info)
    assert "left out" in caplog.text
    assert hosts.hosts == []
