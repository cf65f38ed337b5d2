# SPDX-License-Identifier: Apache-2.0
"""What the files in the image cache are called.

Source: Nova's image cache manager and image back end: an image is named by the SHA-1 of its id in
hexadecimal, one that was resized for a flavor has a suffix, empty disks are named by their size.
"""

from __future__ import annotations

import functools
import hashlib
import re

ORIGINAL, RESIZED, SWAP, EPHEMERAL = "original", "resized", "swap", "ephemeral"

_KINDS = (
    (ORIGINAL, re.compile(r"[0-9a-f]{40}\Z")),
    # Nova's scan takes any two characters and more, which would be an operator's own copy too.
    (RESIZED, re.compile(r"[0-9a-f]{40}_(sm|[0-9]{2,})\Z")),
    (SWAP, re.compile(r"swap_[0-9]+\Z")),
    (EPHEMERAL, re.compile(r"ephemeral_[0-9]+_[0-9A-Za-z]{7}\Z")),
)


def kind_of(name: str) -> str:
    """Return the kind of a file; nothing for one that is none of the cache's."""
    return next((kind for kind, pattern in _KINDS if pattern.match(name)), "")


@functools.lru_cache(maxsize=1024)
def fingerprint(image_id: str) -> str:
    """Return what the original of an image is called."""
    return hashlib.sha1(image_id.encode(), usedforsecurity=False).hexdigest()


def image_of(name: str) -> str:
    """Return the fingerprint of the image that an original or resized file is made from."""
    return name.partition("_")[0] if kind_of(name) in (ORIGINAL, RESIZED) else ""


def size_of(name: str) -> int:
    """Return the size that a swap file (MiB) or an ephemeral one (GiB) is named by."""
    return int(name.split("_")[1])
