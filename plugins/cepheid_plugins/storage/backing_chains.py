# SPDX-License-Identifier: Apache-2.0
"""Which files the disks of guests stand on, however deep: their chains of backing files.

All chains are read together, a level at a time: the images, then the backing files that these
name, then those that these name.

A guest can write whatever it likes to a raw disk, a qcow2 header that names any file as well. So a
name is followed anywhere only if the domain's definition or ``disk.info`` says that the disk is not
raw; libvirt does the same when the guest starts. Such a disk is *trusted* here. The name in any
other is followed only to files beneath instances_path and to those in directories where domains
have disks. Elsewhere the file is not opened, and what it stands on is a problem that is reported.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cepheid.texts import encodable
from cepheid_plugins.storage import image_heads, image_names
from cepheid_plugins.storage.backing_files import READ_SECONDS, BackingFiles, RunNative
from cepheid_plugins.storage.image_cache import ASIDE, CachedFile, ImageCache
from cepheid_plugins.storage.image_heads import Found, Looked

#: A path in the directory of an instance.
_ENTRY = re.compile(r"/(?P<uuid>[0-9a-f-]{36})(?P<rest>/.+)\Z")

#: Directories in instances_path that hold no disks, besides the image cache.
NO_ENTRIES = ("locks",)

#: By the path of a disk, the formats that definitions of domains give it.
Defined = Mapping[str, set[str]]


@dataclass
class Chains:
    """What disks stand on.

    :param paths: by the path of each backing file, the disks whose chains lead to it
    :param names: the same by the last part of the path
    :param problems: a sentence for each file of which it is not known what it stands on
    """

    paths: dict[str, set[str]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class ChainReader:
    """Reads the chains of all disks beneath instances_path, and of those that domains name.

    :param cache: the image cache beneath it
    :param run_native: makes a call with a deadline
    """

    def __init__(self, cache: ImageCache, run_native: RunNative) -> None:
        self._cache = cache
        self._root = cache.path
        self._run_native = run_native
        self.backing_files = BackingFiles(cache.path, run_native)

    def read(self, defined: Defined | None = None, aside: Sequence[CachedFile] = ()) -> Chains:
        """Return what all disks stand on.

        :param defined: None where no definition was read. Then ``disk.info`` alone tells which
            disks are raw, and disks outside of instances_path are not looked at
        :param aside: files of the image cache that were set aside: a chain may lead through them
        """
        walk = _Walk(self._cache, self.backing_files, self._native, defined or {}, aside)
        self.backing_files.begin()
        found: Found = self._native(
            image_heads.walk,
            self._root,
            (self._cache.subdirectory, *NO_ENTRIES),
            self.backing_files.is_known,
        )
        walk.problems += found.problems
        disks = []
        for image in found.images:
            said = _formats_of(image.path, found.formats, walk.defined)
            if said == {"raw"}:
                walk.raw.add(image.path)
                continue
            disks.append(image)
            if said:
                walk.trusted.add(image.path)
        if defined is not None:
            walk.problems += [
                f"{link} is a symbolic link, and no domain says what it is"
                for link in found.links
                if link not in walk.defined
            ]
            disks += walk.named_by_domains({disk.path for disk in disks})
        return self._descend(walk, disks)

    def read_domains(self, defined: Defined) -> Chains:
        """Return what the disks of domains stand on; no other disk is looked at."""
        walk = _Walk(self._cache, self.backing_files, self._native, defined, ())
        self.backing_files.begin()
        return self._descend(walk, walk.named_by_domains(set()))

    def _descend(self, walk: _Walk, disks: list[Looked]) -> Chains:
        walk.descend(disks)
        self.backing_files.end()
        paths = _owners(walk.edges, {disk.path for disk in disks})
        names: dict[str, set[str]] = defaultdict(set)
        for path, owners in paths.items():
            names[os.path.basename(path).partition("@")[0]] |= owners
        return Chains(paths, dict(names), [encodable(problem) for problem in walk.problems])

    def _native(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self._run_native(call, *arguments, deadline=READ_SECONDS, name=call.__name__)


class _Walk:
    """One descent of all chains, from the disks to what nothing stands beneath."""

    def __init__(
        self,
        cache: ImageCache,
        backing_files: BackingFiles,
        native: Callable[..., Any],
        defined: Defined,
        aside: Sequence[CachedFile],
    ) -> None:
        self.defined = defined
        self.problems: list[str] = []
        #: Disks that are said to be raw: they stand on nothing, whatever their guests wrote.
        self.raw: set[str] = set()
        #: Disks that are said not to be raw, and their backing files: no guest wrote their headers.
        self.trusted: set[str] = set()
        self._met: set[str] = set()
        #: By the path of a backing file, one of the images that name it; a trusted one if any is.
        self._above: dict[str, str] = {}
        #: From a path to the backing files that it names, and to the file that it is a link to.
        self.edges: dict[str, set[str]] = defaultdict(set)
        self._root = cache.path
        self._base = cache.base_path
        self._native = native
        self._backing_files = backing_files
        #: The directories in which domains have disks.
        self._homes: set[str] = set()
        self._aside: dict[str, list[str]] = defaultdict(list)
        for file in aside:
            path = f"{self._base}/{ASIDE}/{file.entry}"
            self._aside[f"{self._base}/{file.name}"].append(path)

    def named_by_domains(self, known: set[str]) -> list[Looked]:
        """Look at the disks of domains that are not known yet, or only as a link."""
        paths = [path for path, formats in self.defined.items() if formats - {"raw", ""}]
        real: dict[str, str] = self._native(image_heads.real_paths, paths)
        self.trusted |= set(real.values())
        self.raw -= self.trusted
        wanted = set(real.values()) - known
        self._homes = {os.path.dirname(path) for path in wanted}
        return self._look_at(wanted, is_disk=True)

    def descend(self, disks: Sequence[Looked]) -> None:
        """Read what disks stand on, and what that stands on, until nothing new is met."""
        # Trusted disks first: what they stand on is trusted then, whoever else names it.
        self._descend([disk for disk in disks if disk.path in self.trusted])
        self._descend([disk for disk in disks if disk.path not in self.trusted])

    def _descend(self, level: list[Looked]) -> None:
        self._met |= {image.path for image in level}
        while level:
            self._understand(level)
            formats = self._next(level)
            real: dict[str, str] = self._native(image_heads.real_paths, list(formats))
            ahead = set()
            for path, there in real.items():
                if there != path:
                    self.edges[path].add(there)
                self._is_under(there, self._above[path])
                if formats[path] == "raw" or there in self.raw:
                    continue
                if self._is_followed(there):
                    ahead.add(there)
                else:
                    above = self._above[path]
                    self.problems.append(
                        f"{above} says that it stands on {path}, which is not opened, since "
                        f"{above} may be a raw disk. Define its domain, or remove it"
                    )
            level = self._look_at(ahead - self._met)
            self._met |= ahead

    def _understand(self, level: Sequence[Looked]) -> None:
        self._backing_files.read(level)
        for image in level:
            problem = self._backing_files.of(image).problem
            if problem:
                self.problems.append(f"{image.path} cannot be read: {problem}")

    def _next(self, level: Sequence[Looked]) -> dict[str, str]:
        """Return the paths that a level stands on, with the format that is claimed of each."""
        formats: dict[str, str] = {}
        for image in level:
            known = self._backing_files.of(image)
            # An absolute path means the same whoever names it, so it needs no home.
            home = "" if known.backing.startswith("/") else image.home
            for path in _paths(known.backing, home):
                self.edges[image.path].add(path)
                self._is_under(path, image.path)
                if formats.get(path, "raw") == "raw":
                    formats[path] = known.backing_format
        return formats

    def _is_under(self, path: str, image: str) -> None:
        """Note that an image names a path as its backing file."""
        self._above.setdefault(path, image)
        if image in self.trusted:
            self.trusted.add(path)
            self._above[path] = image

    def _is_followed(self, path: str) -> bool:
        is_beneath = path.startswith(f"{self._root}/")
        return is_beneath or path in self.trusted or os.path.dirname(path) in self._homes

    def _look_at(self, paths: Iterable[str], is_disk: bool = False) -> list[Looked]:
        wanted = sorted(paths)
        homes = {path: os.path.dirname(path) for path in wanted}
        for path in wanted:
            if is_disk and (moved := self._moved(path)):
                self._aside[path].append(moved)
            self.edges[path].update(self._aside.get(path, ()))
            if path in self.trusted:
                self.trusted.update(self._aside.get(path, ()))
            homes.update(dict.fromkeys(self._aside.get(path, ()), homes[path]))
        looked: dict[str, Looked | str] = self._native(
            image_heads.look_at, homes, self._root, self._backing_files.is_known
        )
        self.problems += [
            f"{path} cannot be read: {found}"
            for path, found in looked.items()
            if isinstance(found, str)
        ]
        for path in wanted:
            if not any(place in looked for place in (path, *self._aside.get(path, ()))):
                self._miss(path, is_disk)
        return [found for found in looked.values() if isinstance(found, Looked)]

    def _moved(self, path: str) -> str:
        """Return where a disk is while the resize of its instance waits to be confirmed.

        Source: Nova's libvirt driver; the domain stays as it was until then.
        """
        match = _ENTRY.match(path[len(self._root) :]) if path.startswith(self._root) else None
        return f"{self._root}/{match['uuid']}_resize{match['rest']}" if match else ""

    def _miss(self, path: str, is_disk: bool) -> None:
        """Note that a file is missing. It may come back, and what it stands on is not known."""
        if is_disk:
            self.problems.append(
                f"{path} is missing, and a domain has it as its disk, or had it in a snapshot. "
                "Mount its storage, or remove what names it; 'virsh dumpxml' and 'virsh "
                "snapshot-dumpxml' show that. Of a snapshot whose files were merged, 'virsh "
                "snapshot-delete --metadata' removes the record alone"
            )
        else:
            self.problems.append(
                f"{path} is missing, so what its disks stand on is not all known: "
                f"{self._above.get(path, 'one')} stands on it. Mount its storage, or remove what "
                "stands on it"
            )


def _formats_of(path: str, claims: Mapping[str, str], defined: Defined) -> set[str]:
    """Return the formats that definitions and ``disk.info`` claim of a disk.

    A disk of which only "raw" is claimed is raw, whatever its guest wrote to its beginning.

    :param claims: what ``disk.info`` says, by path
    """
    return ({*defined.get(path, ())} | {claims.get(path, "")}) - {""}


@functools.lru_cache(maxsize=1024)
def _paths(backing: str, home: str) -> tuple[str, ...]:
    """Return the files that the name of a backing file may mean, as absolute paths.

    It is a path, ``file:`` and a path, or ``json:`` and a description. Any other word before a
    colon that comes before the first slash is a protocol, such as ``nbd:``, and names no file of
    this host. Source: QEMU's block layer.

    :param home: the directory in which a relative path begins
    """
    words = [backing.removeprefix("file:")]
    if backing.startswith("json:"):
        try:
            words = list(_texts(json.loads(backing[5:])))
        except (ValueError, RecursionError):
            words = [backing]
        words = [word for word in words if "/" in word or image_names.kind_of(word)]
    elif not backing.startswith("file:") and ":" in backing.partition("/")[0]:
        words = []
    return tuple(
        os.path.normpath(os.path.join(home, word)) for word in words if word and "\0" not in word
    )


def _texts(description: Any) -> Iterator[str]:
    if isinstance(description, str):
        yield description
    elif isinstance(description, dict | list):
        for value in description.values() if isinstance(description, dict) else description:
            yield from _texts(value)


def _owners(edges: Mapping[str, set[str]], disks: Iterable[str]) -> dict[str, set[str]]:
    """Return the disks by each path that their chains lead to."""
    # Most disks share their backing file with others; each such chain is followed once.
    standing: dict[frozenset[str], list[str]] = defaultdict(list)
    for disk in disks:
        standing[frozenset(edges.get(disk, ()))].append(encodable(disk))
    owners: dict[str, set[str]] = defaultdict(set)
    for backing, on_it in standing.items():
        reached: set[str] = set()
        ahead = set(backing)
        while ahead:
            path = ahead.pop()
            reached.add(path)
            ahead |= edges.get(path, set()) - reached
        for path in reached:
            owners[path].update(on_it)
    return dict(owners)
