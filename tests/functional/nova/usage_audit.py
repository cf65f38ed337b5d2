# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: Nova's own usage audit, and what it reads, with Nova's own objects.

usage_audit.py NOVA_CONF write   makes the instances that JSON says; prints their uuids by name
usage_audit.py NOVA_CONF audit   runs the audit of the host and at the time that JSON says;
                                 prints the notifications that it sends and its records
usage_audit.py NOVA_CONF begin   begins the audit of the period that JSON says, and no more
"""

import datetime
import json
import sys
import types

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

from nova import config, context, objects, rpc, utils
from nova.compute import manager
from nova.db.main import api as db_api
from nova.db.main import models
from nova.network import model as network_model
from oslo_messaging.notify import _impl_test
from oslo_utils import timeutils

TASK = "instance_usage_audit"


def write(admin, given):
    made = {}
    for wanted in given:
        instance = objects.Instance(admin)
        instance.flavor = objects.Flavor(admin, **wanted["flavor"])
        instance.old_flavor = instance.new_flavor = None
        instance.metadata = wanted["metadata"]
        instance.system_metadata = wanted["system_metadata"]
        instance.numa_topology = instance.trusted_certs = instance.vcpu_model = None
        instance.device_metadata = instance.resources = None
        instance.keypairs = objects.KeyPairList(objects=[])
        for name, value in wanted["columns"].items():
            setattr(instance, name, value)
        instance.create()
        instance.info_cache.network_info = network_model.NetworkInfo.hydrate(
            json.dumps(wanted["network_info"])
        )
        instance.info_cache.save()
        for volume in wanted["devices"]:
            objects.BlockDeviceMapping(admin, instance_uuid=instance.uuid, **volume).create()
        if wanted["destroyed"]:
            instance.destroy()
        made[instance.display_name] = instance.uuid
        set_columns(instance.uuid, wanted["times"])
    return made


def set_columns(uuid, times):
    """Give an instance's row the times that Nova's objects would not."""
    table = models.Instance.__table__
    values = {name: datetime.datetime.fromisoformat(text) for name, text in times.items()}
    if values:
        with db_api.get_engine().begin() as connection:
            connection.execute(table.update().where(table.c.uuid == uuid).values(**values))


def audit(admin, given):
    rpc.init(config.CONF)
    timeutils.set_time_override(datetime.datetime.fromisoformat(given["now"]))
    host = given["host"]
    # All that this task asks of its manager.
    us = types.SimpleNamespace(host=host, notifier=rpc.get_notifier("compute", host))
    manager.ComputeManager._instance_usage_audit(us, admin)
    begin, end = utils.last_completed_audit_period()
    logs = objects.TaskLogList.get_all(admin, TASK, begin, end, host=host)
    columns = ("state", "message", "task_items", "errors")
    return {
        "sent": [message for _, message, _, _ in _impl_test.NOTIFICATIONS],
        "logs": [{name: getattr(log, name) for name in columns} for log in logs],
    }


def begin(admin, given):
    log = objects.TaskLog(admin, task_name=TASK, host=given["host"], task_items=1)
    log.message = "Instance usage audit started..."
    log.period_beginning, log.period_ending = (
        datetime.datetime.fromisoformat(given[name]).replace(tzinfo=datetime.UTC)
        for name in ("begin", "end")
    )
    log.begin_task()


def main():
    conf, command = sys.argv[1:]
    config.parse_args(["usage_audit.py", "--config-file", conf])
    objects.register_all()
    admin = context.get_admin_context()
    given = json.loads(sys.stdin.read() or "null")
    commands = {"write": write, "audit": audit, "begin": begin}
    print(json.dumps(commands[command](admin, given), default=str))


if __name__ == "__main__":
    main()
