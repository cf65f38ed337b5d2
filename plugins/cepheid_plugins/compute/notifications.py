# SPDX-License-Identifier: Apache-2.0
"""Telling whoever listens what is done to instances, as Nova's legacy notifications do.

They go where ``[oslo_messaging_notifications]`` says. Without a driver there, or with noop alone,
nothing is read, built or loaded. Source: Nova's notifications; the fields are those of its
``compute.instance.*`` payloads.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from cepheid import errors
from cepheid.notices import Notices
from cepheid_plugins.compute.kinds import Operation
from cepheid_plugins.database.records import Instance, InstanceFacts
from cepheid_plugins.notifications import opts
from cepheid_plugins.notifications.driver import Notification

if TYPE_CHECKING:
    from cepheid.agent import Agent

LOG = logging.getLogger(__name__)

#: The system metadata that came from the image.
IMAGE_PREFIX = "image_"


class Notifications:
    """The notifications of one agent's operations.

    :raises CepheidError: they are configured and cannot be sent: a library, a driver or the
        outbox cannot be used
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._database = agent.driver("database")
        self._notices = Notices(LOG)
        #: The drivers that a configuration names.
        self._configured: tuple[cfg.ConfigOpts, frozenset[str]] | None = None
        if self.wanted() or self.wanted(versioned=True):
            agent.driver("notifications")

    def started(self, operation: Operation, instances: Iterable[Instance], request: str) -> None:
        """Tell that an operation begins, of each instance that is claimed for it."""
        self.tell(f"{operation.notification}.start", instances, request)

    def ended(self, operation: Operation, instances: Iterable[Instance], request: str) -> None:
        """Tell that an operation succeeded."""
        self.tell(f"{operation.notification}.end", instances, request)

    def tell(self, event: str, instances: Iterable[Instance], request: str) -> None:
        """Tell that something happened to instances.

        It has happened, whether it can be told or not: an error is logged, not raised.

        :param event: what, without ``compute.instance.``
        """
        uuids = [row.uuid for row in instances]
        if not uuids or not self.wanted():
            return
        self._notices.begin()
        try:
            self._tell(event, uuids, request)
        except errors.CepheidError as err:
            self._notices.say("tell", f"What is done to instances is not told: {err}")
        self._notices.end(complete=True)

    def _tell(self, event: str, uuids: Sequence[str], request: str) -> None:
        facts = self._database.instance_facts(uuids)
        self.send(
            [
                Notification(f"compute.instance.{event}", payload(facts[uuid]), request_id=request)
                for uuid in uuids
                if uuid in facts
            ]
        )

    def wanted(self, versioned: bool = False) -> bool:
        """Tell whether notifications of a format are sent at all."""
        drivers = self._drivers()
        chosen = self._agent.conf.notifications.notification_format
        return not drivers <= {"noop"} and chosen in ("both", opts.format_name(versioned))

    def send(self, notifications: Sequence[Notification]) -> None:
        """Send those whose format is wanted, in this order.

        :raises NotificationsRefused: they were not taken
        """
        wanted = [one for one in notifications if self.wanted(one.versioned)]
        if wanted:
            self._agent.driver("notifications").send(wanted)

    def are_silenced(self) -> bool:
        """Tell whether the only driver that the configuration names is noop: none shall be sent."""
        return self._drivers() == {"noop"}

    def _drivers(self) -> frozenset[str]:
        """Return the drivers that the configuration names; its files are read once."""
        conf = self._agent.conf
        if self._configured is None or self._configured[0] is not conf:
            conf.register_opts(opts.OPTIONS, group="notifications")
            self._configured = (conf, frozenset(_drivers_of(conf)))
        return self._configured[1]


def payload(facts: InstanceFacts) -> dict[str, Any]:
    """Return what a legacy notification says of an instance."""
    columns, flavor = facts.columns, facts.flavor
    root_gb, ephemeral_gb = columns["root_gb"] or 0, columns["ephemeral_gb"] or 0
    return {
        "tenant_id": columns["project_id"],
        "user_id": columns["user_id"],
        "instance_id": columns["uuid"],
        "display_name": columns["display_name"],
        "reservation_id": columns["reservation_id"],
        "hostname": columns["hostname"],
        "instance_type": flavor.get("name"),
        "instance_type_id": columns["instance_type_id"],
        "instance_flavor_id": flavor.get("flavorid"),
        "architecture": columns["architecture"],
        "memory_mb": flavor.get("memory_mb", columns["memory_mb"]),
        "vcpus": flavor.get("vcpus", columns["vcpus"]),
        "root_gb": flavor.get("root_gb", root_gb),
        "ephemeral_gb": flavor.get("ephemeral_gb", ephemeral_gb),
        "disk_gb": flavor.get("root_gb", root_gb) + flavor.get("ephemeral_gb", ephemeral_gb),
        "host": columns["host"],
        "node": columns["node"],
        "availability_zone": columns["availability_zone"],
        "cell_name": columns["cell_name"] or "",
        "created_at": f"{columns['created_at']}+00:00" if columns["created_at"] else "None",
        **{name: _time(columns[name]) for name in ("launched_at", "terminated_at", "deleted_at")},
        "image_ref_url": columns["image_ref"],
        **{name: columns[name] for name in ("os_type", "kernel_id", "ramdisk_id")},
        "state": columns["vm_state"],
        "state_description": columns["task_state"] or "",
        "progress": columns["progress"] or "",
        **{name: _text(columns[name]) for name in ("access_ip_v4", "access_ip_v6")},
        "image_meta": {
            key.removeprefix(IMAGE_PREFIX): value
            for key, value in facts.system_metadata.items()
            if key.startswith(IMAGE_PREFIX)
        },
        "metadata": dict(facts.metadata),
    }


def _time(value: datetime.datetime | None) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%f") if value else ""


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _drivers_of(conf: cfg.ConfigOpts) -> list[str]:
    """Return the notification drivers that the configuration's files name."""
    files = cfg.ConfigOpts()
    files.register_opt(opts.DRIVER, group=opts.OSLO_GROUP)
    files([], project="cepheid", default_config_files=conf.config_file or [],
          default_config_dirs=conf.config_dir or [])  # fmt: skip
    drivers: list[str] = files[opts.OSLO_GROUP].driver
    return drivers
