# SPDX-License-Identifier: Apache-2.0
"""What each image stands on, read once and kept.

How an image begins is judged by oslo.utils; where it names a backing file, ``qemu-img info`` of the
open file tells which. That is kept by inode, size and times, and by how the image begins: a guest
that writes to its disk costs no process.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cepheid_plugins.storage import image_formats, image_heads, qemu_img
from cepheid_plugins.storage.image_heads import Inode, Looked, Stamp
from cepheid_plugins.storage.instances_path import StorageError

#: Seconds after which storage that does not answer is given up.
READ_SECONDS = 300

#: Makes a call with a deadline in seconds, as Agent.run_native does.
RunNative = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What an image stands on.

    :param digest: of how it begins; empty where that does not tell all of it
    :param backing: as it stands in the image; empty for nothing
    :param backing_format: likewise
    :param problem: why that is not known; nothing where it is
    """

    stamp: Stamp
    digest: str
    backing: str = ""
    backing_format: str = ""
    problem: str = ""


class BackingFiles:
    """Tells of images what they stand on.

    :param root: the resolved instances_path
    :param run_native: makes a call with a deadline
    """

    def __init__(self, root: str, run_native: RunNative) -> None:
        self._root = root
        self._run_native = run_native
        self._known: dict[Inode, Known] = {}
        self._met: set[Inode] = set()
        #: Processes that were started.
        self.forks = 0

    def is_known(self, inode: Inode, stamp: Stamp) -> bool:
        """Tell whether an image is as it was when it was last read, and could be."""
        known = self._known.get(inode)
        return known is not None and known.stamp == stamp and not known.problem

    def of(self, image: Looked) -> Known:
        """Return what an image stands on that was read."""
        return self._known[image.inode]

    def begin(self) -> None:
        """Begin a round, at whose end is forgotten what was not met in it."""
        self._met = set()

    def end(self) -> None:
        """End a round."""
        self._known = {inode: self._known[inode] for inode in self._met}

    def read(self, images: Sequence[Looked]) -> None:
        """Learn what images stand on, by qemu-img only where nothing else tells."""
        ask = []
        for image in images:
            self._met.add(image.inode)
            if image.head is None:
                continue
            head = image_formats.inspect(image.head)
            known = self._known.get(image.inode)
            digest = _digest(image.head) if head.is_complete else ""
            if known is not None and digest and known.digest == digest and not known.problem:
                self._known[image.inode] = Known(
                    image.stamp, digest, known.backing, known.backing_format
                )
            elif head.has_backing:
                ask.append((image, digest))
            else:
                self._known[image.inode] = Known(image.stamp, digest, problem=head.problem)
        for start in range(0, len(ask), qemu_img.BATCH):
            self._ask(ask[start : start + qemu_img.BATCH])

    def dump(self) -> str:
        """Return what is known, as text, for another process."""
        return json.dumps(
            [
                [*inode, *one.stamp, one.digest, one.backing, one.backing_format]
                for inode, one in self._known.items()
                if not one.problem
            ]
        )

    def load(self, text: str) -> None:
        """Take in what another process knew; a text that cannot be read is nothing."""
        try:
            self._known = dict(_parsed(json.loads(text)))
        except (ValueError, TypeError, IndexError):
            self._known = {}

    def _ask(self, images: Sequence[tuple[Looked, str]]) -> None:
        opened: dict[int, tuple[Looked, str]] = {}
        try:
            for image, digest in images:
                try:
                    descriptor = self._run_native(
                        image_heads.reopen, image, self._root, deadline=READ_SECONDS, name="open"
                    )
                except StorageError as err:
                    self._known[image.inode] = Known(image.stamp, "", problem=str(err))
                else:
                    opened[descriptor] = image, digest
            self.forks += len(opened)
            answers = qemu_img.backing_files(list(opened))
        finally:
            for descriptor in opened:
                os.close(descriptor)
        for (image, digest), answer in zip(opened.values(), answers, strict=True):
            self._known[image.inode] = (
                Known(image.stamp, "", problem=str(answer))
                if isinstance(answer, StorageError)
                else Known(image.stamp, digest, *answer)
            )


def _digest(head: bytes) -> str:
    return hashlib.sha256(head).hexdigest()


def _parsed(rows: Any) -> Iterator[tuple[Inode, Known]]:
    for device, inode, size, modified, changed, digest, backing, backing_format in rows:
        stamp = int(size), int(modified), int(changed)
        yield (
            (int(device), int(inode)),
            Known(stamp, str(digest), str(backing), str(backing_format)),
        )
