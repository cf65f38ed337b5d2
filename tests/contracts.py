# SPDX-License-Identifier: Apache-2.0
"""The drivers' contracts, run alike on the fakes and on the real drivers."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from cepheid_plugins.compute import power_state
from cepheid_plugins.database.records import ANY, InstanceUpdate
from cepheid_plugins.hypervisor.driver import (
    BadDefinition,
    DiskFile,
    DomainNotFound,
    Hypervisor,
    HypervisorError,
)
from cepheid_plugins.notifications.driver import Notification, NotificationsRefused, Notifier
from cepheid_plugins.scheduler.driver import Scheduler


class HypervisorContract:
    """Inherit, and give fixtures ``hypervisor`` and ``running``, the uuid of a running domain."""

    def test_lists_every_domain_by_uuid_in_one_call(self, hypervisor: Hypervisor, running: str):
        hypervisor.check()
        before = hypervisor.calls.copy()
        domains = hypervisor.domains()
        assert domains[running].uuid == running
        assert domains[running].power_state == power_state.RUNNING
        assert hypervisor.calls - before == {"virConnectGetAllDomainStats": 1}

    def test_names_every_domain_in_one_call(self, hypervisor: Hypervisor, running: str):
        domains = hypervisor.domains()
        before = hypervisor.calls.copy()
        names = hypervisor.domain_names()
        assert names == {uuid: domain.name for uuid, domain in domains.items()}
        assert hypervisor.calls - before == {"virConnectListAllDomains": 1}

    def test_tells_who_it_is_and_keeps_to_it(self, hypervisor: Hypervisor):
        assert hypervisor.identity
        assert hypervisor.identity == hypervisor.identity

    def test_tells_a_domain_of_novas_by_its_metadata(self, hypervisor: Hypervisor, running: str):
        assert not hypervisor.is_novas(running)
        text = hypervisor.definition(running)
        nova = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>"
        hypervisor.define(text.replace("<memory", f"<metadata>{nova}</metadata><memory", 1))
        assert hypervisor.is_novas(running)
        hypervisor.define(text)

    def test_counts_only_disks_that_are_there_of_domains_that_run(
        self, hypervisor: Hypervisor, running: str
    ):
        wanted = {running: ["no-such-disk"], str(uuid.uuid4()): ["vda"]}
        assert not any(hypervisor.block_counters(wanted).values())
        hypervisor.power_off(running)
        assert not any(hypervisor.block_counters({running: ["vda"]}).values())

    def test_counts_only_interfaces_that_are_there_of_domains_that_run(
        self, hypervisor: Hypervisor, running: str
    ):
        nobody = str(uuid.uuid4())
        assert not hypervisor.network_counters([])
        assert not any(hypervisor.network_counters([running, nobody]).values())
        before = hypervisor.calls.copy()
        assert nobody not in hypervisor.network_counters([running, nobody])
        assert (hypervisor.calls - before)["virConnectGetAllDomainStats"] == 1
        hypervisor.power_off(running)
        assert not any(hypervisor.network_counters([running]).values())

    def test_tells_the_interfaces_of_a_domain_by_mac(self, hypervisor: Hypervisor, running: str):
        text = hypervisor.definition(running)
        interface = (
            "<interface type='user'><mac address='52:54:00:C0:FF:EE'/></interface></devices>"
        )
        text = text.replace("<devices/>", "<devices></devices>")
        hypervisor.define(text.replace("</devices>", interface))
        hypervisor.power_off(running)
        hypervisor.start(running)
        (found,) = hypervisor.interfaces(running)
        assert (found.mac, found.type) == ("52:54:00:c0:ff:ee", "user")
        assert found.is_running
        hypervisor.power_off(running)
        (found,) = hypervisor.interfaces(running)
        assert not found.is_running
        with pytest.raises(DomainNotFound):
            hypervisor.interfaces(str(uuid.uuid4()))

    def test_tells_the_power_state_of_one_domain(self, hypervisor: Hypervisor, running: str):
        assert hypervisor.power_state(running) == power_state.RUNNING

    def test_a_domain_that_is_not_there_is_not_found(self, hypervisor: Hypervisor):
        nobody = str(uuid.uuid4())
        for ask in (
            hypervisor.power_state,
            hypervisor.shutdown,
            hypervisor.start,
            hypervisor.pause,
            hypervisor.resume,
        ):
            with pytest.raises(DomainNotFound):
                ask(nobody)

    def test_powering_off_a_domain_that_is_not_there_is_done(self, hypervisor: Hypervisor):
        hypervisor.power_off(str(uuid.uuid4()))

    def test_pauses_and_resumes(self, hypervisor: Hypervisor, running: str):
        hypervisor.pause(running)
        assert hypervisor.domains()[running].power_state == power_state.PAUSED
        hypervisor.resume(running)
        assert hypervisor.domains()[running].power_state == power_state.RUNNING

    def test_powers_off_twice_and_starts(self, hypervisor: Hypervisor, running: str):
        hypervisor.power_off(running)
        assert hypervisor.domains()[running].power_state == power_state.SHUTDOWN
        hypervisor.power_off(running)
        hypervisor.start(running)
        assert hypervisor.power_state(running) == power_state.RUNNING

    def test_boots_a_domain_afresh(self, hypervisor: Hypervisor, running: str):
        hypervisor.power_off(running)
        hypervisor.start(running, fresh=True)
        assert hypervisor.power_state(running) == power_state.RUNNING

    def test_a_domain_whose_memory_is_not_saved_starts_as_it_is_defined(
        self, hypervisor: Hypervisor, running: str
    ):
        assert not hypervisor.has_saved_memory(running)
        hypervisor.require_no_saved_memory(running)
        with pytest.raises(DomainNotFound):
            hypervisor.has_saved_memory(str(uuid.uuid4()))

    def test_starting_a_running_domain_is_an_error_and_not_a_missing_domain(
        self, hypervisor: Hypervisor, running: str
    ):
        with pytest.raises(HypervisorError) as caught:
            hypervisor.start(running)
        assert not isinstance(caught.value, DomainNotFound)

    def test_asks_a_guest_to_shut_down(self, hypervisor: Hypervisor, running: str):
        hypervisor.shutdown(running)

    def test_undefines_a_domain_that_is_off_and_defines_it_again(
        self, hypervisor: Hypervisor, running: str
    ):
        definition = hypervisor.definition(running)
        with pytest.raises(HypervisorError):
            hypervisor.undefine(running)
        assert hypervisor.power_state(running) == power_state.RUNNING
        hypervisor.power_off(running)
        hypervisor.undefine(running)
        assert running not in hypervisor.domains()
        hypervisor.undefine(running)
        hypervisor.define(definition)
        assert hypervisor.power_state(running) == power_state.SHUTDOWN
        hypervisor.start(running)

    def test_a_definition_is_that_of_the_domain_and_can_be_replaced(
        self, hypervisor: Hypervisor, running: str
    ):
        before = hypervisor.definition(running)
        hypervisor.define_resized(running, 3, 96)
        hypervisor.power_off(running)
        hypervisor.start(running)
        details = {found.uuid: found for found in hypervisor.details()}[running]
        assert (details.vcpus, details.memory_mib) == (3, 96)
        hypervisor.define_as(running, before)
        with pytest.raises(BadDefinition):
            hypervisor.define_as(str(uuid.uuid4()), before)

    def test_a_domain_boots_from_a_rescue_disk_until_its_definition_is_back(
        self, hypervisor: Hypervisor, running: str
    ):
        before, disks = hypervisor.definition(running), hypervisor.disk_files(running)
        hypervisor.define_rescue(running, "/nowhere/disk.rescue")
        assert hypervisor.is_rescue(running)
        (rescue,) = [d for d in hypervisor.disk_files(running) if d not in disks]
        assert (rescue.path, rescue.format) == ("/nowhere/disk.rescue", "qcow2")
        hypervisor.define_as(running, before)
        assert not hypervisor.is_rescue(running)
        assert hypervisor.disk_files(running) == disks

    def test_the_drives_of_a_definition_are_its_disks_cdroms_and_floppies_that_are_files(
        self, hypervisor: Hypervisor, running: str
    ):
        text = hypervisor.definition(running)
        disks = hypervisor.drives(text)
        assert disks == hypervisor.disk_files(running)
        drives = (
            "<devices>"
            "<disk type='file' device='cdrom'><source file='/seed.iso'/><target dev='sdz'/></disk>"
            "<disk type='file' device='cdrom'><target dev='sdy'/></disk>"
            "</devices></domain>"
        )
        found = hypervisor.drives(drives.join(text.rsplit("</domain>", 1)))
        assert found == [*disks, DiskFile("sdz", "/seed.iso", "raw", removable=True)]

    def test_disks_that_are_not_on_this_host_are_named_as_the_operator_knows_them(
        self, hypervisor: Hypervisor, running: str
    ):
        text = hypervisor.definition(running)
        assert hypervisor.remote_disks(text) == []
        disks = (
            "<devices>"
            "<disk type='network'><source protocol='rbd' name='vms/root'><host name='ceph1'/>"
            "</source><target dev='vdx'/></disk>"
            "<disk type='network' device='cdrom'><source protocol='http' name='seed.iso'/>"
            "<target dev='sdx'/></disk>"
            "<disk type='volume'><source pool='images' volume='data'/><target dev='vdy'/></disk>"
            "<disk type='vhostuser'><source type='unix' path='/spdk'/><target dev='vdz'/></disk>"
            "</devices></domain>"
        )
        assert hypervisor.remote_disks(disks.join(text.rsplit("</domain>", 1))) == [
            "rbd:vms/root",
            "data in the storage pool images",
            "vdz (vhostuser)",
        ]

    def test_only_an_emulated_tpm_has_a_state_that_is_kept_here(
        self, hypervisor: Hypervisor, running: str
    ):
        text = hypervisor.definition(running)
        assert not hypervisor.has_tpm_state(text)
        for kind, is_kept in (("emulator", True), ("passthrough", False)):
            tpm = f"<devices><tpm><backend type='{kind}'/></tpm></devices></domain>"
            assert hypervisor.has_tpm_state(tpm.join(text.rsplit("</domain>", 1))) == is_kept

    def test_the_definition_of_a_domain_that_is_not_there_is_not_found(
        self, hypervisor: Hypervisor
    ):
        with pytest.raises(DomainNotFound):
            hypervisor.definition(str(uuid.uuid4()))

    def test_describes_every_domain(self, hypervisor: Hypervisor, running: str):
        details = {found.uuid: found for found in hypervisor.details()}[running]
        assert details.name
        assert details.vcpus >= 1
        assert details.memory_mib >= 32

    def test_describes_its_host(self, hypervisor: Hypervisor):
        host = hypervisor.host_resources()
        assert host.hypervisor_hostname == hypervisor.name
        assert host.hypervisor_type.isupper()
        assert host.hypervisor_version > 0
        assert host.cpus
        assert host.memory_mib > 0
        assert set(host.cpu_info) == {"arch", "model", "vendor", "topology", "features"}
        assert host.cpu_info["arch"] in {arch for arch, _, _ in host.supported_instances}
        assert host == hypervisor.host_resources()

    def test_tells_the_capacities_of_all_disks_in_one_call(
        self, hypervisor: Hypervisor, running: str
    ):
        hypervisor.check()
        before = hypervisor.calls.copy()
        capacities = hypervisor.disk_capacities()
        assert hypervisor.calls - before == {"virConnectGetAllDomainStats": 1}
        files = [disk.path for disk in hypervisor.disk_files(running)]
        assert [disk.path for disk in capacities if disk.uuid == running] == files

    def test_tells_the_files_that_every_definition_names(
        self, hypervisor: Hypervisor, running: str
    ):
        found = {domain.uuid: domain for domain in hypervisor.named_files()}
        assert set(found) == set(hypervisor.domains())
        for disk in hypervisor.disk_files(running):
            assert disk.format in found[running].files[disk.path]


class SchedulerContract:
    """Inherit, and give fixtures ``scheduler``, one that is enabled, and ``received``, which waits
    for a number of messages and returns what each told."""

    def test_there_is_somebody_to_tell(self, scheduler: Scheduler):
        assert scheduler.enabled

    def test_every_message_arrives_whole_and_in_order(
        self, scheduler: Scheduler, received: Callable[[int], list[tuple[str, list[str]]]]
    ):
        told = [("host1", ["b", "a"]), ("host2", []), ("host1", [str(n) for n in range(1000)])]
        for count, (host, uuids) in enumerate(told, start=1):
            scheduler.sync_instance_info(host, tuple(uuids), "req-1")
            assert received(count) == told[:count]


class NotifierContract:
    """Inherit, and give fixtures ``notifier``, and ``received``, which waits for a number of
    messages and returns them as a consumer of oslo.messaging's gets them."""

    def test_every_notification_arrives_whole_and_in_order(
        self, notifier: Notifier, received: Callable[[int], list[dict[str, Any]]]
    ):
        payloads = [{"n": n, "text": "größer", "none": None, "list": [1, 2.5]} for n in range(20)]
        told = [Notification("compute.instance.exists", payload) for payload in payloads]
        notifier.send(told[:1])
        notifier.send(told[1:])
        messages = received(20)
        assert [message["payload"] for message in messages] == payloads
        assert {message["publisher_id"] for message in messages} == {"compute.host1"}
        assert {message["priority"] for message in messages} == {"INFO"}
        assert len({uuid.UUID(message["message_id"]) for message in messages}) == 20
        for message in messages:
            datetime.datetime.fromisoformat(message["timestamp"])

    def test_one_with_a_known_message_id_is_passed_over(
        self, notifier: Notifier, received: Callable[[int], list[dict[str, Any]]]
    ):
        first, second = (
            Notification("volume.usage", {"n": n}, message_id=str(uuid.UUID(int=n))) for n in (1, 2)
        )
        notifier.send([first, first])
        received(1)
        notifier.send([first, second])
        assert [m["message_id"] for m in received(2)] == [first.message_id, second.message_id]
        notifier.send([first])
        notifier.send([Notification("volume.usage", {"n": 3}, priority="ERROR")])
        last = received(3)[-1]
        assert (last["payload"], last["priority"]) == ({"n": 3}, "ERROR")

    def test_versioned_ones_have_a_publisher_and_topics_of_their_own(
        self, notifier: Notifier, received: Callable[[int], list[dict[str, Any]]]
    ):
        notifier.send([Notification("volume.usage", {}, versioned=True)])
        (message,) = received(1)
        assert message["publisher_id"] == "nova-compute:host1"
        assert message.get("topic", "versioned_notifications") == "versioned_notifications"

    def test_what_json_cannot_hold_is_refused_with_what_came_with_it(
        self, notifier: Notifier, received: Callable[[int], list[dict[str, Any]]]
    ):
        bad = Notification("volume.usage", {"n": object()})
        with pytest.raises(NotificationsRefused, match=r"volume\.usage"):
            notifier.send([Notification("volume.usage", {"n": 1}), bad])
        notifier.send([Notification("volume.usage", {"n": 2})])
        assert [message["payload"]["n"] for message in received(1)] == [2]


class InventoryContract:
    """Inherit, and give fixtures ``inventory``, of ``host1``, and ``uuids``, three active instances
    of it that were created in this order."""

    def test_tells_the_live_instances_of_a_host(self, inventory: Any, uuids: list[str]):
        assert {row.uuid for row in inventory.instances_on_host("host1")} == set(uuids)
        assert set(inventory.instance_uuids_on_host("host1")) == set(uuids)
        assert inventory.deleted_at_on_host("host1") == dict.fromkeys(uuids)
        assert inventory.instances_on_host("host2") == []

    def test_finds_instances_by_uuid_name_and_state(self, inventory: Any, uuids: list[str]):
        (row,) = inventory.instances_by_uuid([uuids[1], str(uuid.uuid4())])
        assert row.uuid == uuids[1]
        assert [found.uuid for found in inventory.find_instances(row.display_name)] == [row.uuid]
        assert [found.uuid for found in inventory.find_instances(row.uuid)] == [row.uuid]
        begin_so = {found.uuid for found in inventory.find_instances(row.uuid[:8])}
        assert begin_so == {one for one in uuids if one.startswith(row.uuid[:8])}
        assert inventory.find_instances(row.uuid[:7]) == inventory.find_instances("") == []
        active = inventory.instances_in_vm_state("host1", "active")
        assert [found.uuid for found in active] == uuids[::-1]
        assert inventory.instances_in_task_states("host1", ["rebooting"]) == []

    def test_an_update_is_written_where_the_states_are_still_as_expected(
        self, inventory: Any, uuids: list[str]
    ):
        updates = [
            InstanceUpdate(uuids[0], "active", None, {"power_state": 4}),
            InstanceUpdate(uuids[1], "stopped", None, {"power_state": 4}),
            InstanceUpdate(uuids[2], ANY, "rebooting", {"power_state": 4}),
            InstanceUpdate(uuids[2], ANY, ANY, {"power_state": 4}, datetime.datetime(2026, 1, 1)),
        ]
        assert inventory.update_instances("host1", updates) == {uuids[0]}
        states = {row.uuid: row.power_state for row in inventory.instances_on_host("host1")}
        assert [states[one] for one in uuids] == [4, 1, 1]
        elsewhere = [InstanceUpdate(uuids[1], ANY, ANY, {"power_state": 4})]
        assert inventory.update_instances("host2", elsewhere) == set()

    def test_a_destroyed_instance_is_on_record_and_on_no_host(
        self, inventory: Any, uuids: list[str]
    ):
        update = InstanceUpdate(uuids[0], "active", None, {"vm_state": "deleted"})
        assert inventory.destroy_instances("host1", [update]) == {uuids[0]}
        assert inventory.destroy_instances("host1", [update]) == set()
        assert set(inventory.instance_uuids_on_host("host1")) == set(uuids[1:])
        (row,) = inventory.deleted_instances(uuids)
        assert (row.uuid, row.deleted, row.vm_state) == (uuids[0], row.id, "deleted")
        assert row.deleted_at is not None
        assert inventory.set_cleaned(uuids) == {uuids[0]}
        assert inventory.deleted_instances(uuids)[0].cleaned == 1

    def test_keeps_system_metadata(self, inventory: Any, uuids: list[str]):
        inventory.set_system_metadata({uuids[0]: {"a": "1", "b": "2"}})
        inventory.set_system_metadata({uuids[0]: {"a": "3"}, uuids[1]: {"b": "4"}})
        assert inventory.system_metadata(uuids, "a") == {uuids[0]: "3"}
        assert inventory.system_metadata_on_host("host1", "b") == {uuids[0]: "2", uuids[1]: "4"}
        assert inventory.system_metadata_on_host("host2", "b") == {}

    def test_a_question_is_one_statement_and_no_change(self, inventory: Any, uuids: list[str]):
        inventory.is_novas()  # a real one connects
        before, changes = inventory.statements.copy(), inventory.changes
        inventory.instances_on_host("host1")
        assert (inventory.statements - before)["SELECT"] == 1
        assert inventory.changes == changes
        inventory.set_system_metadata({uuids[0]: {"a": "1"}})
        assert inventory.changes > changes
