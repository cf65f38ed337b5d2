# SPDX-License-Identifier: Apache-2.0
"""What the first bytes of a disk image say: whether it can stand on another, and on which.

They are judged before qemu-img opens the file: by oslo.utils' format inspectors, and VMDK by what
its inspector does not read, a descriptor that is not ASCII or is of another version.
Source: QEMU's docs/interop/qcow2.txt for where the name of the backing file is; its block/vmdk.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oslo_utils.imageutils import format_inspector

#: Bytes that are looked at. All formats in which an image can stand on another are told by fewer.
HEAD_BYTES = 4096

#: Formats in which it can, beside VMDK; all but the first are not Nova's, and their chains are not
#: followed.
CHAINED = ("qcow2", "qed", "vdi", "vhd", "vhdx")

_MAGIC = b"QFI\xfb"

#: How a VMDK begins, and what is in one that is a text: one word where it may stand on another, the
#: other in any.
_VMDK_MAGIC = (b"KDMV", b"COWD")
_VMDK_WORDS = (b"parentfilenamehint", b'createtype="')

#: Source: qcow2.txt: magic, version, backing_file_offset, backing_file_size.
_QCOW2 = struct.Struct(">4sIQI")


@dataclass(frozen=True, slots=True)
class Head:
    """What the beginning of an image says.

    :param has_backing: it is qcow2 and names a backing file
    :param is_complete: what was looked at holds that name, so that equal heads mean equal names
    :param problem: why it cannot be told what it stands on; nothing where it can
    """

    has_backing: bool = False
    is_complete: bool = True
    problem: str = ""


def inspect(head: bytes) -> Head:
    """Judge an image by its first :data:`HEAD_BYTES`, or all of it where it is shorter."""
    # It brings cryptography, a third of what listing the tasks with the core alone takes.
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
    except Exception:  # noqa: BLE001 - it raises whatever it stumbles over in what is none
        return False


def _qcow2(inspector: format_inspector.QcowInspector, head: bytes) -> Head:
    from oslo_utils.imageutils import format_inspector

    _, version, offset, size = _QCOW2.unpack_from(head)
    try:
        if version != 2:  # which has neither features nor data files
            inspector.check_unknown_features()
            inspector.check_data_file()
    except format_inspector.SafetyViolation as err:
        # It is not for qemu-img to open.
        return Head(problem=str(err))
    return Head(has_backing=offset != 0, is_complete=offset + size <= len(head))
