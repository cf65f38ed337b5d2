# SPDX-License-Identifier: Apache-2.0
"""Run by real Nova's Python: nova-compute's own manager and libvirt driver on test:///, measured.

peer.py NOVA_CONF N  makes the host's records and N instances with Nova's own objects, writes their
domains to the file that nova.conf names, and then answers each line of JSON, a task's name, with a
line: what a run of the task takes. Placement, Cinder and Neutron are stood in for: they answer at
once, from memory.
"""

import collections
import datetime
import json
import os
import pathlib
import platform
import sys
import time
import traceback
import uuid

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

import libvirt_calls
import os_vif
import sqlalchemy as sa
from nova import config, context, objects, rpc, thread_pool_factory
from nova.compute import manager as compute_manager
from nova.compute import provider_tree
from nova.db.main import api as db_api
from nova.network import model as network_model
from nova.scheduler.client import report
from nova.virt.libvirt import driver as libvirt_driver
from oslo_utils import timeutils

HOST = "host1"

DOMAIN = """
  <domain type='test'>
    <name>{name}</name><uuid>{uuid}</uuid>
    <metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:name>{display_name}</nova:name></nova:instance></metadata>
    <memory unit='MiB'>512</memory><vcpu>1</vcpu>
    <os><type arch='x86_64'>hvm</type></os>
    <devices>
      <disk type='file' device='disk'><driver name='qemu' type='raw'/>
        <source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
      <disk type='block' device='disk'>
        <source dev='/dev/null'/><target dev='vdb' bus='virtio'/></disk>
      <interface type='bridge'><mac address='{mac}'/><source bridge='br-int'/>
        <target dev='tap{number:x}'/></interface>
    </devices>
  </domain>"""

NODE = """<node>
  <cpu><mhz>2600</mhz><model>x86_64</model><active>128</active><nodes>2</nodes>
    <sockets>2</sockets><cores>32</cores><threads>1</threads></cpu>
  <memory>1073741824</memory>{domains}
</node>
"""


class AnswersNothing:
    """A service of the cloud that has nothing to say."""

    def __getattr__(self, name):
        return lambda *arguments, **named: None


class Placement(AnswersNothing):
    """One provider, and an allocation for each instance."""

    def __init__(self):
        self.tree = provider_tree.ProviderTree()
        self.allocations = {}

    def get_provider_subtree_and_ensure_root(self, context, rp_uuid, name=None, **named):
        if not self.tree.exists(rp_uuid):
            self.tree.new_root(name, rp_uuid, generation=0)
        return self.tree

    def get_allocations_for_provider_tree(self, context, nodename):
        return self.allocations

    def get_allocations_for_resource_provider(self, context, rp_uuid):
        return report.ProviderAllocInfo(allocations=self.allocations)

    def update_from_provider_tree(self, context, new_tree, allocations=None):
        self.tree = new_tree


class Neutron(AnswersNothing):
    """Tells of an instance what its cache holds."""

    def get_instance_nw_info(self, context, instance, **named):
        instance.refresh()
        return instance.info_cache.network_info

    def list_ports(self, *arguments, **named):
        return {"ports": []}


class Compute:
    """nova-compute's manager on a host of so many instances."""

    def __init__(self, number):
        self.admin = context.get_admin_context()
        self.engine = db_api.get_engine()
        service = objects.Service(
            self.admin, host=HOST, binary="nova-compute", topic="compute", report_count=0,
            disabled=False,
        )  # fmt: skip
        service.create()
        node = self._node(service)
        instances = [self._instance(node, n) for n in range(number)]
        self._write_domains(instances)
        placement, neutron = Placement(), Neutron()
        placement.allocations = {
            one.uuid: {"resources": {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}}
            for one in instances
        }
        report.SchedulerReportClient = lambda *arguments, **named: placement
        libvirt_driver.MIN_QEMU_VERSION = (0, 0, 0)  # the test driver says that it is version 2
        self.manager = manager = compute_manager.ComputeManager()
        manager.network_api = manager.driver._network_api = neutron
        manager.volume_api = manager.driver._volume_api = AnswersNothing()
        manager.service_ref = manager.rt.service_ref = service
        manager.driver.init_host(HOST)
        manager.rt.compute_nodes = {}
        self.counted = collections.Counter()
        self.pending = []
        self._count()

    def _node(self, service):
        node = objects.ComputeNode(
            self.admin, uuid=str(uuid.uuid4()), host=HOST, service_id=service.id,
            hypervisor_hostname=platform.node(), vcpus=64, memory_mb=1048576, local_gb=1000,
            vcpus_used=0, memory_mb_used=0, local_gb_used=0, hypervisor_type="Test",
            hypervisor_version=2, cpu_info="{}", free_ram_mb=0, free_disk_gb=0,
            current_workload=0, running_vms=0, disk_available_least=0, host_ip="127.0.0.1",
            supported_hv_specs=[], stats={}, cpu_allocation_ratio=4.0, ram_allocation_ratio=1.0,
            disk_allocation_ratio=1.0, mapped=0,
        )  # fmt: skip
        node.create()
        with open(f"{config.CONF.state_path}/compute_id", "w") as file:
            file.write(node.uuid)
        return node

    def _instance(self, node, number):
        admin = self.admin
        one = objects.Instance(admin)
        one.uuid = str(uuid.UUID(int=(0xCE << 120) + number))
        one.user_id = one.project_id = "a" * 32
        one.host = one.launched_on = HOST
        one.node, one.compute_id = node.hypervisor_hostname, node.id
        one.vm_state, one.task_state, one.power_state = "active", None, 1
        one.memory_mb, one.vcpus, one.root_gb, one.ephemeral_gb = 512, 1, 1, 0
        one.display_name = one.hostname = f"guest-{number}"
        one.image_ref = str(uuid.uuid5(uuid.NAMESPACE_DNS, "image"))
        one.launched_at = timeutils.utcnow() - datetime.timedelta(days=60)
        one.availability_zone, one.root_device_name = "nova", "/dev/vda"
        one.flavor = objects.Flavor(
            admin, id=1, flavorid="42", name="m1.tiny", memory_mb=512, vcpus=1, root_gb=1,
            ephemeral_gb=0, swap=0, rxtx_factor=1.0, vcpu_weight=0, disabled=False,
            is_public=True, extra_specs={}, projects=[], description=None, created_at=None,
            updated_at=None, deleted_at=None, deleted=False,
        )  # fmt: skip
        one.old_flavor = one.new_flavor = None
        one.instance_type_id = 1
        one.system_metadata = {"image_disk_format": "raw", "image_min_disk": "1",
                               "image_base_image_ref": one.image_ref}  # fmt: skip
        one.metadata = {"role": "web"}
        one.numa_topology = one.trusted_certs = one.vcpu_model = None
        one.device_metadata = one.resources = None
        one.pci_requests = objects.InstancePCIRequests(requests=[], instance_uuid=one.uuid)
        one.keypairs = objects.KeyPairList(objects=[])
        one.locked = False
        one.create()
        one.info_cache.network_info = network_model.NetworkInfo([_vif(number)])
        one.info_cache.save()
        objects.BlockDeviceMapping(
            admin, instance_uuid=one.uuid, source_type="image", destination_type="local",
            device_type="disk", disk_bus="virtio", boot_index=0, device_name="/dev/vda",
            image_id=one.image_ref, delete_on_termination=True, no_device=False,
        ).create()  # fmt: skip
        data = {"driver_volume_type": "local", "data": {"device_path": "/dev/null"}}
        objects.BlockDeviceMapping(
            admin, instance_uuid=one.uuid, source_type="volume", destination_type="volume",
            device_type="disk", disk_bus="virtio", device_name="/dev/vdb", volume_size=10,
            volume_id=str(uuid.UUID(int=(0x5E << 120) + number)), delete_on_termination=False,
            no_device=False, attachment_id=str(uuid.uuid4()), connection_info=json.dumps(data),
        ).create()  # fmt: skip
        return one

    def _write_domains(self, instances):
        domains = []
        for number, one in enumerate(instances):
            directory = pathlib.Path(config.CONF.instances_path) / one.uuid
            directory.mkdir()
            with (directory / "disk").open("wb") as file:
                file.truncate(1 << 20)
            domains.append(
                DOMAIN.format(
                    name=one.name,
                    uuid=one.uuid,
                    display_name=one.display_name,
                    disk=directory / "disk",
                    mac=_mac(number),
                    number=number,
                )
            )
        uri = config.CONF.libvirt.connection_uri
        text = NODE.format(domains="".join(domains))
        pathlib.Path(uri.removeprefix("test://")).write_text(text)

    def _count(self):
        libvirt_calls.count(self.counted)

        @sa.event.listens_for(self.engine, "before_cursor_execute")
        def count(connection, cursor, statement, parameters, context, executemany):
            # oslo.db asks this to see whether a connection lives.
            if statement != "SELECT 1":
                self.counted["statements"] += 1

        spawn = thread_pool_factory.spawn_on

        def spawn_on(*arguments, **named):
            future = spawn(*arguments, **named)
            self.pending.append(future)
            return future

        thread_pool_factory.spawn_on = spawn_on

    def run(self, task):
        """Run a task, and what it has left to a pool; return what that took."""
        self.manager._instance_uuids_to_heal = []
        self.counted.clear()
        begins = time.perf_counter()
        getattr(self.manager, task)(self.admin)
        while self.pending:
            self.pending.pop().result()
        return {"seconds": time.perf_counter() - begins, **self.counted}


def _mac(number):
    return f"fa:16:3e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def _vif(number):
    address = f"10.0.{number // 250}.{number % 250 + 3}"
    subnet = network_model.Subnet(
        cidr="10.0.0.0/16", dns=[], gateway=network_model.IP(address="10.0.0.1", type="gateway"),
        ips=[network_model.FixedIP(address=address)], routes=[],
    )  # fmt: skip
    network = network_model.Network(
        id=str(uuid.uuid5(uuid.NAMESPACE_DNS, "net")), bridge="br-int", label="private",
        subnets=[subnet], injected=False, mtu=1450,
    )  # fmt: skip
    port = str(uuid.uuid4())
    return network_model.VIF(
        id=port, address=_mac(number), network=network, type="ovs", vnic_type="normal",
        active=True, devname=f"tap{number:x}", ovs_interfaceid=port, profile={},
        details={"port_filter": True}, preserve_on_delete=False, delegate_create=True, meta={},
    )  # fmt: skip


def main():
    conf, number = sys.argv[1:]
    config.parse_args(["nova-compute", "--config-file", conf])
    objects.register_all()
    os_vif.initialize()
    rpc.init(config.CONF)
    compute = Compute(int(number))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(compute.run(json.loads(line))), flush=True)


if __name__ == "__main__":
    try:
        main()
    except Exception:  # noqa: BLE001 - Nova's threads would keep the process
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
