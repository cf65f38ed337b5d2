# SPDX-License-Identifier: Apache-2.0
"""What is to become of a file of the image cache: facts in, a verdict and its reason out.

Source: Nova's image cache manager, for what is used and how old what is not must be.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cepheid_plugins.database.records import ImageUser
from cepheid_plugins.storage import image_names
from cepheid_plugins.storage.image_cache import CachedFile
from cepheid_plugins.storage.image_heads import Inode

#: Owners that a reason names.
NAMED = 3


class Verdict(enum.Enum):
    """What is to become of a file."""

    USED = "used"
    KEPT = "kept"
    SET_ASIDE = "set aside"
    RESTORED = "restored"
    WAITING = "waiting"
    DELETED = "deleted"


#: Verdicts that nothing but a thorough look allows.
DESTRUCTIVE = (Verdict.SET_ASIDE, Verdict.DELETED)


@dataclass(frozen=True, slots=True)
class Rules:
    """How long files that nobody uses are kept; all in seconds.

    :param remove: whether they are removed at all
    :param aside_seconds: how long those are kept that are set aside
    """

    remove: bool
    original_age_seconds: float
    resized_age_seconds: float
    aside_seconds: float

    def minimum_age_seconds(self, kind: str) -> float:
        """Return how long a file of a kind is kept after its last use."""
        is_resized = kind == image_names.RESIZED
        return self.resized_age_seconds if is_resized else self.original_age_seconds


@dataclass
class Uses:
    """Who uses which files.

    :param names: by the name of a file
    :param images: by the fingerprint of an image, from which several files may be made
    :param swap_mb: by the size of a swap disk
    :param ephemeral_gb: by the size of an ephemeral disk
    :param inodes: by the file itself, whatever it is called
    :param sizeless: instances whose swap and ephemeral disks are not known
    :param problems: why it is not known of every file whether it is used
    """

    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    images: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    swap_mb: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    ephemeral_gb: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    inodes: dict[Inode, set[str]] = field(default_factory=lambda: defaultdict(set))
    sizeless: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add_instances(self, users: Iterable[ImageUser]) -> None:
        """Enter what instances need."""
        for user in users:
            owner = f"instance {user.uuid}"
            for image in user.images:
                self.images[image_names.fingerprint(image)].add(owner)
            for size in user.swap_mb:
                self.swap_mb[size].add(owner)
            for size in user.ephemeral_gb:
                self.ephemeral_gb[size].add(owner)
            if not user.sizes_known:
                self.sizeless.add(owner)

    def add_names(self, names: Mapping[str, Iterable[str]], what: str = "") -> None:
        """Enter files by their names, with who uses each."""
        for name, owners in names.items():
            self.names[name].update(f"{what}{owner}" for owner in owners)

    def of(self, file: CachedFile) -> set[str]:
        """Return who uses a file.

        All files that are made from one image count as used with it; so do all ephemeral ones of
        a size, whatever their file system.
        """
        owners = set(self.names.get(file.name, ()))
        owners |= self.inodes.get((file.device, file.inode), set())
        if file.kind in (image_names.ORIGINAL, image_names.RESIZED):
            return owners | self.images.get(image_names.image_of(file.name), set())
        sizes = self.swap_mb if file.kind == image_names.SWAP else self.ephemeral_gb
        return owners | sizes.get(image_names.size_of(file.name), set()) | self.sizeless


def decide(
    file: CachedFile, uses: Uses, rules: Rules, now: float, is_taken: bool = False
) -> tuple[Verdict, str]:
    """Decide on a file, from all that is known; return why in words.

    :param now: in epoch seconds
    :param is_taken: of a file that was set aside: whether another has taken its place
    """
    owners = uses.of(file)
    if file.aside_at is None:
        return _decide_on_cached(file, owners, uses, rules, now)
    if owners and is_taken:
        return Verdict.KEPT, f"{shortened(owners)}, and another has taken its place; look at both"
    if owners:
        return Verdict.RESTORED, f"it turned out to be used: {shortened(owners)}"
    waits = rules.aside_seconds - (now - file.aside_at)
    if waits > 0:
        return Verdict.WAITING, f"set aside; it is deleted in {int(waits)} s"
    if not rules.remove:
        return Verdict.KEPT, "set aside, and remove_unused_base_images is false"
    if uses.problems:
        return Verdict.KEPT, f"set aside, and not known to be unused: {uses.problems[0]}"
    return Verdict.DELETED, f"not used since it was set aside {int(now - file.aside_at)} s ago"


def _decide_on_cached(
    file: CachedFile, owners: set[str], uses: Uses, rules: Rules, now: float
) -> tuple[Verdict, str]:
    if owners:
        return Verdict.USED, "in use"
    age, minimum = now - file.modified_at, rules.minimum_age_seconds(file.kind)
    if age < minimum:
        return Verdict.KEPT, f"not used, and {int(age)} s old of {int(minimum)} s at least"
    if not rules.remove:
        return Verdict.KEPT, "not used, and remove_unused_base_images is false"
    if uses.problems:
        return Verdict.KEPT, f"not known to be unused: {uses.problems[0]}"
    return Verdict.SET_ASIDE, f"not used for {int(age)} s, of {int(minimum)} s at least"


def shortened(owners: Iterable[str]) -> str:
    """Return the first of many names, and how many more there are."""
    names = sorted(owners)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
