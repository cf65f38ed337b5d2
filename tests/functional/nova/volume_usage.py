# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: meters volumes as Nova's compute service does, with its own objects.

volume_usage.py NOVA_CONF serve  reads orders, a line of JSON each, and answers each with a line
"""

import datetime
import json
import sys

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

from nova import config, context, objects
from nova.db.main import api as db_api

NAMES = ("reads", "read_bytes", "writes", "write_bytes")


def poll(admin, instance, volume, counters):
    return save(admin, instance, volume, counters, is_detach=False)


def detach(admin, instance, volume, counters):
    """Count what the volume has now, and end the attachment: in Nova's order."""
    told = save(admin, instance, volume, counters, is_detach=True)
    objects.BlockDeviceMapping.get_by_volume_and_instance(admin, volume, instance).destroy()
    return told


def attach(admin, instance, volume):
    mapping = objects.BlockDeviceMapping(admin, instance_uuid=instance)
    mapping.source_type = mapping.destination_type = "volume"
    mapping.volume_id, mapping.device_name = volume, "/dev/vdb"
    mapping.create()


def read(admin):
    """Return what Nova would tell of each row."""
    found = db_api.vol_get_usage_by_time(admin, datetime.datetime(2000, 1, 1))
    usages = [
        objects.VolumeUsage._from_db_object(admin, objects.VolumeUsage(), row) for row in found
    ]
    return [described(usage) for usage in sorted(usages, key=lambda usage: usage.id)]


def save(admin, instance, volume, counters, is_detach):
    owner = objects.Instance.get_by_uuid(admin, instance)
    usage = objects.VolumeUsage(admin)
    usage.volume_id, usage.instance_uuid = volume, owner.uuid
    usage.project_id, usage.user_id = owner.project_id, owner.user_id
    usage.availability_zone = owner.availability_zone
    for name, value in zip(NAMES, counters, strict=True):
        setattr(usage, f"curr_{name}", value)
    usage.save(update_totals=is_detach)
    return described(usage)


def described(usage):
    """Return the payload of Nova's notification, and what its sums are made of."""
    return {
        "payload": usage.to_dict(),
        "tot": [getattr(usage, f"tot_{name}") for name in NAMES],
        "curr": [getattr(usage, f"curr_{name}") for name in NAMES],
    }


def main():
    conf, _serve = sys.argv[1:]
    config.parse_args(["volume_usage.py", "--config-file", conf])
    objects.register_all()
    admin = context.get_admin_context()
    orders = {order.__name__: order for order in (poll, detach, attach, read)}
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(orders[name](admin, *arguments)), flush=True)


if __name__ == "__main__":
    main()
