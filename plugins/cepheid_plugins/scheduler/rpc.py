# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging's remote calls on the bus of ``[DEFAULT] transport_url``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import amqp
import kombu.exceptions
import oslo_messaging
from oslo_config import cfg
from oslo_context import context as oslo_context
from oslo_utils import importutils

from cepheid import errors
from cepheid_plugins.scheduler import driver

#: What a broker that is away or refuses comes out as. Connecting, oslo.messaging passes on the
#: errors of the libraries beneath it.
BROKER_ERRORS = (
    oslo_messaging.MessagingException,
    kombu.exceptions.KombuError,
    amqp.AMQPError,
    OSError,
)

#: What oslo.messaging's RPC reads from whatever configuration it is given, and registers with
#: oslo.config's global one only (18.3.1). Releases that have no such options need nothing.
_UNREGISTERED = {
    "oslo_messaging_metrics": "oslo_messaging._metrics.client",
    "oslo_messaging_tracing": "oslo_messaging._tracing.client",
}


def open_transport(conf: cfg.ConfigOpts) -> oslo_messaging.RPCTransport:
    """Return the transport; it connects when it is first used.

    :raises ConfigError: its URL or an option cannot be used
    """
    for group, module in _UNREGISTERED.items():
        options = getattr(importutils.try_import(module), group, ())
        conf.register_opts(options, group=group)
    with _named():
        return oslo_messaging.get_rpc_transport(conf)


def cast(conf: cfg.ConfigOpts, method: str, request_id: str, arguments: dict[str, Any]) -> None:
    """Send a message to all schedulers, over a connection of its own.

    :raises ConfigError: the transport cannot be used
    """
    transport = open_transport(conf)
    try:
        client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(topic=driver.TOPIC, version=driver.VERSION, fanout=True),
            # Each broker of a cluster is tried once.
            retry=max(0, len(_url(conf).hosts) - 1),
        )
        client.cast(_context(request_id), method, **arguments)
    finally:
        transport.cleanup()


def broker(conf: cfg.ConfigOpts) -> str:
    """Return the transport's kind and hosts, without the passwords.

    :raises ConfigError: the transport's URL cannot be used
    """
    url = _url(conf)
    hosts = ", ".join(f"{host.hostname}:{host.port or '(default port)'}" for host in url.hosts)
    return f"{url.transport}://{hosts}"


def _url(conf: cfg.ConfigOpts) -> oslo_messaging.TransportURL:
    with _named():
        return oslo_messaging.TransportURL.parse(conf)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Let an error of the configuration name the option."""
    try:
        yield
    except (oslo_messaging.MessagingException, ValueError) as err:
        reason = str(err).rstrip(".")
        raise errors.ConfigError(
            f"The message bus cannot be used: {reason}. Look at [DEFAULT] transport_url."
        ) from err


def _context(request_id: str) -> dict[str, Any]:
    """Return the context of a message: an administrator's, as Nova's own periodic tasks have."""
    context = oslo_context.RequestContext(
        is_admin=True, roles=["admin"], request_id=request_id or None, overwrite=False
    )
    values: dict[str, Any] = context.to_dict()
    return {**values, "user_id": None, "read_deleted": "no"}
