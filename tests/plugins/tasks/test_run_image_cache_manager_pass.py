# SPDX-License-Identifier: Apache-2.0
"""run_image_cache_manager_pass: the reference's cases, and all that may stand on an image."""

import errno
import json
import os
import subprocess
import sys

import pytest
import sqlalchemy as sa

from cepheid.errors import CallTimeout
from cepheid_plugins.compute import image_options
from cepheid_plugins.compute.sightings import Sightings, SightingsFile
from cepheid_plugins.database import models
from cepheid_plugins.storage import image_names
from cepheid_plugins.storage.image_cache import ASIDE, ImageCache
from cepheid_plugins.storage.instances_path import StorageError
from tests.images import (
    DAY,
    HOUR,
    IMAGE,
    ORIGINAL,
    OTHER,
    OTHER_IMAGE,
    ImageHost,
    disk_xml,
    qemu_img,
    with_disks,
)
from tests.worlds import uuid_of

GARBAGE = image_names.fingerprint("garbage")


@pytest.fixture
def host(tmp_path):
    """Instance 1 lives here and was made from image 1; there is one file that nobody uses."""
    host = ImageHost(tmp_path)
    host.add(1, image_ref=IMAGE)
    host.define(1)
    yield host
    host.close()


# The reference's cases.


def test_the_name_of_an_image_is_the_sha1_of_its_id():
    assert image_names.fingerprint(IMAGE) == ORIGINAL


def test_the_scan_knows_images_swap_and_ephemeral_files_and_nothing_else(host):
    sha1s = [image_names.fingerprint(str(number)) for number in range(6)]
    names = [f"{sha1s[0]}_sm", f"{sha1s[1]}_sm", sha1s[2], sha1s[3], f"{sha1s[4]}_10737418240",
             f"{sha1s[5]}_20"]  # fmt: skip
    others = ["00000001", "swap_", "swap_abc", "123_swap", "swap_129_", f"{sha1s[0]}_5",
              f"{sha1s[0]}.part", f"{sha1s[0]}.converted", "x" * 40, f"{sha1s[0]}_backup",
              f"{sha1s[0].upper()}"]  # fmt: skip
    for name in [*names, "swap_1000", "ephemeral_20_abcdefg", *others]:
        host.file(name)
    kinds = [file.kind for file in ImageCache(str(host.instances)).scan()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "original": 2, "resized": 4, "swap": 1, "ephemeral": 1
    }  # fmt: skip
    host.passes()
    assert host.names() == sorted(others)
    assert host.aside() == []


@pytest.mark.parametrize(
    ("name", "age", "kept"),
    [
        (f"{GARBAGE}_10", 0, True),
        (f"{GARBAGE}_10", 3601, False),
        (GARBAGE, 3601, True),
        (GARBAGE, 25 * HOUR, False),
        ("swap_256", 3601, True),
        ("swap_256", 25 * HOUR, False),
        ("ephemeral_20_abcdefg", 3601, True),
        ("ephemeral_20_abcdefg", 25 * HOUR, False),
    ],
)
def test_what_is_not_used_goes_when_it_is_old_enough_for_its_kind(host, name, age, kept):
    host.file(name, age)
    run = host.run()
    assert run.outcome == "ok"
    assert host.names() == ([name] if kept else [])
    assert host.aside() == ([] if kept else [name])


def test_what_is_set_aside_is_deleted_after_its_retention_with_its_lock(host):
    host.file(GARBAGE)
    host.run()
    assert (host.instances / "locks" / f"nova-{GARBAGE}").exists()
    host.world.clock.sleep(DAY - 60)
    run = host.run()
    assert (run.outcome, run.changes, host.aside()) == ("ok", [], [GARBAGE])
    host.world.clock.sleep(60)
    (change,) = host.run().changes
    assert (change.kind, change.outcome) == ("delete", "done")
    assert host.aside() == host.names() == []
    assert not (host.instances / "locks" / f"nova-{GARBAGE}").exists()


def test_d20_storage_that_hangs_holds_up_nobody_else(host, monkeypatch):
    """It is looked at on a native thread before anything is done to it on this one."""
    host.file(GARBAGE)
    run_native, answers = host.world.agent.run_native, []

    def hanging(call, *arguments, name="", **options):
        if name == "a call to the storage of instances_path":
            if not answers:
                raise CallTimeout(f"{name} did not return within 60 seconds.")
            answers.pop()
        return run_native(call, *arguments, name=name, **options)

    monkeypatch.setattr(host.world.agent, "run_native", hanging)
    answered, outcome = 0, ""
    while outcome != "ok":
        assert (host.names(), host.aside()) == ([GARBAGE], [])
        answers[:] = [True] * answered
        outcome, answered = host.run().outcome, answered + 1
    assert (host.names(), host.aside()) == ([], [GARBAGE])
    assert answered > 4


@pytest.mark.parametrize("aside", [False, True])
def test_what_cannot_be_removed_keeps_nothing_else_waiting(host, monkeypatch, aside):
    """Such as a file that is immutable; it has its turn again after the others."""
    host.world.agent.set(host.task.name, max_changes=1)
    host.file(GARBAGE, 3 * DAY)
    if aside:
        host.run()
        host.world.clock.sleep(DAY)
    host.file(OTHER, 2 * DAY)

    def refusing(act):
        def do(cache, file, *times):
            if file.name == GARBAGE:
                raise StorageError("it is immutable")
            act(cache, file, *times)

        return do

    for act in (ImageCache.set_aside, ImageCache.delete):
        monkeypatch.setattr(ImageCache, act.__name__, refusing(act))
    outcomes = [{c.target[:40]: c.outcome for c in host.run().changes} for _ in range(3)]
    assert outcomes == [
        {GARBAGE: "failed", OTHER: "refused"},
        {GARBAGE: "refused", OTHER: "done"},
        {GARBAGE: "failed"},
    ]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (GARBAGE, False),
        (f"{GARBAGE}_10", False),
        ("swap_256", True),
        ("ephemeral_20_abcdefg", True),
    ],
)
def test_the_lock_of_an_image_goes_with_it_and_that_of_a_size_stays_as_in_nova(host, name, kept):
    host.file(name)
    host.passes()
    assert (host.names(), host.aside()) == ([], [])
    assert (host.instances / "locks" / f"nova-{name}").exists() == kept


def test_says_how_many_files_were_seen_to_one_kind_after_the_other(host, reports):
    host.file(GARBAGE)
    host.run()
    host.file(image_names.fingerprint("more"))
    host.file(image_names.fingerprint("and more"))
    reports.clear()
    host.world.clock.sleep(DAY)
    host.run()
    assert reports == [(0, 1), (1, 1), (1, 3), (2, 3), (3, 3)]


def test_a_file_that_is_gone_already_is_no_error(host, monkeypatch):
    path = host.file(GARBAGE)
    seen = host.task.surveyor.cache.set_aside

    def remove_first(*arguments):
        path.unlink()
        seen(*arguments)

    monkeypatch.setattr(host.task.surveyor.cache, "set_aside", remove_first)
    run = host.run()
    assert (run.outcome, run.counters["raced"]) == ("ok", 1)


def test_the_backing_file_of_a_disk_is_kept_though_its_image_is_unknown(host):
    name = f"{OTHER}_10737418240"
    host.disk(uuid_of(1), host.file(name))
    host.passes()
    assert host.names() == [name]


def test_a_directory_that_no_instance_owns_protects_what_its_disk_stands_on(host):
    """Nova ignores it, and the disk that somebody may want back is lost."""
    host.disk(uuid_of(9), host.file(OTHER))
    host.disk("instance-00000007", host.file(f"{OTHER}_20"))
    host.passes()
    assert host.names() == [OTHER, f"{OTHER}_20"]


def test_swap_and_ephemeral_files_are_kept_by_their_sizes_and_made_new(host):
    host.add_blank_disk(1, 128, "swap")
    host.add_blank_disk(1, 20)
    for name in ("swap_128", "swap_256", "ephemeral_20_abcdefg", "ephemeral_30_abcdefg"):
        host.file(name)
    host.run()
    assert host.names() == ["ephemeral_20_abcdefg", "swap_128"]
    assert host.age("swap_128") == host.age("ephemeral_20_abcdefg") == 0


def test_without_a_cache_there_is_nothing_to_do(host):
    (host.base).rmdir()
    run = host.run()
    assert (run.outcome, run.changes) == ("ok", [])


def test_instances_here_and_elsewhere_on_the_storage_both_protect(host):
    register(host, host2=10)
    host.add(2, image_ref=OTHER_IMAGE, host="host2")
    host.file(ORIGINAL)
    host.file(OTHER)
    host.passes()
    assert host.names() == sorted([ORIGINAL, OTHER])


def test_an_instance_of_a_host_that_does_not_share_the_storage_protects_nothing(host):
    host.add(2, image_ref=OTHER_IMAGE, host="host3")
    host.file(OTHER)
    host.run()
    assert host.names() == []


@pytest.mark.parametrize("suffix", ["", "_resize", "_del", "_part"])
def test_every_name_of_an_instances_directory_protects(host, suffix):
    host.disk(f"{uuid_of(1)}{suffix}", host.file(OTHER))
    host.passes()
    assert host.names() == [OTHER]


def test_nothing_is_removed_when_that_is_off_and_what_is_used_still_made_new(host):
    host.world.agent.set(host.task.name, remove_unused_base_images=False)
    host.file(ORIGINAL)
    host.file(GARBAGE)
    for run in host.passes():
        assert run.changes == []
    assert host.names() == sorted([ORIGINAL, GARBAGE])
    assert host.age(ORIGINAL) == DAY + HOUR
    assert host.world.hypervisor.calls.total() == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"vm_state": "soft-delete"},
        {"vm_state": "error"},
        {"hidden": True},
        {"vm_state": "resized"},
        {"task_state": "resize_prep"},
    ],
)
def test_every_live_instance_protects_whatever_its_state(host, columns):
    host.add(2, image_ref=OTHER_IMAGE, **columns)
    host.file(OTHER)
    host.passes()
    assert host.names() == [OTHER]


def test_a_deleted_instance_protects_nothing(host):
    host.add(2, image_ref=OTHER_IMAGE)
    host.world.update(2, deleted=host.world.row(2).id, vm_state="deleted")
    host.file(OTHER)
    host.run()
    assert host.names() == []


@pytest.mark.parametrize(("status", "kept"), [("migrating", True), ("error", True),
                                              ("confirmed", False)])  # fmt: skip
def test_an_instance_on_its_way_to_or_from_here_protects(host, status, kept):
    host.add(2, image_ref=OTHER_IMAGE, host="host3")
    with host.world.engine.begin() as connection:
        connection.execute(
            sa.insert(models.migrations).values(
                instance_uuid=uuid_of(2), status=status, source_compute="host3",
                dest_compute="host1", deleted=0,
            )
        )  # fmt: skip
    host.file(OTHER)
    host.run()
    assert host.names() == ([OTHER] if kept else [])


@pytest.mark.parametrize("column", ["image_ref", "kernel_id", "ramdisk_id"])
def test_kernels_and_ram_disks_are_images_too(host, column):
    host.add(2, **{column: OTHER_IMAGE})
    host.file(OTHER)
    host.passes()
    assert host.names() == [OTHER]


# The defects of Nova's.


def test_d15_each_of_several_resized_variants_of_a_used_image_is_in_use(host):
    names = [ORIGINAL, f"{ORIGINAL}_sm", *(f"{ORIGINAL}_{size}" for size in range(10, 20))]
    for name in names:
        host.file(name)
    run = host.run()
    assert (run.counters["used"], run.counters["touched"], run.changes) == (12, 12, [])
    assert host.names() == sorted(names)
    assert {host.age(name) for name in names} == {0}


D16_DISKS = ("disk.rescue", "disk.local", "disk.eph0", "disk.eph1", "disk.swap", "disk.config",
             "disk.config.rescue")  # fmt: skip


@pytest.mark.parametrize("name", D16_DISKS)
def test_d16_every_disk_of_an_instance_protects_what_it_stands_on(host, name):
    host.disk(uuid_of(1), host.file(OTHER), name)
    host.passes()
    assert host.names() == [OTHER]


def test_d16_every_size_of_swap_and_ephemeral_disks_is_in_use(host):
    for size in (1, 2, 3):
        host.add_blank_disk(1, size, "swap")
        host.add_blank_disk(1, size, "ext4")
        host.file(f"swap_{size}")
        host.file(f"ephemeral_{size}_abcdefg")
        host.file(f"ephemeral_{size}_1234567")
    host.passes()
    assert len(host.names()) == 9


def test_d16_the_sizes_of_the_old_and_the_new_flavor_of_a_resize_are_in_use(host):
    host.add(2, flavor={"swap": 64, "ephemeral_gb": 5}, ephemeral_gb=7)
    table = models.instance_extra
    with host.world.engine.begin() as connection:
        where = table.c.instance_uuid == uuid_of(2)
        text = json.loads(connection.execute(sa.select(table.c.flavor).where(where)).scalar_one())
        text["new"] = json.loads(json.dumps(text["cur"]))
        text["new"]["nova_object.data"].update(swap=96, ephemeral_gb=6)
        connection.execute(sa.update(table).where(where).values(flavor=json.dumps(text)))
    names = ["swap_64", "swap_96", *(f"ephemeral_{size}_abcdefg" for size in (5, 6, 7))]
    for name in names:
        host.file(name)
    host.passes()
    assert host.names() == sorted(names)


def test_a_flavor_that_cannot_be_read_keeps_all_swap_and_ephemeral_files(host, caplog):
    host.world.add(2)
    host.file("swap_1")
    host.file("ephemeral_1_abcdefg")
    host.file(GARBAGE)
    host.passes()
    assert host.names() == ["ephemeral_1_abcdefg", "swap_1"]
    assert caplog.text.count("the flavors of 1 instances cannot be read") == 1


def test_d22_a_host_that_was_down_for_long_still_uses_the_storage(host, caplog):
    register(host, host2=30 * DAY)
    host.add(2, image_ref=OTHER_IMAGE, host="host2")
    host.file(OTHER)
    host.passes()
    assert host.names() == [OTHER]
    assert caplog.text.count("host2 shares this storage and was last heard of at") == 1
    assert "cepheid image forget-host host2" in caplog.text


def test_d22_a_host_that_nova_dropped_from_the_registry_still_uses_the_storage(host):
    register(host, host2=0)
    host.add(2, image_ref=OTHER_IMAGE, host="host2")
    host.file(OTHER)
    host.run()
    # One that could not read it has begun a new one.
    (host.instances / "compute_nodes").write_text(json.dumps({"host9": host.now}))
    host.passes()
    assert host.names() == [OTHER]


def test_d22_a_host_that_an_operator_forgets_protects_nothing_until_it_comes_back(host):
    register(host, host2=30 * DAY)
    host.add(2, image_ref=OTHER_IMAGE, host="host2")
    host.file(OTHER)
    host.run()
    host.task.surveyor.users.forget("host2")
    host.world.clock.sleep(2 * DAY)
    host.run()
    assert (host.names(), host.aside()) == ([], [OTHER])
    host.task.surveyor.users.register("host2", host.now)
    (change,) = host.run().changes
    assert (change.kind, host.names()) == ("restore", [OTHER])


# Chains and domains.


def test_chains_of_three_and_four_levels_protect_all_of_them(host):
    bottom = host.file(GARBAGE)
    middle, top = host.base / OTHER, host.base / f"{OTHER}_20"
    host.disk("_base", bottom.name, middle.name)
    host.disk("_base", middle, top.name, "qcow2")
    for path in (middle, top):
        host.make_old(path)
    host.disk(uuid_of(8), top, backing_format="qcow2")
    runs = host.passes()
    assert host.names() == sorted([GARBAGE, OTHER, f"{OTHER}_20"])
    assert {run.outcome for run in runs} == {"ok"}


@pytest.mark.parametrize("named", ["relative", "json", "file:", "a link to its directory"])
def test_a_backing_file_is_found_however_it_is_named(host, tmp_path, named):
    path = host.file(OTHER)
    (tmp_path / "elsewhere").symlink_to(host.base)
    names = {
        "relative": f"../_base/{OTHER}",
        "json": f'json:{{"driver": "raw", "file": {{"driver": "file", "filename": "{path}"}}}}',
        "file:": f"file:{path}",
        "a link to its directory": tmp_path / "elsewhere" / OTHER,
    }
    host.disk(uuid_of(8), names[named])
    host.passes()
    assert host.names() == [OTHER]


def test_a_link_to_a_base_file_protects_the_file(host, tmp_path):
    host.file(OTHER)
    (tmp_path / "alias").symlink_to(host.base / OTHER)
    host.disk(uuid_of(8), tmp_path / "alias")
    host.passes()
    assert host.names() == [OTHER]


def test_what_may_be_a_raw_disk_leads_to_no_file_outside_and_so_may_hide_a_use(
    host, tmp_path, caplog
):
    """Nobody says that it is qcow2, and the guest of a raw disk can write any name there."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"QFI\xfb" + b"\xff" * 5000)
    os.mkfifo(tmp_path / "pipe")
    disk = host.disk(uuid_of(8), secret, backing_format="qcow2")
    host.disk(uuid_of(9), tmp_path / "pipe", backing_format="")
    host.disk(uuid_of(10), "/dev/../etc/shadow", backing_format="qcow2")
    host.disk(uuid_of(11), tmp_path / "not-there", backing_format="qcow2")
    host.file(GARBAGE)
    run = host.run()
    assert (run.outcome, run.changes, host.names()) == ("partial", [], [GARBAGE])
    assert "cannot be read" not in caplog.text
    assert caplog.text.count("which is not opened") == 4
    assert f"{disk} says that it stands on {secret}, which is not opened" in caplog.text


@pytest.mark.parametrize("said", ["raw", "over the network"])
def test_what_stands_on_no_chain_outside_hides_no_use(host, tmp_path, said):
    (tmp_path / "golden").write_text("raw")
    if said == "raw":
        host.disk(uuid_of(8), tmp_path / "golden")
    else:
        host.disk(uuid_of(8), "nbd://192.0.2.1/disk", backing_format="qcow2")
    host.file(GARBAGE)
    run = host.run()
    assert (run.outcome, host.names()) == ("ok", [])


def archived(host, tmp_path, backing):
    """Return a file elsewhere, beside no disk, that stands on another."""
    (tmp_path / "archive").mkdir()
    return host.disk("../archive", backing, "middle.qcow2")


@pytest.mark.parametrize("said_by", ["definition", "disk.info"])
def test_a_chain_that_leaves_and_comes_back_protects(host, tmp_path, said_by):
    middle = archived(host, tmp_path, host.file(OTHER))
    host.file(GARBAGE)
    disk = host.disk(uuid_of(5), middle, backing_format="qcow2")
    if said_by == "definition":
        host.define(5, disk_xml(disk), running=False)
    else:
        (disk.parent / "disk.info").write_text(json.dumps({str(disk): "qcow2"}))
    runs = host.passes()
    assert host.names() == [OTHER]
    assert {run.outcome for run in runs} == {"ok"}


def test_it_does_so_through_a_disk_that_nobody_says_anything_of(host, tmp_path):
    """An external snapshot was taken: the domain names what stands on its old disk."""
    middle = archived(host, tmp_path, host.file(OTHER))
    old = host.disk(uuid_of(5), middle, backing_format="qcow2")
    host.define(5, disk_xml(host.disk(uuid_of(5), old, "snapshot", "qcow2")), running=False)
    host.file(GARBAGE)
    runs = host.passes()
    assert host.names() == [OTHER]
    assert {run.outcome for run in runs} == {"ok"}


@pytest.mark.parametrize("running", [True, False])
def test_a_domain_that_stands_on_an_image_from_elsewhere_protects_it(host, tmp_path, running):
    host.file(OTHER)
    (tmp_path / "vms").mkdir()
    middle = host.disk("../vms", host.base / OTHER, "middle.qcow2")
    disk = host.disk("../vms", middle, "disk.qcow2", "qcow2")
    host.define(5, disk_xml(disk), running=running)
    host.passes()
    assert host.names() == [OTHER]


def test_a_volume_of_a_storage_pool_is_a_disk_as_any_other(host, tmp_path):
    host.file(OTHER)
    host.file(GARBAGE)
    (tmp_path / "pool").mkdir()
    disk = host.disk("../pool", host.base / OTHER, "v")
    host.world.hypervisor.volumes["p", "v"] = str(disk)
    host.define(5, disk_xml("").replace("file=''", "pool='p' volume='v'"), running=False)
    host.passes()
    assert host.names() == [OTHER]


def test_a_domain_that_has_an_image_itself_as_a_disk_protects_it(host):
    path = host.file(OTHER)
    host.define(5, disk_xml(path, "raw"))
    host.passes()
    assert host.names() == [OTHER]


def test_what_a_domain_runs_with_or_was_saved_with_protects_too(host, tmp_path):
    uuid = host.define(5)
    host.world.hypervisor.other_definitions[uuid] = [
        with_disks(uuid, "guest-5", disk_xml(host.file(OTHER), "raw")),
        f"<domainsnapshot><disks><disk name='vda'><source file='{host.file(GARBAGE)}'/></disk>"
        "</disks></domainsnapshot>",
    ]
    host.passes()
    assert host.names() == sorted([OTHER, GARBAGE])


def test_the_chain_in_a_running_domains_definition_protects(host):
    path = host.file(OTHER)
    chain = f"<backingStore type='file'><format type='raw'/><source file='{path}'/></backingStore>"
    host.define(5, disk_xml("/gone/disk", "raw").replace("</disk>", f"{chain}</disk>"))
    host.passes()
    assert host.names() == [OTHER]


def test_a_raw_disk_is_not_asked_what_its_guest_wrote_to_its_beginning(host):
    """Its guest could name other people's files, or keep all files by what cannot be read."""
    for number, content in ((2, b"QFI\xfb" + b"\xff" * 5000), (3, b"QED\0" + bytes(5000))):
        directory = host.instances / uuid_of(number)
        directory.mkdir()
        (directory / "disk").write_bytes(content)
    info = {str(host.instances / uuid_of(2) / "disk"): "raw"}
    (host.instances / uuid_of(2) / "disk.info").write_text(json.dumps(info))
    host.define(3, disk_xml(host.instances / uuid_of(3) / "disk", "raw"))
    host.file(GARBAGE)
    run = host.run()
    assert (run.outcome, host.names()) == ("ok", [])


def test_a_definition_that_calls_a_disk_qcow2_goes_before_disk_info(host):
    disk = host.disk(uuid_of(2), host.file(OTHER))
    (disk.parent / "disk.info").write_text(json.dumps({str(disk): "raw"}))
    host.define(2, disk_xml(disk))
    host.passes()
    assert host.names() == [OTHER]


def test_a_console_log_and_a_kernel_are_no_disks(host):
    directory = host.instances / uuid_of(2)
    directory.mkdir()
    for name in ("console.log", "console.log.0", "kernel", "ramdisk.rescue"):
        (directory / name).write_bytes(b"QFI\xfb" + b"\xff" * 5000)
    host.file(GARBAGE)
    assert host.run().outcome == "ok"
    assert host.names() == []


# What is open.


def open_in(host, process, path):
    directory = host.proc / str(process) / "fd"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "7").symlink_to(path)
    (directory / "8").symlink_to("socket:[4711]")


def test_a_file_that_a_process_has_open_is_kept(host):
    open_in(host, 4711, host.file(OTHER))
    host.passes()
    assert host.names() == [OTHER]


def test_a_file_that_is_locked_is_kept(host):
    number = host.file(OTHER).stat().st_ino
    (host.proc / "locks").write_text(
        f"1: OFDLCK ADVISORY  READ -1 00:2d:{number} 100 101\n"
        "1: -> POSIX  ADVISORY  WRITE 99 fd:00:1234567 0 EOF\n"
    )
    host.passes()
    assert host.names() == [OTHER]


def test_a_file_that_is_opened_after_it_was_set_aside_is_brought_back(host):
    host.file(OTHER)
    host.run()
    (entry,) = (host.base / ASIDE).iterdir()
    open_in(host, 4711, entry)
    (change,) = host.run().changes
    assert (change.kind, change.outcome, host.names()) == ("restore", "done", [OTHER])
    assert host.age(OTHER) == 0


@pytest.mark.parametrize("error", [errno.EACCES, errno.ESTALE, errno.ENOTCONN])
def test_an_open_file_that_not_even_root_may_look_at_keeps_no_image(host, error, monkeypatch):
    """One on a user's own FUSE mount, or one that is gone from a server or went with it."""
    host.file(GARBAGE)
    open_in(host, 77, "/home/user/mount/document")
    stat = os.stat

    def refuse(path, **arguments):
        if str(path).endswith("/77/fd/7"):
            raise OSError(error, os.strerror(error), path)
        return stat(path, **arguments)

    monkeypatch.setattr(os, "stat", refuse)
    assert host.run().outcome == "ok"
    assert host.names() == []


@pytest.mark.parametrize("fault", ["no root", "hidden processes", "a container", "no locks"])
def test_processes_that_cannot_be_looked_at_mean_that_nothing_is_removed(host, fault):
    host.file(GARBAGE)
    if fault == "no root":
        # What a process of another user answers; root would be let in.
        (host.proc / "77").mkdir()
        (host.proc / "77" / "fd").write_text("no directory")
    elif fault == "hidden processes":
        (host.proc / "1" / "fd").rmdir()
        (host.proc / "1").rmdir()
    elif fault == "a container":
        (host.proc / "self" / "ns").mkdir(parents=True)
        (host.proc / "self" / "ns" / "pid").symlink_to("pid:[4026532000]")
    else:
        (host.proc / "locks").unlink()
    run = host.run()
    assert run.outcome == "failed"
    assert "so who has files open is not known. Run as the host's root." in run.error
    assert host.names() == [GARBAGE]


# What cannot be read means that nothing is removed.


def unreadable_disk(host):
    host.disk(uuid_of(2), host.base / ORIGINAL).write_bytes(b"QFI\xfb\0\0\0\3" + b"\xff" * 600)
    return "disk cannot be read: "


def other_format(host):
    (host.instances / uuid_of(2)).mkdir()
    (host.instances / uuid_of(2) / "disk").write_bytes(b"QED\0" + bytes(600))
    return "disk cannot be read: it is qed, whose chains are not read"


def data_file(host):
    (host.instances / uuid_of(2)).mkdir()
    disk = host.instances / uuid_of(2) / "disk"
    qcow2 = ["create", "-q", "-f", "qcow2", "-o", f"data_file={disk}.data", disk, "1M"]
    qemu_img(*qcow2)
    return "disk cannot be read: it has an external data file"


def truncated_disk(host):
    path = host.disk(uuid_of(2), host.base / ORIGINAL)
    path.write_bytes(path.read_bytes()[:300])
    return "disk cannot be read: it is cut short"


def missing_middle(host):
    host.disk(uuid_of(2), host.base / f"{OTHER}_20", backing_format="qcow2")
    return f"{OTHER}_20 is missing, so what its disks stand on is not all known"


def symbolic_link(host):
    (host.instances / uuid_of(2)).mkdir()
    (host.instances / uuid_of(2) / "disk").symlink_to("/dev/vg/disk")
    return "disk is a symbolic link, and no domain says what it is"


def missing_outside(host):
    disk = host.disk(uuid_of(2), "/mnt/not-mounted/middle", backing_format="qcow2")
    host.define(2, disk_xml(disk), running=False)
    return (
        "/mnt/not-mounted/middle is missing, so what its disks stand on is not all known: "
        f"{disk} stands on it"
    )


def missing_beneath_instances_path(host):
    """The other directory is a mount of its own that is away."""
    (host.instances / uuid_of(3)).mkdir()
    host.disk(uuid_of(2), host.instances / uuid_of(3) / "disk", backing_format="qcow2")
    return f"{uuid_of(3)}/disk is missing, so what its disks stand on is not all known"


def disk_of_a_domain_missing_beneath_instances_path(host):
    (host.instances / uuid_of(3)).mkdir()
    host.define(3, disk_xml(host.instances / uuid_of(3) / "disk"), running=False)
    return f"{uuid_of(3)}/disk is missing, and a domain has it as its disk"


def pool_volume(host):
    disk = "<disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk>"
    host.define(5, disk)
    return "domain guest-5 has the disk v in the storage pool p, which libvirt does not find"


def disk_of_a_domain_missing_elsewhere(host):
    host.define(5, disk_xml("/mnt/not-mounted/disk"))
    return "/mnt/not-mounted/disk is missing, and a domain has it as its disk"


@pytest.mark.parametrize(
    "fault",
    [
        unreadable_disk,
        other_format,
        data_file,
        truncated_disk,
        missing_middle,
        missing_outside,
        missing_beneath_instances_path,
        disk_of_a_domain_missing_beneath_instances_path,
        symbolic_link,
        pool_volume,
        disk_of_a_domain_missing_elsewhere,
    ],
)
def test_a_chain_that_cannot_be_read_means_that_nothing_is_removed(host, caplog, fault):
    host.file(GARBAGE)
    words = fault(host)
    run, *_ = host.passes(2)
    assert run.outcome == "partial"
    assert run.changes == []
    assert host.names() == [GARBAGE]
    assert caplog.text.count("nothing is removed in this pass: ") == 1
    assert words in caplog.text


def test_a_guest_that_is_deleted_while_one_looks_stops_no_pass(host, monkeypatch):
    """Its domain goes first, then its disk."""
    host.file(GARBAGE)
    disk = host.disk(uuid_of(3), host.file(OTHER))
    host.define(3, disk_xml(disk))
    hypervisor = host.world.hypervisor
    named_files = hypervisor.named_files

    def then_delete():
        found = named_files()
        hypervisor.states.pop(uuid_of(3), None)
        disk.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(hypervisor, "named_files", then_delete)
    run = host.run()
    assert (run.outcome, host.names()) == ("ok", [])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host2": "yesterday"}', "null"])
@pytest.mark.parametrize("name", ["compute_nodes", "cepheid_compute_nodes"])
def test_a_registry_that_cannot_be_read_means_that_nothing_is_removed(host, name, content):
    host.file(GARBAGE)
    (host.instances / name).write_text(content)
    for run in host.passes(2):
        assert run.outcome == "failed"
        assert f"The registry {name} in instances_path cannot be read" in run.error
    assert host.names() == [GARBAGE]
    assert (host.instances / name).read_text() == content


def test_an_empty_registry_says_who_is_known_and_what_to_do_and_that_helps(host, caplog):
    """Nova empties it before it writes it; it may be killed, or the disk full."""
    host.file(GARBAGE)
    (host.instances / "cepheid_compute_nodes").write_text('{"host1": 1, "host2": 2}')
    (host.instances / "compute_nodes").write_text("")
    (run,) = host.passes(1)
    assert (run.outcome, run.changes, host.names()) == ("failed", [], [GARBAGE])
    assert run.error == (
        "The registry compute_nodes in instances_path cannot be read (it is empty), so who else "
        "uses this storage is not known, and nothing is removed. Known are host1, host2: if that "
        "is all of them, remove compute_nodes, and it is made anew; else write it as JSON, "
        '{"HOST": 0} with each host that does.'
    )
    assert "Traceback" not in caplog.text
    (host.instances / "compute_nodes").unlink()
    (run,) = host.passes(1)
    assert run.outcome == "ok"
    assert set(json.loads((host.instances / "compute_nodes").read_text())) == {"host1"}
    known = json.loads((host.instances / "cepheid_compute_nodes").read_text())
    assert set(known) == {"host1", "host2"}
    # Or it is written, with whoever is known by no file.
    (host.instances / "compute_nodes").write_text('{"host3": 0}')
    (run,) = host.passes(1)
    assert run.outcome == "ok"
    known = json.loads((host.instances / "cepheid_compute_nodes").read_text())
    assert set(known) == {"host1", "host2", "host3"}


def test_where_no_registry_can_be_read_it_names_nobody(host):
    for name in ("compute_nodes", "cepheid_compute_nodes"):
        (host.instances / name).write_text("")
    (run,) = host.passes(1)
    assert "is removed. If nobody else does, remove compute_nodes" in run.error


def test_a_hypervisor_that_does_not_answer_means_that_nothing_is_removed(host):
    host.file(GARBAGE)
    host.world.hypervisor.available = False
    assert host.run().outcome == "failed"
    assert host.names() == [GARBAGE]


def test_a_definition_that_cannot_be_read_means_that_nothing_is_removed(host):
    host.file(GARBAGE)
    host.world.hypervisor.definitions[uuid_of(1)] = "<domain"
    assert host.run().outcome == "failed"
    assert host.names() == [GARBAGE]


def test_a_database_that_does_not_answer_means_that_nothing_is_removed(host):
    host.file(GARBAGE)
    (host.world.path / "inventory.sqlite").unlink(missing_ok=True)
    with host.world.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE block_device_mapping"))
    assert host.run().outcome == "failed"
    assert host.names() == [GARBAGE]


def see(host, name="host1", hypervisor=None):
    """Let the agent have seen its host before."""
    sightings = Sightings()
    identity = hypervisor or host.world.hypervisor.system_uuid
    sightings.look(name, identity, [uuid_of(1)], [], [], host.world.clock.utcnow())
    SightingsFile(str(host.world.path)).write(sightings)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"name": "host9"}, "this host was host9 and is host1 now"),
        ({"hypervisor": "another"}, "the hypervisor was another and is"),
    ],
)
def test_another_host_or_hypervisor_means_that_nothing_is_removed(host, caplog, seen, words):
    see(host, **seen)
    host.file(GARBAGE)
    assert host.run().outcome == "partial"
    assert host.names() == [GARBAGE]
    assert words in caplog.text
    assert "cepheid host confirm" in caplog.text


def test_an_inventory_that_is_suddenly_empty_means_that_nothing_is_removed(host, caplog):
    see(host)
    host.file(ORIGINAL)
    with host.world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances))
    host.passes()
    assert host.names() == [ORIGINAL]
    assert "all 1 instances of this host vanished from the inventory" in caplog.text


def test_an_inventory_that_was_empty_from_the_beginning_means_that_nothing_is_removed(host, caplog):
    (host.instances / uuid_of(1)).mkdir()
    host.file(ORIGINAL)
    with host.world.engine.begin() as connection:
        connection.execute(sa.delete(models.instances))
        connection.execute(
            sa.insert(models.compute_nodes).values(
                host="host1", deleted=0, vcpus=1, memory_mb=1, local_gb=1, vcpus_used=0,
                memory_mb_used=0, local_gb_used=0, hypervisor_type="QEMU", hypervisor_version=1,
                cpu_info="{}",
            )
        )  # fmt: skip
    host.passes()
    assert host.names() == [ORIGINAL]
    assert "no instance is on record, and 1 have files here" in caplog.text


def test_a_cache_that_is_a_symbolic_link_is_left_alone(host, tmp_path):
    host.base.rmdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / GARBAGE).touch()
    host.make_old(tmp_path / "other" / GARBAGE)
    host.base.symlink_to(tmp_path / "other")
    assert host.run().outcome == "failed"
    assert (tmp_path / "other" / GARBAGE).exists()


def test_a_symbolic_link_in_the_cache_is_no_image(host, tmp_path):
    target = tmp_path / "precious"
    target.touch()
    host.make_old(target)
    (host.base / GARBAGE).symlink_to(target)
    host.passes()
    assert host.names() == [GARBAGE]
    assert target.exists()


# Locks, and what happens meanwhile.


def test_a_file_whose_lock_nova_compute_holds_is_left_alone(host):
    host.file(GARBAGE)
    host.file(OTHER)
    lock = hold(host, f"nova-{GARBAGE}")
    run = host.run()
    assert run.counters["raced"] == 1
    assert (host.names(), host.aside()) == ([GARBAGE], [OTHER])
    lock.terminate()
    lock.wait()
    host.run()
    assert host.names() == []


def hold(host, name):
    """Let another process hold a lock: this one's own would not keep it out."""
    code = (
        "import fcntl, sys, time\n"
        f"lock = open({str(host.instances / 'locks' / name)!r}, 'a')\n"
        "fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_registry_that_stays_locked_fails_the_pass(host):
    host.file(GARBAGE)
    lock = hold(host, "nova-storage-registry-lock")
    before = host.world.clock.monotonic()
    run = host.run()
    assert "stays locked" in run.error
    waited = host.world.clock.monotonic() - before
    assert waited == pytest.approx(image_options.REGISTRY_ATTEMPTS * image_options.REGISTRY_SECONDS)
    assert host.names() == [GARBAGE]
    lock.terminate()
    lock.wait()


def test_a_file_that_is_used_between_the_look_and_the_removal_is_kept(host, monkeypatch):
    path = host.file(OTHER)
    files = host.task.surveyor.cache
    seen = files.set_aside

    def use_first(*arguments):
        # As nova-compute does before it makes a disk of it.
        os.utime(path, (host.now, host.now))
        seen(*arguments)

    monkeypatch.setattr(files, "set_aside", use_first)
    run = host.run()
    assert (run.counters["raced"], host.names()) == (1, [OTHER])


def test_what_the_second_look_finds_used_is_kept(host, monkeypatch):
    host.file(OTHER)
    looks = []
    survey = host.task._survey

    def look_then_use(hosts, thorough):
        found = survey(hosts, thorough)
        looks.append(thorough)
        if looks == [False, True]:
            host.add(2, image_ref=OTHER_IMAGE)
        return found

    monkeypatch.setattr(host.task, "_survey", look_then_use)
    run = host.run()
    assert (run.counters["raced"], host.names(), looks) == (1, [OTHER], [False, True, True])


def test_a_file_that_turns_out_to_be_used_comes_back(host):
    host.file(OTHER)
    host.run()
    assert host.aside() == [OTHER]
    host.add(2, image_ref=OTHER_IMAGE)
    (change,) = host.run().changes
    assert (change.kind, change.outcome) == ("restore", "done")
    assert (host.names(), host.aside(), host.age(OTHER)) == ([OTHER], [], 0)


def test_a_disk_that_stands_on_a_file_that_was_set_aside_brings_it_back(host):
    bottom = host.file(GARBAGE)
    host.disk("_base", bottom, OTHER)
    host.make_old(host.base / OTHER)
    host.run()
    assert host.aside() == sorted([OTHER, GARBAGE])
    host.disk(uuid_of(1), host.base / OTHER, backing_format="qcow2")
    run = host.run()
    assert [change.outcome for change in run.changes] == ["done", "done"]
    assert host.names() == sorted([OTHER, GARBAGE])


def test_one_whose_place_was_taken_is_kept_and_named(host, caplog):
    host.file(OTHER)
    host.run()
    host.file(OTHER, age=0, content="fetched anew")
    host.add(2, image_ref=OTHER_IMAGE)
    host.passes(4)
    assert (host.names(), host.aside()) == ([OTHER], [OTHER])
    assert (host.base / OTHER).read_text() == "fetched anew"
    assert "another has taken its place; look at both" in caplog.text


def test_one_whose_place_was_taken_and_that_nobody_uses_is_deleted_alone(host):
    host.file(OTHER)
    host.run()
    host.world.clock.sleep(DAY)
    host.file(OTHER, age=0, content="fetched anew")
    run = host.run()
    assert [change.kind for change in run.changes] == ["delete"]
    assert (host.base / OTHER).read_text() == "fetched anew"
    assert (host.instances / "locks" / f"nova-{OTHER}").exists()


def test_an_agent_that_died_while_it_brought_a_file_back_ends_that(host):
    path = host.file(OTHER)
    host.run()
    (entry,) = (host.base / ASIDE).iterdir()
    os.link(entry, path)
    host.add(2, image_ref=OTHER_IMAGE)
    host.run()
    assert (host.names(), host.aside(), path.stat().st_nlink) == ([OTHER], [], 1)


# Dry run, limits, cost.


def test_a_dry_run_changes_nothing(host):
    host.file(ORIGINAL)
    host.file(GARBAGE)
    before = tree(host)
    run = host.run(dry_run=True)
    assert [(c.kind, c.target, c.outcome) for c in run.changes] == [
        ("set_aside", GARBAGE, "planned")
    ]
    assert tree(host) == before


def tree(host):
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in [host.instances, *host.instances.rglob("*")]
    }


def test_a_pass_removes_twenty_files_at_most_unless_told_otherwise(host):
    for number in range(30):
        host.file(image_names.fingerprint(str(number)))
    run = host.run()
    assert (run.outcome, run.counters["refused"], len(host.names())) == ("limited", 10, 10)


def test_the_oldest_go_first_and_no_pass_records_thousands_of_refusals(host):
    host.world.agent.set(host.task.name, max_changes=2)
    names = [image_names.fingerprint(str(number)) for number in range(30)]
    for number, name in enumerate(names):
        host.file(name, age=2 * DAY + number)
    run = host.run()
    assert host.aside() == sorted(names[-2:])
    assert (run.counters["refused"], run.counters["left_for_later"]) == (18, 10)
    host.passes(30)
    assert host.names() == host.aside() == []


def test_files_made_by_root_belong_to_who_owns_the_directory(host):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    for path in (host.instances, host.base, host.instances / "locks"):
        os.chown(path, 64055, 64055)
    host.file(GARBAGE)
    host.run()
    made = ["locks/nova-storage-registry-lock", f"locks/nova-{GARBAGE}", "compute_nodes",
            f"_base/{ASIDE}", "cepheid_compute_nodes"]  # fmt: skip
    assert {(host.instances / name).stat().st_uid for name in made} == {64055}


def test_this_host_is_entered_into_the_registry_as_nova_does(host):
    register(host, host2=10)
    host.run()
    entries = json.loads((host.instances / "compute_nodes").read_text())
    assert entries == {"host1": host.now, "host2": host.now - 10}


def register(host, **seconds_ago):
    """Let nova-computes have entered themselves."""
    entries = {name: host.now - ago for name, ago in seconds_ago.items()}
    (host.instances / "compute_nodes").write_text(json.dumps(entries))


def fill(host, numbers):
    """Add instances whose disks stand on image 1."""
    host.add_many(numbers, image_ref=IMAGE)
    content = host.disk(uuid_of(numbers[0]), host.file(ORIGINAL)).read_bytes()
    for number in numbers[1:]:
        (host.instances / uuid_of(number)).mkdir()
        (host.instances / uuid_of(number) / "disk").write_bytes(content)


class Forks:
    """Counts the processes that are started."""

    def __init__(self):
        self.count = 0
        self.on = True
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if self.on and event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            self.count += 1


def test_a_steady_pass_costs_the_same_statements_and_calls_and_no_process(host):
    costs = []
    for numbers in (range(100, 110), range(110, 1100)):
        fill(host, numbers)
        host.run()
        host.world.database.statements.clear()
        host.world.hypervisor.calls.clear()
        forks = Forks()
        # Its guests write: their disks are not as they were, but for how they begin.
        for path in host.instances.glob("*/disk"):
            host.make_old(path, -1)
        run = host.run()
        forks.on = False
        assert (run.outcome, run.counters["used"]) == ("ok", 1)
        costs.append((host.world.statements(), host.world.hypervisor.calls.total(), forks.count))
    assert costs == [(4, 0, 0), (4, 0, 0)]
    assert host.task.surveyor.chains.backing_files.forks == 1


def test_a_new_process_knows_what_the_one_before_has_read(host):
    fill(host, range(100, 110))
    host.run()
    host.task = host.make_task()
    forks = Forks()
    host.run()
    forks.on = False
    assert forks.count == 0


@pytest.mark.parametrize(
    "text",
    [
        '[["x"]]',
        '{"images": []}',
        '{"rules": 2, "images": [["x"]]}',
        lambda known: json.dumps({**json.loads(known), "rules": 1}),
        lambda known: json.dumps(json.loads(known)["images"]),
    ],
)
def test_what_was_remembered_and_cannot_be_read_or_judged_so_is_read_anew(host, text):
    fill(host, range(100, 103))
    host.run()
    file = host.world.path / "cepheid-backing-files.json"
    file.write_text(text(file.read_text()) if callable(text) else text)
    host.task = host.make_task()
    run = host.run()
    assert (run.outcome, host.task.surveyor.chains.backing_files.forks) == ("ok", 1)


def test_a_disk_that_was_replaced_in_place_is_read_anew(host):
    host.disk(uuid_of(8), host.file(OTHER))
    host.run()
    host.disk(uuid_of(8), host.file(GARBAGE))
    host.make_old(host.base / OTHER)
    host.make_old(host.base / GARBAGE)
    host.run()
    assert (host.names(), host.aside()) == ([GARBAGE], [OTHER])


def test_cron_may_run_it_in_place_of_the_agent(host):
    assert type(host.task)._periodic_declared[host.task.name]._periodic_external_ok


def test_nova_conf_is_understood(tmp_path):
    settings = """
[image_cache]
manager_interval = 111
remove_unused_base_images = false
remove_unused_original_minimum_age_seconds = 222
subdirectory_name = base
[libvirt]
remove_unused_resized_minimum_age_seconds = 333
"""
    host = ImageHost(tmp_path, settings=settings)
    conf = host.task.conf
    assert (conf.spacing, conf.remove_unused_base_images, conf.subdirectory_name) == (
        111, False, "base"
    )  # fmt: skip
    assert conf.remove_unused_original_minimum_age_seconds == 222
    assert conf.remove_unused_resized_minimum_age_seconds == 333
    host.close()


@pytest.mark.parametrize("name", ["..", "a/b", "", "."])
def test_a_subdirectory_that_is_no_name_is_refused(host, name):
    host.world.agent.set(host.task.name, subdirectory_name=name)
    run = host.run()
    assert "must be a name, not a path" in run.error
