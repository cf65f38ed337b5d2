# SPDX-License-Identifier: Apache-2.0
"""The message bus as it is configured: ``[DEFAULT] transport_url`` and oslo.messaging's groups."""

from __future__ import annotations

import oslo_messaging
from oslo_config import cfg
from oslo_utils import importutils

from cepheid import config, errors

#: What oslo.messaging's RPC reads from whatever configuration it is given, and registers with
#: oslo.config's global one only (18.3.1). Releases that have no such options need nothing.
_UNREGISTERED = {
    "oslo_messaging_metrics": "oslo_messaging._metrics.client",
    "oslo_messaging_tracing": "oslo_messaging._tracing.client",
}


def url(conf: cfg.ConfigOpts) -> oslo_messaging.TransportURL:
    """Return the URL of the bus; where none is configured, the one that oslo.messaging guesses.

    :raises ConfigError: it is no URL
    """
    try:
        return oslo_messaging.TransportURL.parse(conf)
    except (oslo_messaging.MessagingException, ValueError) as err:
        raise _bad(err) from err


def is_configured(conf: cfg.ConfigOpts) -> bool:
    """Tell whether somebody has said where the bus is; oslo.messaging guesses this machine.

    :raises ConfigError: it is no URL
    """
    url(conf)  # registers the option as well
    return config.where_set(conf, "transport_url") != "default"


def open_transport(conf: cfg.ConfigOpts) -> oslo_messaging.RPCTransport:
    """Return the transport; it connects when it is first used.

    :raises ConfigError: its URL or an option cannot be used
    """
    for group, module in _UNREGISTERED.items():
        options = getattr(importutils.try_import(module), group, ())
        conf.register_opts(options, group=group)
    try:
        return oslo_messaging.get_rpc_transport(conf)
    except (oslo_messaging.MessagingException, ValueError) as err:
        raise _bad(err) from err


def _bad(err: Exception) -> errors.ConfigError:
    reason = str(err).rstrip(".")
    return errors.ConfigError(
        f"The message bus cannot be used: {reason}. Look at [DEFAULT] transport_url."
    )
