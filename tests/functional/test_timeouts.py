# SPDX-License-Identifier: Apache-2.0
"""The time-out tasks in a real agent, on real QEMU guests with real disks."""

import datetime

import libvirt
import pytest

from tests.functional.disk_hosts import DiskHost, boot_disk, holds_pattern, virtual_size
from tests.functional.processes import wait_until

pytestmark = pytest.mark.functional

RUNNING, SHUTDOWN = 1, 4
SETTINGS = """
[sync_power_states]
enabled = false
[update_available_resource]
enabled = false
[poll_rebooting_instances]
spacing = 1
reboot_timeout = 600
[poll_rescued_instances]
spacing = 1
rescue_timeout = 600
[poll_unconfirmed_resizes]
spacing = 1
resize_confirm_window = 600
[poll_shelved_instances]
spacing = 1
shelved_offload_time = 600
[cleanup_running_deleted_instances]
spacing = 1
running_deleted_instance_action = reap
[reclaim_queued_deletes]
spacing = 1
reclaim_instance_interval = 600
"""


@pytest.fixture
def host(libvirtd, tmp_path):
    host = DiskHost(libvirtd, tmp_path, settings=SETTINGS)
    yield host
    host.close()


def hour_ago():
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    return (now - datetime.timedelta(hours=1)).isoformat(sep=" ", timespec="microseconds")


def test_what_was_left_undone_is_brought_to_its_end(host):
    names = ("rebooting", "rescued", "resized", "shelved", "deleted", "left-over", "bystander")
    uuids = {name: host.add(name) for name in names}
    definition = host.domain(uuids["rescued"]).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    host.run("rescue", uuids["rescued"], "--image", str(host.image))
    host.run("resize", uuids["resized"], "--memory-mib", "48", "--disk-gib", "1")
    host.run("shelve", "--yes", uuids["shelved"])
    host.run("soft-delete", uuids["deleted"])
    host.domain(uuids["rebooting"]).destroy()
    then = hour_ago()
    host.execute(
        "UPDATE instances SET task_state = 'reboot_started', updated_at = ? WHERE uuid = ?",
        then,
        uuids["rebooting"],
    )
    host.execute("UPDATE instances SET launched_at = ? WHERE uuid = ?", then, uuids["rescued"])
    host.execute("UPDATE migrations SET updated_at = ?", then)
    host.execute(
        "UPDATE instance_system_metadata SET value = ? WHERE key = 'shelved_at'",
        then.replace(" ", "T"),
    )
    host.execute("UPDATE instances SET deleted_at = ? WHERE uuid = ?", then, uuids["deleted"])

    host.execute(
        "UPDATE instances SET deleted = id, vm_state = 'deleted', deleted_at = ? WHERE uuid = ?",
        then,
        uuids["left-over"],
    )
    foreign = host.libvirtd.add_guest("foreign")

    host.installation.start_agent()
    wait_until(
        lambda: (
            {name: host.states(uuid) for name, uuid in uuids.items()}
            == {
                **dict.fromkeys(names, ("active", None, RUNNING)),
                "shelved": ("shelved_offloaded", None, SHUTDOWN),
                "deleted": None,
                "left-over": None,
            }
            and uuids["left-over"] not in host.domains()
        ),
        host.installation.read_log,
    )
    assert host.installation.stop_agent() == 0

    here = {"rebooting", "rescued", "resized", "bystander"}
    assert host.domains() == {foreign, *(uuids[name] for name in here)}
    for name in sorted(here):
        assert host.domain(uuids[name]).isActive()
        assert boot_disk(host.domain(uuids[name])) == str(host.disk(uuids[name]))
        assert host.files(uuids[name]) == ["instances//disk"]
        assert holds_pattern(host.disk(uuids[name]), name)
    rescued = host.domain(uuids["rescued"]).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert rescued == definition
    assert virtual_size(host.disk(uuids["resized"])) == 2**30
    assert host.domain(uuids["resized"]).maxMemory() == 48 * 1024
    assert host.execute("SELECT status FROM migrations") == [("confirmed",)]
    assert host.files(uuids["shelved"]) == ["shelved//domain.xml", "shelved//vda.qcow2"]
    assert host.files(uuids["deleted"]) == host.files(uuids["left-over"]) == []
    log = host.installation.read_log()
    assert "Traceback" not in log
    done = [
        row
        for row in host.installation.rows("task", "history", "--changed", "--limit", "500")
        if row["Task"] != "host_adopt" and not row["Task"].startswith("instance_")
    ]
    assert {(row["Task"], row["Result"]) for row in done} == {
        (task, "done")
        for task in (
            "poll_rebooting_instances",
            "poll_rescued_instances",
            "poll_unconfirmed_resizes",
            "poll_shelved_instances",
            "reclaim_queued_deletes",
            "cleanup_running_deleted_instances",
        )
    }
