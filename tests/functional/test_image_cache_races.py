# SPDX-License-Identifier: Apache-2.0
"""Removing images while somebody swaps their directories for symbolic links."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cepheid.run import Raced
from cepheid_plugins.storage import image_names
from cepheid_plugins.storage.image_cache import ASIDE, ImageCache
from cepheid_plugins.storage.instances_path import StorageError

pytestmark = pytest.mark.process

SWAPS = 100_000
NOW = 1_700_000_000
OLD = NOW - 90_000
NAMES = [image_names.fingerprint(str(number)) for number in range(10)]


def fill(directory, suffix=""):
    directory.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = directory / f"{name}{suffix}"
        path.write_text("precious")
        os.utime(path, (OLD, OLD))


@pytest.mark.parametrize("swapped", ["_base", f"_base/{ASIDE}", "locks"])
def test_a_hundred_thousand_swaps_lead_no_removal_outside(tmp_path, swapped):
    precious, instances = tmp_path / "precious", tmp_path / "instances"
    # As they would be called there, so that nothing but the way to them keeps them.
    fill(precious)
    fill(precious, f"@{OLD}")
    for name in NAMES:
        (precious / f"nova-{name}").write_text("precious")
    before = {path.name: path.stat().st_mtime for path in precious.iterdir()}
    (instances / "locks").mkdir(parents=True)
    fill(instances / "_base")
    (instances / "_base" / ASIDE).mkdir()
    attacker = subprocess.Popen(
        [sys.executable, Path(__file__).parent / "attacker.py", instances / swapped,
         tmp_path / "link", precious, str(SWAPS)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    cache = ImageCache(str(instances))
    rounds = 0
    while attacker.poll() is None:
        rounds += 1
        with contextlib.suppress(StorageError, OSError):
            if not (instances / "_base").is_symlink():
                (instances / "_base").mkdir(exist_ok=True)
            for file in cache.scan() or []:
                with contextlib.suppress(StorageError, Raced):
                    if file.aside_at is None:
                        cache.set_aside(file, OLD, NOW)
                    else:
                        cache.delete(file)
        real = instances / "_base"
        if not real.is_symlink():
            with contextlib.suppress(OSError):
                # Where the attacker has it now, if he was quicker, it is none of his victim's.
                descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                refill(descriptor)
                os.close(descriptor)
        for name in ("_base", f"_base/{ASIDE}", "locks"):
            with contextlib.suppress(OSError):
                if (instances / name).is_symlink() and name != swapped:
                    (instances / name).unlink()
    assert int(attacker.communicate()[0]) == SWAPS
    assert rounds > 100
    assert {path.name: path.stat().st_mtime for path in precious.iterdir()} == before
    assert {path.read_text() for path in precious.iterdir()} == {"precious"}


def refill(directory):
    for name in NAMES:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        os.close(os.open(name, flags, 0o644, dir_fd=directory))
        os.utime(name, (OLD, OLD), dir_fd=directory)
