# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: what Nova writes and tells of volumes' counters.

volume_notifications.py NOVA_CONF poll
    takes the counters of a volume as a poll does, at the time that JSON says, and prints the
    notifications that Nova sends
volume_notifications.py NOVA_CONF detach
    takes them as a detachment does
"""

import datetime
import json
import sys
import types

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

from nova import config, context, objects, rpc
from nova.compute import manager
from oslo_messaging.notify import _impl_test
from oslo_utils import timeutils

NAMES = {"reads": "rd_req", "read_bytes": "rd_bytes", "writes": "wr_req", "write_bytes": "wr_bytes"}


def poll(admin, given, us):
    usage = {theirs: given["counters"][ours] for ours, theirs in NAMES.items()}
    usage["volume"] = given["volume"]
    usage["instance"] = objects.Instance.get_by_uuid(admin, given["instance"])
    manager.ComputeManager._update_volume_usage_cache(us, admin, [usage])


def detach(admin, given, us):
    instance = objects.Instance.get_by_uuid(admin, given["instance"])
    usage = objects.VolumeUsage(admin)
    usage.volume_id, usage.instance_uuid = given["volume"], instance.uuid
    usage.project_id, usage.user_id = instance.project_id, instance.user_id
    usage.availability_zone = instance.availability_zone
    for name, value in given["counters"].items():
        setattr(usage, f"curr_{name}", value)
    usage.save(update_totals=True)


def main():
    conf, command = sys.argv[1:]
    config.parse_args(["volume_notifications.py", "--config-file", conf])
    objects.register_all()
    rpc.init(config.CONF)
    given = json.loads(sys.stdin.read())
    timeutils.set_time_override(datetime.datetime.fromisoformat(given["now"]))
    us = types.SimpleNamespace(host="host1", notifier=rpc.get_notifier("compute", "host1"))
    {"poll": poll, "detach": detach}[command](context.get_admin_context(), given, us)
    print(json.dumps([message for _, message, _, _ in _impl_test.NOTIFICATIONS]))


if __name__ == "__main__":
    main()
