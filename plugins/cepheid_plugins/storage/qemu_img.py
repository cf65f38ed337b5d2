# SPDX-License-Identifier: Apache-2.0
"""Disk images, by qemu-img. Source: qemu-img(1)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from cepheid import closed_files
from cepheid_plugins.storage.instances_path import StorageError

#: Seconds that looking at an image may take; copying one is as slow as the disks are.
INFO_TIMEOUT_SECONDS = 60

#: Images that are looked at in one go, each by a process of its own.
BATCH = 8


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


def backing_files(descriptors: Sequence[int]) -> list[tuple[str, str] | StorageError]:
    """Return the backing file of each open qcow2 image, and its format; empty for none.

    The names are as they stand in the images, and nothing is done with them: without
    ``--backing-chain`` qemu-img opens no backing file. An image with an external data file, which
    qemu-img would open, is not for this.

    :param descriptors: :data:`BATCH` at most
    """
    words = ["qemu-img", "info", "--force-share", "--output=json", "-f", "qcow2"]
    running = []
    try:
        for descriptor in descriptors:
            running.append(
                subprocess.Popen(
                    [*words, f"/proc/self/fd/{descriptor}"],
                    pass_fds=[descriptor],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
        return [_backing_file(process) for process in running]
    except FileNotFoundError:
        raise _missing() from None
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()


def _backing_file(process: subprocess.Popen[bytes]) -> tuple[str, str] | StorageError:
    try:
        out, err = process.communicate(timeout=INFO_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return StorageError(f"qemu-img info has not ended within {INFO_TIMEOUT_SECONDS} s")
    if process.returncode:
        return StorageError(err.decode(errors="replace").strip() or "qemu-img info failed")
    # What stands in an image may be no UTF-8, as a file's name may be.
    said = json.loads(out.decode(errors="surrogateescape"))
    return said.get("backing-filename", ""), said.get("backing-filename-format", "")


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
            # What a guest has on its disk is nobody else's, whoever's umask it is.
            umask=closed_files.OTHERS,
        )
    except FileNotFoundError:
        raise _missing() from None
    except subprocess.TimeoutExpired as err:
        raise StorageError(f"qemu-img {words[0]} has not ended within {timeout} s.") from err
    if done.returncode:
        raise StorageError(done.stderr.strip() or f"qemu-img {words[0]} failed.")
    return done.stdout


def _missing() -> StorageError:
    return StorageError("qemu-img is missing; install it (Debian's package qemu-utils).")
