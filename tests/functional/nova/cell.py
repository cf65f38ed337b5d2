# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: writes and reads a cell database with Nova's own objects.

cell.py NOVA_CONF write    reads instances to make as JSON, prints their uuids by name
cell.py NOVA_CONF destroy  reads uuids as JSON and deletes the instances as Nova does
cell.py NOVA_CONF retry    reads uuids as JSON and counts a further attempt to remove their files
cell.py NOVA_CONF read     prints the instances by name as JSON, with actions and faults
"""

import datetime
import json
import sys

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

from nova import config, context, objects
from nova.db.main import api as db_api
from nova.db.main import models
from nova.network import model as network_model


def make_flavor(admin, name, memory_mb):
    return objects.Flavor(
        admin, id=1, flavorid="42", name=name, memory_mb=memory_mb, vcpus=1, root_gb=1,
        ephemeral_gb=0, swap=0, rxtx_factor=1.0, vcpu_weight=0, disabled=False, is_public=True,
        extra_specs={}, projects=[], description=None, created_at=None, updated_at=None,
        deleted_at=None, deleted=False,
    )  # fmt: skip


def write(admin):
    tiny, small = make_flavor(admin, "m1.tiny", 512), make_flavor(admin, "m1.small", 2048)
    made = {}
    for wanted in json.load(sys.stdin):
        instance = objects.Instance(admin)
        instance.user_id = instance.project_id = "a" * 32
        instance.host = instance.launched_on = "host1"
        instance.node, instance.compute_id = "node1", 1
        instance.memory_mb, instance.vcpus, instance.root_gb, instance.ephemeral_gb = 512, 1, 1, 0
        instance.image_ref = "image"
        instance.launched_at = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
        instance.flavor, instance.old_flavor, instance.new_flavor = tiny, None, None
        instance.system_metadata = wanted.pop("system_metadata", {})
        instance.metadata = {"role": "web"}
        instance.numa_topology = instance.trusted_certs = instance.vcpu_model = None
        instance.device_metadata = instance.resources = None
        instance.keypairs = objects.KeyPairList(objects=[])
        instance.locked = False
        times = wanted.pop("times", {})
        migration = wanted.pop("migration", None)
        volume = wanted.pop("volume", None)
        destroyed = wanted.pop("destroyed", False)
        has_all = wanted.pop("has_all", False)
        vifs = wanted.pop("vifs", [])
        if migration:
            instance.flavor, instance.old_flavor, instance.new_flavor = small, tiny, small
        for name, value in wanted.items():
            setattr(instance, name, value)
        instance.create()
        instance.info_cache.network_info = network_model.NetworkInfo.hydrate(vifs)
        instance.info_cache.save()
        if migration:
            moved = objects.Migration(admin, instance_uuid=instance.uuid, **migration)
            moved.old_instance_type_id = moved.new_instance_type_id = 1
            moved.create()
            instance.migration_context = objects.MigrationContext(
                admin, instance_uuid=instance.uuid, migration_id=moved.id
            )
            instance.save()
        if has_all:
            add_all(admin, instance.uuid)
        if volume:
            mapping = objects.BlockDeviceMapping(admin, instance_uuid=instance.uuid)
            mapping.source_type = mapping.destination_type = "volume"
            mapping.volume_id, mapping.device_name = volume, "/dev/vdb"
            mapping.create()
        if times:
            set_times(instance.uuid, times)
        if destroyed:
            instance.destroy()
        made[instance.display_name] = instance.uuid
    return made


def add_all(admin, uuid):
    """Add what else may hang on an instance."""
    objects.VirtualInterface(
        admin, instance_uuid=uuid, address=f"fa:16:3e:00:00:01/{uuid}", uuid=uuid, network_id=1
    ).create()
    objects.Tag(admin, resource_id=uuid, tag="a-tag").create()
    objects.ConsoleAuthToken(
        admin, instance_uuid=uuid, console_type="novnc", host="host1", port=5900,
        internal_access_path=None, access_url_base="http://127.0.0.1:6080/vnc_auto.html",
    ).authorize(600)  # fmt: skip
    objects.InstanceFault(
        admin, instance_uuid=uuid, code=500, message="before", details="", host="host1"
    ).create()
    with db_api.get_engine().begin() as connection:
        group = connection.execute(
            models.SecurityGroup.__table__.insert().values(deleted=0, name=uuid)
        ).inserted_primary_key[0]
        connection.execute(
            models.SecurityGroupInstanceAssociation.__table__.insert().values(
                deleted=0, security_group_id=group, instance_uuid=uuid
            )
        )


def destroy(admin):
    """Delete instances as Nova's API and compute manager do, once their guests are gone."""
    for uuid in json.load(sys.stdin):
        instance = objects.Instance.get_by_uuid(admin, uuid)
        mappings = objects.BlockDeviceMappingList.get_by_instance_uuid(admin, uuid)
        for mapping in mappings:
            mapping.destroy()
        # The hypervisor driver counts its attempt to remove the files, and says how it ended.
        count_attempt(instance)
        instance.cleaned, instance.progress = True, 0
        instance.vm_state, instance.task_state, instance.power_state = "deleted", None, 0
        instance.terminated_at = datetime.datetime.now(datetime.UTC)
        instance.save()
        instance.destroy()


def count_attempt(instance):
    attempts = int(instance.system_metadata.get("clean_attempts", "0"))
    instance.system_metadata["clean_attempts"] = str(attempts + 1)


def retry(admin):
    """Try once more to remove the files of deleted instances, as Nova's own task records it."""
    everything = admin.elevated(read_deleted="yes")
    for uuid in json.load(sys.stdin):
        instance = objects.Instance.get_by_uuid(everything, uuid, ["system_metadata"])
        count_attempt(instance)
        with instance.obj_alternate_context(everything):
            instance.save()


def set_times(uuid, times):
    values = {name: datetime.datetime.fromisoformat(value) for name, value in times.items()}
    with db_api.get_engine().begin() as connection:
        for table, owner in ((models.Instance, "uuid"), (models.Migration, "instance_uuid")):
            columns = {name: v for name, v in values.items() if table is models.Instance
                       or name == "updated_at"}  # fmt: skip
            if columns:
                connection.execute(
                    table.__table__.update()
                    .where(table.__table__.c[owner] == uuid)
                    .values(**columns)
                )


def read(admin):
    found = {}
    everything = admin.elevated(read_deleted="yes")
    wanted = ["flavor", "system_metadata", "metadata", "info_cache", "migration_context"]
    for instance in objects.InstanceList.get_by_filters(everything, {}, expected_attrs=wanted):
        actions = objects.InstanceActionList.get_by_instance_uuid(everything, instance.uuid)
        faults = objects.InstanceFaultList.get_by_instance_uuids(everything, [instance.uuid])
        found[instance.display_name] = {
            "vm_state": instance.vm_state,
            "task_state": instance.task_state,
            "power_state": instance.power_state,
            "deleted": instance.deleted,
            "host": instance.host,
            "cleaned": instance.cleaned,
            "flavor": instance.flavor.name,
            "old_flavor": instance.old_flavor and instance.old_flavor.name,
            "new_flavor": instance.new_flavor and instance.new_flavor.name,
            "has_context": instance.migration_context is not None,
            "system_metadata": live_metadata(admin, instance),
            "addresses": [
                (vif["address"], ip["address"], [one["address"] for one in ip["floating_ips"]])
                for vif in (instance.info_cache.network_info if instance.info_cache else ())
                for ip in vif.fixed_ips()
            ],
            "migrations": [
                migration.status
                for migration in objects.MigrationList.get_by_filters(
                    everything, {"instance_uuid": instance.uuid}
                )
            ],
            "volumes": [
                mapping.volume_id
                for mapping in objects.BlockDeviceMappingList.get_by_instance_uuid(
                    admin, instance.uuid
                )
            ],
            "progress": instance.progress,
            "actions": [
                {
                    "action": action.action,
                    "request_id": action.request_id,
                    "message": action.message,
                    "events": [
                        {"event": event.event, "result": event.result, "host": event.host}
                        for event in objects.InstanceActionEventList.get_by_action(
                            everything, action.id
                        )
                    ],
                }
                for action in actions
            ],
            "faults": [{"code": f.code, "message": f.message, "host": f.host} for f in faults],
        }
    return found


def live_metadata(admin, instance):
    if instance.deleted:
        return instance.system_metadata
    wanted = ["system_metadata"]
    return objects.Instance.get_by_uuid(admin, instance.uuid, wanted).system_metadata


COMMANDS = {"write": write, "destroy": destroy, "retry": retry, "read": read}


def main():
    conf, command = sys.argv[1:]
    config.parse_args(["cell.py", "--config-file", conf])
    objects.register_all()
    admin = context.get_admin_context()
    print(json.dumps(COMMANDS[command](admin)))


if __name__ == "__main__":
    main()
