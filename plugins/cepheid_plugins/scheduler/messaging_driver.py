# SPDX-License-Identifier: Apache-2.0
"""Schedulers that listen on the message bus, as Nova's do: fan-out casts by oslo.messaging.

The transport is that of ``[DEFAULT] transport_url`` and ``[oslo_messaging_rabbit]``, as
nova-compute's. Source: Nova's scheduler/rpcapi.py; oslo.messaging, RPCClient.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import amqp
import kombu.exceptions
import oslo_messaging
from oslo_config import cfg
from oslo_context import context as oslo_context

from cepheid_plugins.scheduler import driver, opts, transport

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: What a broker that is away or refuses comes out as. Connecting, oslo.messaging passes on the
#: errors of the libraries beneath it.
BROKER_ERRORS = (
    oslo_messaging.MessagingException,
    kombu.exceptions.KombuError,
    amqp.AMQPError,
    OSError,
)


class MessagingScheduler(driver.Scheduler):
    """Sends each message over a connection of its own, which is closed again.

    One message in two minutes is worth no open connection: its heartbeats would cost the broker
    more, and while the broker is away they would fill the log.

    :raises ConfigError: the transport's URL cannot be used
    """

    options = opts.OPTIONS

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._sending: _Message | None = None
        if not self.enabled:
            LOG.info("[DEFAULT] transport_url is not set, so no scheduler is told of instances.")

    @property
    def enabled(self) -> bool:
        """Whether a transport_url is configured; oslo.messaging itself would guess one."""
        return transport.is_configured(self._agent.conf)

    def check(self) -> None:
        """Look whether the transport can be used; the broker is not asked."""
        transport.open_transport(self._agent.conf)

    def sync_instance_info(self, host: str, uuids: Sequence[str], request_id: str = "") -> None:
        self._cast("sync_instance_info", request_id, host_name=host, instance_uuids=list(uuids))

    def _cast(self, method: str, request_id: str, **arguments: Any) -> None:
        """Send a message to all schedulers; wait for it no longer than send_timeout."""
        conf = self._agent.conf
        broker = _name(transport.url(conf))
        with self._lock:
            if self._sending is not None and self._sending.is_alive():
                raise driver.SchedulerUnavailable(
                    f"No scheduler was told: an earlier message still hangs on its way to "
                    f"{broker}. Look at the message broker."
                )
            message = _Message(conf, method, request_id, arguments)
            self._sending = message
        message.start()
        message.join(conf.scheduler.send_timeout)
        if message.is_alive():
            raise driver.SchedulerUnavailable(
                f"The message broker {broker} took no message within "
                f"{conf.scheduler.send_timeout} seconds. Look at it, or raise [scheduler] "
                "send_timeout."
            )
        if isinstance(message.error, BROKER_ERRORS):
            raise driver.SchedulerUnavailable(
                f"The message broker {broker} took no message: "
                f"{_one_line(message.error)}. Look at it, and at [DEFAULT] transport_url."
            ) from message.error
        if message.error is not None:
            raise message.error


class _Message(threading.Thread):
    """One message on its way, on a thread of its own: a broker that hangs keeps nobody else."""

    def __init__(
        self, conf: cfg.ConfigOpts, method: str, request_id: str, arguments: dict[str, Any]
    ) -> None:
        super().__init__(name="cepheid-scheduler-message", daemon=True)
        self._conf = conf
        self._method = method
        self._request_id = request_id
        self._arguments = arguments
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._send()
        except Exception as err:  # noqa: BLE001 - raised on the caller's thread
            self.error = err

    def _send(self) -> None:
        bus = transport.open_transport(self._conf)
        try:
            client = oslo_messaging.get_rpc_client(
                bus,
                oslo_messaging.Target(topic=driver.TOPIC, version=driver.VERSION, fanout=True),
                # Each broker of a cluster is tried once.
                retry=max(0, len(transport.url(self._conf).hosts) - 1),
            )
            client.cast(_context(self._request_id), self._method, **self._arguments)
        finally:
            bus.cleanup()


def _context(request_id: str) -> dict[str, Any]:
    """Return the context of a message: an administrator's, as Nova's own periodic tasks have."""
    context = oslo_context.RequestContext(
        is_admin=True, roles=["admin"], request_id=request_id or None, overwrite=False
    )
    values: dict[str, Any] = context.to_dict()
    return {**values, "user_id": None, "read_deleted": "no"}


def _name(url: oslo_messaging.TransportURL) -> str:
    """Return a transport's kind and hosts, without the passwords."""
    hosts = ", ".join(f"{host.hostname}:{host.port or '(default port)'}" for host in url.hosts)
    return f"{url.transport}://{hosts}"


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".") or type(err).__name__
