# SPDX-License-Identifier: Apache-2.0
"""Disk images, by qemu-img. Source: qemu-img(1)."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from cepheid_plugins.storage.instances_path import StorageError

#: Seconds that looking at an image may take; copying one is as slow as the disks are.
INFO_TIMEOUT_SECONDS = 60


def info(path: str, image_format: str = "") -> dict[str, Any]:
    """Return what qemu-img says of an image: format, virtual-size in bytes, ...

    :param image_format: what it is known to be. Give it for whatever a guest can write to: what
        a raw disk begins with is the guest's choice, and may name other people's files
    :raises StorageError: it cannot be read
    """
    known = ["-f", image_format] if image_format else []
    words = ["info", "--force-share", "--output=json", *known, path]
    found: dict[str, Any] = json.loads(_run(words, INFO_TIMEOUT_SECONDS))
    return found


def convert(source: str, source_format: str, target: str, target_format: str = "qcow2") -> None:
    """Copy an image, its backing files included, into a new one that stands alone, on the disk.

    :raises StorageError: it cannot be read, or `target` not be written
    """
    # Unless it is told otherwise, convert leaves what it wrote to the page cache.
    _run(["convert", "-t", "writeback", "-f", source_format, "-O", target_format, source, target])


def resize(path: str, image_format: str, size_bytes: int) -> None:
    """Grow the disk in an image; one that has the size, or is larger, stays.

    :raises StorageError: it cannot be written
    """
    if info(path, image_format)["virtual-size"] < size_bytes:
        _run(["resize", "-q", "-f", image_format, path, str(size_bytes)])


def _run(words: list[str], timeout: float | None = None) -> str:
    try:
        done = subprocess.run(
            ["qemu-img", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except FileNotFoundError:
        raise StorageError(
            "qemu-img is missing; install it (Debian's package qemu-utils)."
        ) from None
    except subprocess.TimeoutExpired as err:
        raise StorageError(f"qemu-img {words[0]} has not ended within {timeout} s.") from err
    if done.returncode:
        raise StorageError(done.stderr.strip() or f"qemu-img {words[0]} failed.")
    return done.stdout
