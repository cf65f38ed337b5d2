# SPDX-License-Identifier: Apache-2.0
"""Which files the disks of guests stand on, however deep.

Chains are read a level at a time. Only names lead on, and only into the image cache, or where a
domain has a disk: what an image says it stands on anywhere else is not opened.
"""

from __future__ import annotations

import functools
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cepheid.texts import encodable
from cepheid_plugins.storage import image_heads, image_names
from cepheid_plugins.storage.backing_files import READ_SECONDS, BackingFiles, RunNative
from cepheid_plugins.storage.image_cache import ASIDE, CachedFile, ImageCache
from cepheid_plugins.storage.image_heads import Found, Looked

#: Directories in instances_path that hold no disks, besides the image cache.
NO_ENTRIES = ("locks",)

#: By the path of a disk, the formats that definitions of domains give it.
Defined = Mapping[str, set[str]]


@dataclass
class Chains:
    """What disks stand on.

    :param paths: by each path that a chain leads to, the disks at its top
    :param names: the same by the last part of the path
    :param problems: of what that is not known, and why
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

        :param defined: None where no definition was read: ``disk.info`` alone tells then which
            disks are raw, and those elsewhere are not looked at
        :param aside: the files that were set aside, for chains that lead through them
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
        walk.walked = {image.path for image in found.images}
        disks = [
            image for image in found.images if not _is_raw(image.path, found.formats, walk.defined)
        ]
        if defined is not None:
            walk.problems += [
                f"{link} is a symbolic link, and no domain says what it is"
                for link in found.links
                if link not in walk.defined
            ]
            disks += walk.named_by_domains()
        return self._descend(walk, disks)

    def read_domains(self, defined: Defined) -> Chains:
        """Return what the disks of domains stand on; no other disk is looked at."""
        walk = _Walk(self._cache, self.backing_files, self._native, defined, ())
        self.backing_files.begin()
        return self._descend(walk, walk.named_by_domains())

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
    """One way down all chains."""

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
        #: Files that are looked at anyway, each as a disk.
        self.walked: set[str] = set()
        #: From a path to those that it stands on, or is another name of.
        self.edges: dict[str, set[str]] = defaultdict(set)
        self._root = cache.path
        self._base = cache.base_path
        self._native = native
        self._backing_files = backing_files
        #: Where domains have disks.
        self._homes: set[str] = set()
        self._aside: dict[str, list[str]] = defaultdict(list)
        for file in aside:
            path = f"{self._base}/{ASIDE}/{file.entry}"
            self._aside[f"{self._base}/{file.name}"].append(path)

    def named_by_domains(self) -> list[Looked]:
        """Look at the disks of domains that are not looked at anyway."""
        paths = [path for path, formats in self.defined.items() if formats - {"raw", ""}]
        real: dict[str, str] = self._native(image_heads.real_paths, paths)
        wanted = set(real.values()) - self.walked
        self._homes = {os.path.dirname(path) for path in wanted}
        return self._look_at(wanted, is_disk=True)

    def descend(self, level: list[Looked]) -> None:
        """Read what disks stand on, and what that stands on, until nothing new is met."""
        met: set[str] = set()
        while level:
            self._understand(level)
            formats = self._next(level)
            real: dict[str, str] = self._native(image_heads.real_paths, list(formats))
            ahead = set()
            for path, there in real.items():
                if there != path:
                    self.edges[path].add(there)
                if formats[path] != "raw" and self._is_followed(there):
                    ahead.add(there)
            level = self._look_at(ahead - met)
            met |= ahead

    def _understand(self, level: Sequence[Looked]) -> None:
        self._backing_files.read(level)
        for image in level:
            problem = self._backing_files.of(image).problem
            if problem:
                self.problems.append(f"{image.path} cannot be read: {problem}")

    def _next(self, level: Sequence[Looked]) -> dict[str, str]:
        """Return the paths that a level stands on, with what formats they are said to have."""
        formats: dict[str, str] = {}
        for image in level:
            known = self._backing_files.of(image)
            # What an absolute path means is the same for all who name it.
            home = "" if known.backing.startswith("/") else image.home
            for path in _paths(known.backing, home):
                self.edges[image.path].add(path)
                if formats.get(path, "raw") == "raw":
                    formats[path] = known.backing_format
        return formats

    def _is_followed(self, path: str) -> bool:
        if path in self.walked:
            return False
        return self._is_beneath(path) or os.path.dirname(path) in self._homes

    def _is_beneath(self, path: str) -> bool:
        """Tell whether a path is beneath instances_path."""
        return path.startswith(f"{self._root}/")

    def _look_at(self, paths: Iterable[str], is_disk: bool = False) -> list[Looked]:
        homes = {path: os.path.dirname(path) for path in sorted(paths)}
        for path in list(homes):
            self.edges[path].update(self._aside.get(path, ()))
            homes.update(dict.fromkeys(self._aside.get(path, ()), homes[path]))
        looked: dict[str, Looked | str] = self._native(
            image_heads.look_at, homes, self._root, self._backing_files.is_known
        )
        for path in homes:
            found = looked.get(path)
            if isinstance(found, str):
                self.problems.append(f"{path} cannot be read: {found}")
            elif found is None and not any(other in looked for other in self._aside.get(path, ())):
                self._miss(path, is_disk)
        return [found for found in looked.values() if isinstance(found, Looked)]

    def _miss(self, path: str, is_disk: bool) -> None:
        """Say that a file is missing, where that means that something is not known."""
        if not is_disk:
            self.problems.append(f"{path} is missing, so what its disks stand on is not all known")
        elif not self._is_beneath(path):
            # Beneath instances_path nothing is missing that is only not mounted.
            self.problems.append(f"{path} is missing, and a domain has it as its disk")


def _is_raw(path: str, claims: Mapping[str, str], defined: Defined) -> bool:
    """Tell whether a disk is known to be raw, whatever its guest wrote to its beginning."""
    said = set(defined.get(path, ())) | ({claims[path]} if path in claims else set())
    return said - {""} == {"raw"}


@functools.lru_cache(maxsize=1024)
def _paths(backing: str, home: str) -> tuple[str, ...]:
    """Return the files that the name of a backing file may mean, as absolute paths.

    Source: QEMU's block layer: a path, ``file:`` and a path, or ``json:`` and a description.
    Other protocols name no file here: words before a colon that comes before any slash.
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
    """Return, by each path that is reached, the disks that reach it."""
    # Most disks stand on what another stands on as well, so that is followed once.
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
