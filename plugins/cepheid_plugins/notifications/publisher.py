# SPDX-License-Identifier: Apache-2.0
"""Sending messages by oslo.messaging's notification drivers, and learning of failure.

oslo.messaging's own Notifier gives each attempt a new message id, and its messaging drivers log
an error of the transport and return. So what they do is done here, by the same transport; drivers
of other kinds are called as the Notifier calls them.
Source: oslo.messaging, notify/notifier.py and notify/messaging.py.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import oslo_messaging
from oslo_config import cfg
from oslo_context import context as oslo_context
from oslo_messaging import opts as oslo_messaging_opts
from oslo_messaging.notify import messaging

from cepheid import errors, loading
from cepheid_plugins.notifications.outbox import Message

LOG = logging.getLogger(__name__)

NAMESPACE = "oslo.messaging.notify.drivers"

#: Drivers that nothing keeps from doing their work at once.
DIRECT = frozenset({"log", "noop", "test"})

#: Where Nova's notifications go on a broker, and where their consumers look for them.
EXCHANGE = "nova"


class BrokerError(errors.CepheidError):
    """The broker is away, or refused a message, or did not confirm it."""


def register_options(conf: cfg.ConfigOpts) -> None:
    """Register oslo.messaging's options, with Nova's exchange where none is set."""
    for group, options in oslo_messaging_opts.list_opts():
        conf.register_opts(options, group=group)
    conf.set_default("control_exchange", EXCHANGE)


class Way(enum.Enum):
    """How notifications are sent."""

    #: Not at all: no driver is named, or noop alone.
    NONE = "none"
    #: By drivers that need no broker.
    AT_ONCE = "at once"
    #: By some that need one: through the outbox.
    OUTBOX = "outbox"


def way(conf: cfg.ConfigOpts) -> Way:
    """Tell how notifications are sent as `conf` says."""
    register_options(conf)
    names = set(conf.oslo_messaging_notifications.driver)
    if names <= {"noop"}:
        return Way.NONE
    return Way.AT_ONCE if names <= DIRECT else Way.OUTBOX


class OsloPublisher:
    """Sends each message by all drivers that ``[oslo_messaging_notifications]`` names.

    For one thread at a time.

    :param get_conf: returns the present configuration; it is read whenever the publisher opens
    """

    def __init__(self, get_conf: Callable[[], cfg.ConfigOpts]) -> None:
        self._get_conf = get_conf
        self._conf: cfg.ConfigOpts | None = None
        self._way = Way.NONE
        self._drivers: dict[bool, list[Any]] = {}
        self._transport: Any = None
        self._broker = ""
        self._retry = 0
        #: Of which message how many destinations have it already.
        self._progress = ("", 0)

    def open(self) -> None:
        """Load the drivers. The transport connects when it is first used.

        :raises ConfigError: a driver or the transport cannot be had
        """
        conf = self._get_conf()
        if conf is self._conf:
            return
        self.close()
        self._way = way(conf)
        options = conf.oslo_messaging_notifications
        factories = _find(options.driver)
        if self._way is Way.OUTBOX:
            with _named():
                url = oslo_messaging.TransportURL.parse(conf, options.transport_url)
                self._transport = oslo_messaging.get_notification_transport(conf, url)
            self._broker = _name(url)
            # The outbox tries again. At one time, each broker of a cluster is tried once.
            self._retry = options.retry if options.retry >= 0 else max(0, len(url.hosts) - 1)
        topics = {False: options.topics, True: conf.notifications.versioned_notifications_topics}
        self._drivers = {
            versioned: [make(conf, topics=names, transport=self._transport) for make in factories]
            for versioned, names in topics.items()
        }
        self._conf = conf

    def publish(self, message: Message) -> None:
        """Send a message by every driver, and to every topic.

        Called again after an error, it goes on where it was.

        :raises ConfigError: it cannot be sent as things are configured
        :raises BrokerError: the broker did not take it
        :raises Exception: whatever another driver raises
        """
        self.open()
        if self._way is Way.NONE:
            raise errors.ConfigError(
                "[oslo_messaging_notifications] names no driver, or noop alone; what waits is kept."
            )
        context, body = _context(message.request_id), json.loads(message.body)
        known, done = self._progress
        if known != message.message_id:
            done = 0
        for number, send in enumerate(self._destinations(message.versioned, body["priority"])):
            if number >= done:
                # The transport adds to what it is given.
                send(dict(context), dict(body))
                self._progress = (message.message_id, number + 1)

    def close(self) -> None:
        """Close the connection, if there is one."""
        transport, self._transport, self._conf = self._transport, None, None
        if transport is not None:
            try:
                transport.cleanup()
            except Exception:
                LOG.debug("The transport did not close", exc_info=True)

    def _destinations(
        self, versioned: bool, priority: str
    ) -> Iterator[Callable[[dict[str, Any], dict[str, Any]], None]]:
        for driver in self._drivers[versioned]:
            if isinstance(driver, messaging.MessagingDriver):
                for topic in driver.topics:
                    target = oslo_messaging.Target(topic=f"{topic}.{priority.lower()}")
                    yield functools.partial(self._send, target, version=driver.version)
            else:
                yield functools.partial(driver.notify, priority=priority, retry=self._retry)

    def _send(
        self, target: Any, context: dict[str, Any], body: dict[str, Any], version: float
    ) -> None:
        try:
            self._transport._send_notification(
                target, context, body, version=version, retry=self._retry
            )
        except Exception as err:
            reason = " ".join(str(err).split()).rstrip(".") or type(err).__name__
            raise BrokerError(f"The message broker {self._broker} took none: {reason}.") from err


def _find(names: list[str]) -> list[Callable[..., Any]]:
    """Return the classes of drivers.

    :raises ConfigError: there is none of a name, or it cannot be used
    """
    offered = {plugin.name: plugin for plugin in loading.discover(NAMESPACE)}
    found = []
    for name in names:
        if name == "routing":
            raise errors.ConfigError(
                "[oslo_messaging_notifications] driver = routing cannot be used here: it reads "
                "its rules from oslo.config's global configuration. Name the drivers themselves."
            )
        if name not in offered:
            raise errors.ConfigError(
                f"[oslo_messaging_notifications] driver = {name}: no such driver is installed; "
                f"installed are: {', '.join(sorted(offered))}."
            )
        try:
            found.append(offered[name].load())
        except errors.PluginError as err:
            raise errors.ConfigError(
                f"[oslo_messaging_notifications] driver = {name} cannot be loaded: {err}"
            ) from err
    return found


class _Context(oslo_context.RequestContext):
    """The context of a message: an administrator's, as that of Nova's periodic tasks."""

    def __init__(self, request_id: str) -> None:
        # What the thread that sends logs of a message is to name its request. A task's own
        # thread has the task's context.
        current = oslo_context.get_current()
        super().__init__(
            is_admin=True,
            roles=["admin"],
            request_id=request_id or None,
            overwrite=isinstance(current, _Context),
        )


def _context(request_id: str) -> dict[str, Any]:
    values: dict[str, Any] = _Context(request_id).to_dict()
    return {**values, "user_id": None, "read_deleted": "no"}


def _name(url: oslo_messaging.TransportURL) -> str:
    """Return a transport's kind and hosts, without the passwords."""
    hosts = ", ".join(f"{host.hostname}:{host.port or '(default port)'}" for host in url.hosts)
    return f"{url.transport}://{hosts}"


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Let an error of the configuration name the option."""
    try:
        yield
    except (oslo_messaging.MessagingException, ValueError) as err:
        raise errors.ConfigError(
            f"Notifications cannot be sent: {str(err).rstrip('.')}. Look at transport_url in "
            "[oslo_messaging_notifications] and [DEFAULT]."
        ) from err
