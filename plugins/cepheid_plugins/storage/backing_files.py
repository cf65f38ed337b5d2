# SPDX-License-Identifier: Apache-2.0
"""The backing file of each image, read once and kept.

The first bytes of an image are judged here. Where they name a backing file, ``qemu-img info`` of
the open file tells which. What was found is kept by the image's inode, size and times, and by its
first bytes. So qemu-img is not run again when a guest has written to its disk, nor for a disk that
begins with the same bytes as another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cepheid_plugins.storage import image_formats, image_heads, qemu_img
from cepheid_plugins.storage.image_heads import Inode, Looked, Stamp
from cepheid_plugins.storage.instances_path import StorageError

#: Seconds after which storage that does not answer is given up.
READ_SECONDS = 300

#: The version of the rules by which images are judged. What was kept by another one is dropped.
RULES = 3

#: Makes a call with a deadline in seconds, as Agent.run_native does.
RunNative = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What an image stands on.

    :param digest: of its first bytes; empty where those do not hold the whole name
    :param backing: the backing file, as the image names it; empty where it has none
    :param backing_format: the format that the image claims of it; may be empty
    :param problem: why the backing file is not known; empty where it is
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
        #: By the digest of an image's first bytes: its backing file and that one's format.
        self._answers: dict[str, tuple[str, str]] = {}
        #: Processes that were started.
        self.forks = 0

    @property
    def known(self) -> Mapping[Inode, Known]:
        """What is known now, by image."""
        return dict(self._known)

    def is_known(self, inode: Inode, stamp: Stamp) -> bool:
        """Tell whether an image could be read and is as it was then."""
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
        self._answers = _answers(self._known)

    def read(self, images: Sequence[Looked]) -> None:
        """Learn what images stand on, by qemu-img only where nothing else tells."""
        ask: dict[str, list[Looked]] = {}
        judged: dict[bytes, tuple[image_formats.Head, str]] = {}
        for image in images:
            self._met.add(image.inode)
            if image.head is None:
                continue
            if image.head not in judged:
                judged[image.head] = _judged(image.head)
            head, digest = judged[image.head]
            if digest in self._answers:
                self._known[image.inode] = Known(image.stamp, digest, *self._answers[digest])
            elif head.has_backing:
                ask.setdefault(digest or image.path, []).append(image)
            else:
                self._known[image.inode] = Known(image.stamp, digest, problem=head.problem)
        groups = list(ask.items())
        for start in range(0, len(groups), qemu_img.BATCH):
            self._ask(groups[start : start + qemu_img.BATCH])

    def dump(self) -> str:
        """Return what is known, as text, for another process."""
        images = [
            [*inode, *one.stamp, one.digest, one.backing, one.backing_format]
            for inode, one in self._known.items()
            if not one.problem
        ]
        return json.dumps({"rules": RULES, "images": images})

    def load(self, text: str) -> None:
        """Take in what another process has dumped.

        A text that cannot be read, or was written by other :data:`RULES`, leaves nothing known.
        """
        self._known = {}
        with contextlib.suppress(ValueError, TypeError, LookupError):
            told = json.loads(text)
            if told["rules"] == RULES:
                self._known = dict(_parsed(told["images"]))
        self._answers = _answers(self._known)

    def _ask(self, groups: Sequence[tuple[str, Sequence[Looked]]]) -> None:
        """Ask qemu-img for the first of each group of images that begin alike."""
        opened: dict[int, str] = {}
        answers: dict[str, tuple[str, str] | StorageError] = {}
        try:
            for digest, images in groups:
                try:
                    descriptor = self._run_native(
                        image_heads.reopen, images[0], self._root, deadline=READ_SECONDS,
                        name="open",
                    )  # fmt: skip
                except StorageError as err:
                    answers[digest] = err
                else:
                    opened[descriptor] = digest
            self.forks += len(opened)
            said = qemu_img.backing_files(list(opened))
            answers.update(zip(opened.values(), said, strict=True))
        finally:
            for descriptor in opened:
                os.close(descriptor)
        for digest, images in groups:
            answer = answers[digest]
            for image in images:
                self._known[image.inode] = (
                    Known(image.stamp, "", problem=str(answer))
                    if isinstance(answer, StorageError)
                    else Known(image.stamp, "" if digest == image.path else digest, *answer)
                )
            if not isinstance(answer, StorageError):
                self._answers[digest] = answer


def _judged(begins: bytes) -> tuple[image_formats.Head, str]:
    """Return what the first bytes of an image say, and their digest if that is all of it."""
    head = image_formats.inspect(begins)
    return head, hashlib.sha256(begins).hexdigest() if head.is_complete else ""


def _answers(known: Mapping[Inode, Known]) -> dict[str, tuple[str, str]]:
    return {
        one.digest: (one.backing, one.backing_format)
        for one in known.values()
        if one.digest and not one.problem
    }


def _parsed(rows: Any) -> Iterator[tuple[Inode, Known]]:
    for device, inode, size, modified, changed, digest, backing, backing_format in rows:
        stamp = int(size), int(modified), int(changed)
        yield (
            (int(device), int(inode)),
            Known(stamp, str(digest), str(backing), str(backing_format)),
        )
