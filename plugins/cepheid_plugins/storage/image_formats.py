# SPDX-License-Identifier: Apache-2.0
"""What the first bytes of a disk image say: whether it has a backing file, and whether it may.

They are judged before qemu-img opens the file, by oslo.utils' format inspectors. VMDK is recognized
here instead: its inspector overlooks a descriptor that is not ASCII or is of another version.
Source: QEMU's docs/interop/qcow2.txt for where the name of the backing file is; its block/vmdk.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oslo_utils.imageutils import format_inspector

#: Bytes that are looked at. Fewer tell each format in which an image can have a backing file.
HEAD_BYTES = 4096

#: The formats in which an image can have a backing file, besides VMDK. Nova uses only the first;
#: the chains of the others are not followed.
CHAINED = ("qcow2", "qed", "vdi", "vhd", "vhdx")

_MAGIC = b"QFI\xfb"

#: How a binary VMDK begins, and words of one that is a text: the first names a parent, the second
#: is in every one.
_VMDK_MAGIC = (b"KDMV", b"COWD")
_VMDK_WORDS = (b"parentfilenamehint", b'createtype="')

#: Source: qcow2.txt: magic, version, backing_file_offset, backing_file_size.
_QCOW2 = struct.Struct(">4sIQI")


@dataclass(frozen=True, slots=True)
class Head:
    """What the beginning of an image says.

    :param has_backing: it is qcow2 and names a backing file
    :param is_complete: the name is within the bytes that were looked at, so that two images with
        equal heads have the same backing file
    :param problem: why it cannot be told what it stands on; empty where it can
    """

    has_backing: bool = False
    is_complete: bool = True
    problem: str = ""


def inspect(head: bytes) -> Head:
    """Judge an image by its first :data:`HEAD_BYTES`, or all of it where it is shorter."""
    # Imported late: it imports cryptography, which takes a third of 'cepheid task list's time.
    from oslo_utils.imageutils import format_inspector

    found: list[format_inspector.FileInspector] = []
    for name in CHAINED:
        inspector = format_inspector.ALL_FORMATS[name]()
        if _matches(inspector, head):
            found.append(inspector)
    if not found and _is_vmdk(head):
        return Head(problem="it is vmdk, whose chains are not read")
    if not found:
        return Head(problem="it is cut short") if head.startswith(_MAGIC) else Head()
    (first, *others) = found
    if others or not isinstance(first, format_inspector.QcowInspector):
        names = " and ".join(inspector.NAME for inspector in found)
        return Head(problem=f"it is {names}, whose chains are not read")
    return _qcow2(first, head)


def _is_vmdk(head: bytes) -> bool:
    text = head.lower()
    return head.startswith(_VMDK_MAGIC) or any(word in text for word in _VMDK_WORDS)


def _matches(inspector: format_inspector.FileInspector, head: bytes) -> bool:
    """Tell whether it is an image of the inspector's format."""
    try:
        inspector.eat_chunk(head)
        return inspector.format_match
    except Exception:  # noqa: BLE001 - on another format it may raise anything
        return False


def _qcow2(inspector: format_inspector.QcowInspector, head: bytes) -> Head:
    from oslo_utils.imageutils import format_inspector

    _, version, offset, size = _QCOW2.unpack_from(head)
    try:
        if version != 2:  # which has neither features nor data files
            inspector.check_unknown_features()
            inspector.check_data_file()
    except format_inspector.SafetyViolation as err:
        # It has features that qemu-img must not be let near.
        return Head(problem=str(err))
    return Head(has_backing=offset != 0, is_complete=offset + size <= len(head))
