# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: its scheduler's receiving side, and a compute's messages to it.

scheduler.py NOVA_CONF listen    answers each host named on standard input, a line each, with what
                                 Nova's HostManager holds: {"updated": …, "instances": […]}
scheduler.py NOVA_CONF tell      sends what standard input says, a line each, as nova-compute does:
                                 ["sync" | "update" | "delete", host, [uuid, …]]
"""

import json
import sys

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

import oslo_messaging
from nova import config, context, objects, rpc
from nova.objects import base as objects_base
from nova.scheduler import manager, rpcapi
from nova.scheduler.client import query

HOST = "host1"


class SchedulerManager(manager.SchedulerManager):
    """Nova's own, without the placement service, which it asks only when it chooses a host."""

    placement_client = None


def map_host(admin):
    """Let Nova find the cell of the host, as ``nova-manage cell_v2`` does."""
    cell = objects.CellMapping(
        admin,
        uuid="7b4d0b6c-9d2c-4a49-9d5b-3f5c9b1f4c01",
        name="cell1",
        transport_url=config.CONF.transport_url,
        database_connection=config.CONF.database.connection,
    )
    cell.create()
    objects.HostMapping(admin, host=HOST, cell_mapping=cell).create()


def listen(admin):
    map_host(admin)
    scheduler = SchedulerManager()
    server = rpc.get_server(
        oslo_messaging.Target(topic=rpcapi.RPC_TOPIC, server="scheduler1"),
        [scheduler],
        objects_base.NovaObjectSerializer(),
    )
    server.start()
    print("listening", flush=True)
    for line in sys.stdin:
        known = scheduler.host_manager._instance_info.get(line.strip(), {})
        answer = {"updated": known.get("updated"), "instances": sorted(known.get("instances", []))}
        print(json.dumps(answer), flush=True)
    server.stop()
    server.wait()


def tell(admin):
    client = query.SchedulerQueryClient()
    for line in sys.stdin:
        what, host, uuids = json.loads(line)
        if what == "sync":
            client.sync_instance_info(admin, host, uuids)
        elif what == "delete":
            client.delete_instance_info(admin, host, uuids[0])
        else:
            rows = [objects.Instance(admin, uuid=uuid) for uuid in uuids]
            client.update_instance_info(admin, host, objects.InstanceList(objects=rows))


def main():
    conf, command = sys.argv[1:]
    config.parse_args(["scheduler.py", "--config-file", conf])
    objects.register_all()
    {"listen": listen, "tell": tell}[command](context.get_admin_context())
    rpc.cleanup()


if __name__ == "__main__":
    main()
