# SPDX-License-Identifier: Apache-2.0
"""Deleting while somebody swaps directories for symbolic links."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cepheid_plugins.storage.instances_path import InstancesPath, StorageError

pytestmark = pytest.mark.process

UUID = "ce000000-0000-0000-0000-000000000001"
SWAPS = 10_000
FILES = [f"file{number}" for number in range(20)]


def fill(directory):
    directory.mkdir(parents=True)
    for name in FILES:
        (directory / name).write_text(name)


def replace(new, old):
    """Put a directory in the place of another, unless the attacker has put something there."""
    with contextlib.suppress(OSError):
        os.rename(new, old)
    # What is no directory is left alone by us; it may be one the next time.
    if old.is_symlink():
        old.unlink(missing_ok=True)


@pytest.mark.parametrize("swapped", [UUID, f"{UUID}/inner", f"{UUID}_del", f"{UUID}_del/inner"])
def test_ten_thousand_swaps_lead_no_deletion_outside(tmp_path, swapped):
    precious, instances = tmp_path / "precious", tmp_path / "instances"
    fill(precious)
    instances.mkdir()
    attacker = subprocess.Popen(
        [sys.executable, Path(__file__).parent / "attacker.py", instances / swapped,
         tmp_path / "link", precious, str(SWAPS)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    files = InstancesPath(str(instances))
    rounds = 0
    while attacker.poll() is None:
        rounds += 1
        new = tmp_path / f"new{rounds}"
        fill(new / "inner")
        # The attacker may have put something there.
        with contextlib.suppress(OSError):
            os.rename(new, instances / UUID)
        # What is no directory is left alone; it may be one the next time.
        with contextlib.suppress(StorageError):
            files.remove_instance(UUID)
        if (instances / UUID).is_symlink():
            (instances / UUID).unlink(missing_ok=True)
        if (instances / f"{UUID}_del").is_symlink():
            (instances / f"{UUID}_del").unlink(missing_ok=True)
    swaps = int(attacker.communicate()[0])
    assert swaps == SWAPS
    assert sorted(os.listdir(precious)) == sorted(FILES)
    assert [(precious / name).read_text() for name in FILES] == FILES


ASIDE = f"{UUID}_del"


@pytest.mark.parametrize("name", [UUID, f"{UUID}_resize", ASIDE, f"{ASIDE}/{UUID}_resize"])
@pytest.mark.parametrize("inner", ["", "/a", "/a/b", "/a/b/c"])
def test_ten_thousand_swaps_lead_neither_a_look_nor_a_move_nor_a_deletion_outside(
    tmp_path, name, inner
):
    """All that run_pending_deletes does: look, set aside, look again, put back or remove."""
    precious, instances = tmp_path / "precious", tmp_path / "instances"
    fill(precious)
    instances.mkdir()
    known = {(p.stat().st_dev, p.stat().st_ino) for p in (precious, *precious.iterdir())}
    attacker = subprocess.Popen(
        [sys.executable, Path(__file__).parent / "attacker.py", instances / (name + inner),
         tmp_path / "link", precious, str(SWAPS)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    files = InstancesPath(str(instances))
    rounds = removed = 0
    while attacker.poll() is None:
        rounds += 1
        for directory in (UUID, f"{UUID}_resize", ASIDE):
            new = tmp_path / f"new{rounds}{directory[36:]}"
            fill(new / "a" / "b" / "c")
            replace(new, instances / directory)
        with contextlib.suppress(StorageError):
            for entry in files.names_of(UUID):
                assert not known & files.survey(entry).paths.keys()
            moved = files.set_aside(UUID)
            assert not known & files.survey(ASIDE).paths.keys()
            if rounds % 2:
                files.put_back(UUID, moved)
            files.remove(ASIDE)
            removed += 1
    assert int(attacker.communicate()[0]) == SWAPS
    assert removed
    assert sorted(os.listdir(precious)) == sorted(FILES)
    assert [(precious / name).read_text() for name in FILES] == FILES
