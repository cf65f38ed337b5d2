# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: writes and reads what resource tracking is about, with Nova's objects.

compute_node.py NOVA_CONF write   makes what JSON says: the host's record, instances, migrations;
                                  prints the instances' uuids by name
compute_node.py NOVA_CONF read    prints the live records and the migrations as JSON
"""

import json
import sys
import uuid

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

from nova import config, context, objects
from nova.objects import migration as migration_objects


def flavor(admin, sizes):
    return objects.Flavor(
        admin, id=sizes["id"], flavorid=str(sizes["id"]), name=f"flavor-{sizes['id']}",
        memory_mb=sizes["memory_mb"], vcpus=sizes["vcpus"], root_gb=sizes["root_gb"],
        ephemeral_gb=0, swap=sizes["swap"], rxtx_factor=1.0, vcpu_weight=0, disabled=False,
        is_public=True, extra_specs={}, projects=[], description=None, created_at=None,
        updated_at=None, deleted_at=None, deleted=False,
    )  # fmt: skip


def write(admin):
    wanted = json.load(sys.stdin)
    if wanted["record"]:
        node = objects.ComputeNode(admin, uuid=str(uuid.uuid4()), **wanted["record"])
        node.create()
        node.mapped = 1
        node.save()
    made = {}
    for sizes, columns, volume_backed, move in wanted["instances"]:
        instance = objects.Instance(admin)
        instance.user_id = instance.project_id = "a" * 32
        instance.image_ref, instance.compute_id = str(uuid.uuid4()), 1
        present = flavor(admin, sizes[0])
        others = [flavor(admin, other) for other in sizes[1:]] or [None, None]
        instance.flavor, (instance.old_flavor, instance.new_flavor) = present, others
        instance.instance_type_id = present.id
        for name in ("memory_mb", "vcpus", "root_gb", "ephemeral_gb"):
            setattr(instance, name, getattr(present, name))
        instance.system_metadata, instance.metadata = {}, {}
        instance.numa_topology = instance.trusted_certs = instance.vcpu_model = None
        instance.device_metadata = instance.resources = None
        instance.keypairs = objects.KeyPairList(objects=[])
        instance.locked = False
        for name, value in columns.items():
            setattr(instance, name, value)
        instance.create()
        made[instance.display_name] = instance.uuid
        objects.BlockDeviceMapping(
            admin, instance_uuid=instance.uuid, boot_index=0, source_type="image",
            destination_type="volume" if volume_backed else "local",
        ).create()  # fmt: skip
        if move:
            is_stale = move.pop("stale")
            migration = migration_objects.Migration(admin, instance_uuid=instance.uuid, **move)
            migration.create()
            instance.migration_context = objects.MigrationContext(
                admin, instance_uuid=instance.uuid, migration_id=migration.id + 100 * is_stale,
                old_numa_topology=None, new_numa_topology=None, old_pci_devices=None,
                new_pci_devices=None, old_pci_requests=None, new_pci_requests=None,
                old_resources=None, new_resources=None,
            )  # fmt: skip
            instance.save()
    return made


def read(admin):
    records = [
        {
            name: getattr(node, name)
            for name in node.fields
            if name in node
            and name not in ("supported_hv_specs", "pci_device_pools", "host_ip")
            and not name.endswith("_at")
        }
        | {
            "supported": [
                spec.to_list()
                for spec in (node.supported_hv_specs if "supported_hv_specs" in node else ())
            ],
            "host_ip": str(node.host_ip),
        }
        for node in objects.ComputeNodeList.get_all_by_host(admin, "host1")
    ]
    migrations = migration_objects.MigrationList.get_by_filters(admin, {})
    return {
        "records": records,
        "statuses": {migration.instance_uuid: migration.status for migration in migrations},
    }


def main():
    conf, command = sys.argv[1:]
    config.parse_args(["compute_node.py", "--config-file", conf])
    objects.register_all()
    admin = context.get_admin_context()
    print(json.dumps({"write": write, "read": read}[command](admin), default=str))


if __name__ == "__main__":
    main()
