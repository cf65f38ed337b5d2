# SPDX-License-Identifier: Apache-2.0
"""Schedulers that listen on the message bus, as Nova's do: fan-out casts by oslo.messaging.

The transport is that of ``[DEFAULT] transport_url`` and ``[oslo_messaging_rabbit]``, as
nova-compute's. Without a transport_url nothing is loaded. Source: Nova's scheduler/rpcapi.py;
oslo.messaging, RPCClient.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from cepheid import config, libraries
from cepheid_plugins.scheduler import driver, opts

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: As oslo.messaging has it, which is not loaded (half a second) to find out that it is not needed.
_TRANSPORT_URL = cfg.StrOpt("transport_url")


class MessagingScheduler(driver.Scheduler):
    """Sends each message over a connection of its own, which is closed again.

    One message in two minutes is worth no open connection: its heartbeats would cost the broker
    more, and while the broker is away they would fill the log.

    :raises ConfigError: the transport's URL cannot be used
    :raises PluginError: oslo.messaging is not installed
    """

    options = opts.OPTIONS

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._sending: _Message | None = None
        self._configured: tuple[cfg.ConfigOpts, bool] | None = None
        if self.enabled:
            _rpc().open_transport(agent.conf).cleanup()
        else:
            LOG.info("[DEFAULT] transport_url is not set, so no scheduler is told of instances.")

    @property
    def enabled(self) -> bool:
        """Whether a file sets transport_url; without one oslo.messaging would guess."""
        conf = self._agent.conf
        if self._configured is None or self._configured[0] is not conf:
            self._configured = (conf, _has_transport_url(conf))
        return self._configured[1]

    def sync_instance_info(self, host: str, uuids: Sequence[str], request_id: str = "") -> None:
        self._cast("sync_instance_info", request_id, host_name=host, instance_uuids=list(uuids))

    def _cast(self, method: str, request_id: str, **arguments: Any) -> None:
        """Send a message to all schedulers; wait for it no longer than send_timeout."""
        rpc, conf = _rpc(), self._agent.conf
        broker = rpc.broker(conf)
        with self._lock:
            if self._sending is not None and self._sending.is_alive():
                raise driver.SchedulerUnavailable(
                    f"No scheduler was told: an earlier message still hangs on its way to "
                    f"{broker}. Look at the message broker."
                )
            message = self._sending = _Message(
                functools.partial(rpc.cast, conf, method, request_id, arguments)
            )
            message.start()
        message.join(conf.scheduler.send_timeout)
        if message.is_alive():
            raise driver.SchedulerUnavailable(
                f"The message broker {broker} took no message within "
                f"{conf.scheduler.send_timeout} seconds. Look at it, or raise [scheduler] "
                "send_timeout."
            )
        if isinstance(message.error, rpc.BROKER_ERRORS):
            raise driver.SchedulerUnavailable(
                f"The message broker {broker} took no message: "
                f"{_one_line(message.error)}. Look at it, and at [DEFAULT] transport_url."
            ) from message.error
        if message.error is not None:
            raise message.error


class _Message(threading.Thread):
    """One message on its way, on a thread of its own: a broker that hangs keeps nobody else."""

    def __init__(self, send: Callable[[], None]) -> None:
        super().__init__(name="cepheid-scheduler-message", daemon=True)
        self._send = send
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._send()
        except Exception as err:  # noqa: BLE001 - raised on the caller's thread
            self.error = err


@functools.cache
def _rpc() -> Any:
    """Load what wraps oslo.messaging.

    :raises PluginError: it is not installed
    """
    return libraries.load_part(
        "cepheid_plugins.scheduler.rpc",
        "Schedulers cannot be told",
        "set [scheduler] driver = none",
    )


def _has_transport_url(conf: cfg.ConfigOpts) -> bool:
    """Tell whether the configuration's files say where the message bus is."""
    files = cfg.ConfigOpts()
    files.register_opt(_TRANSPORT_URL)
    files([], project="cepheid", default_config_files=conf.config_file or [],
          default_config_dirs=conf.config_dir or [])  # fmt: skip
    return config.where_set(files, "transport_url") != "default"


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".") or type(err).__name__
