# SPDX-License-Identifier: Apache-2.0
"""What feeds a :class:`~cepheid_plugins.scheduler.HostManager` from the message bus.

It takes what cepheid's agents and nova-compute send to schedulers. Source: Nova's
scheduler/rpcapi.py, version 4.2, and for the form of an InstanceList oslo.versionedobjects.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import oslo_messaging
from oslo_config import cfg

from cepheid import errors
from cepheid_plugins.scheduler import driver, rpc
from cepheid_plugins.scheduler.host_manager import HostManager

LOG = logging.getLogger(__name__)

#: Where a versioned object's fields are in its serialized form.
_DATA = "nova_object.data"


class Endpoint:
    """The methods that messages name, on a :class:`HostManager`.

    A database that does not answer costs a host its set until the next message; it is said once
    for each host.
    """

    target = oslo_messaging.Target(version=driver.VERSION)

    def __init__(self, host_manager: HostManager) -> None:
        self._hosts = host_manager
        self._failing: set[str] = set()

    def sync_instance_info(
        self, context: Mapping[str, Any], host_name: str, instance_uuids: Iterable[str]
    ) -> None:
        """Take all the instances that a host has."""
        self._take(host_name, lambda: self._hosts.sync_instance_info(host_name, instance_uuids))

    def update_instance_info(
        self, context: Mapping[str, Any], host_name: str, instance_info: Any
    ) -> None:
        """Take some instances that a host has: uuids, or Nova's serialized InstanceList."""
        self._take(
            host_name,
            lambda: self._hosts.update_instance_info(host_name, uuids_of(instance_info)),
        )

    def delete_instance_info(
        self, context: Mapping[str, Any], host_name: str, instance_uuid: str
    ) -> None:
        """Take that a host has an instance no more."""
        self._take(host_name, lambda: self._hosts.delete_instance_info(host_name, instance_uuid))

    def _take(self, host: str, message: Callable[[], None]) -> None:
        try:
            message()
        except errors.CepheidError as err:
            if host not in self._failing:
                LOG.warning("The instances of host %s are not known: %s", host, err)
            self._failing.add(host)
        else:
            self._failing.discard(host)


class UpdateServer:
    """Listens to what hosts tell schedulers, from ``with`` on until its end.

    Each server has a queue of its own for the fan-out, so any number may listen. They also share
    the queue named as the topic, where Nova's conductor asks for a host: beside Nova's scheduler,
    in one virtual host of the broker, this server would take such requests away from it.

    Where the broker is away, it is waited for, at the start and later.

    :param conf: says ``transport_url``, as :func:`cepheid.config.load` returns it
    :param name: of this server, such as its machine's
    :raises ConfigError: the transport's URL cannot be used
    """

    def __init__(self, conf: cfg.ConfigOpts, host_manager: HostManager, name: str) -> None:
        self._transport = rpc.open_transport(conf)
        self._server = oslo_messaging.get_rpc_server(
            self._transport,
            oslo_messaging.Target(topic=driver.TOPIC, server=name),
            [Endpoint(host_manager)],
        )

    def __enter__(self) -> UpdateServer:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End when the messages that have come in are dealt with."""
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()


def uuids_of(instance_info: Any) -> list[str]:
    """Return the uuids in an update: it is a list of them, or Nova's serialized InstanceList.

    :raises CepheidError: it is something else
    """
    try:
        if isinstance(instance_info, Mapping):
            return [row[_DATA]["uuid"] for row in instance_info[_DATA]["objects"]]
    except (KeyError, TypeError) as err:
        raise errors.CepheidError(
            "An update of instances is in a form that is not known; it was left out."
        ) from err
    if isinstance(instance_info, list) and all(isinstance(one, str) for one in instance_info):
        return instance_info
    raise errors.CepheidError("An update names no instances; it was left out.")
