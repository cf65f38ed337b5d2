# SPDX-License-Identifier: Apache-2.0
"""What the first bytes of a disk image say: whether it has a backing file, and whether it may.

They are judged before qemu-img opens the file. oslo.utils' format inspectors are not used: they
import cryptography, for LUKS, which is a tenth of the agent's memory where nothing else loads it,
as PyMySQL does; they refuse extended L2 entries; of VMDK they overlook a descriptor that is not
ASCII or is of another version.
Sources: QEMU's docs/interop/qcow2.txt, docs/interop/qed_spec.txt, block/vdi.c, block/vpc.c,
block/vhdx.h and block/vmdk.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: Bytes that are looked at. Fewer tell each format in which an image can have a backing file.
HEAD_BYTES = 4096

_MAGIC = b"QFI\xfb"

#: The formats in which an image can have a backing file, besides VMDK: where its signature is, and
#: what it is. Nova uses only the first; the chains of the others are not followed.
_SIGNATURES = {
    "qcow2": (0, _MAGIC),
    "qed": (0, b"QED\0"),
    "vdi": (0x40, b"\x7f\x10\xda\xbe"),
    "vhd": (0, b"conectix"),
    "vhdx": (0, b"vhdxfile"),
}

#: How a binary VMDK begins, and words of one that is a text: the first names a parent, the second
#: is in every one.
_VMDK_MAGIC = (b"KDMV", b"COWD")
_VMDK_WORDS = (b"parentfilenamehint", b'createtype="')

#: A header of qcow2 is shorter; no cluster is.
_LEAST_CLUSTER_BYTES = 512

#: magic, version, backing_file_offset, backing_file_size; and, at 72 bytes and since version 3,
#: incompatible_features.
_QCOW2 = struct.Struct(">4sIQI")
_FEATURES = struct.Struct(">Q")
_FEATURES_OFFSET = 72

#: The features: that it was not closed, that it is corrupt, how its clusters are compressed, and
#: that their halves are allocated apart. None is about what the image stands on.
_HARMLESS = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4
_EXTERNAL_DATA_FILE = 1 << 2


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
    names = [
        name
        for name, (offset, signature) in _SIGNATURES.items()
        if head.startswith(signature, offset)
    ]
    if _is_vmdk(head):
        names.append("vmdk")
    if names == ["qcow2"]:
        return _qcow2(head)
    if names:
        return Head(problem=f"it is {' and '.join(names)}, whose chains are not read")
    return Head()


def _is_vmdk(head: bytes) -> bool:
    text = head.lower()
    return head.startswith(_VMDK_MAGIC) or any(word in text for word in _VMDK_WORDS)


def _qcow2(head: bytes) -> Head:
    if len(head) < _LEAST_CLUSTER_BYTES:
        return Head(problem="it is cut short")
    _, version, offset, size = _QCOW2.unpack_from(head)
    features = 0
    if version == 3:
        (features,) = _FEATURES.unpack_from(head, _FEATURES_OFFSET)
    elif version == 1:
        return Head(problem="it is qcow, whose chains are not read")
    elif version != 2:
        return Head(problem=f"it is qcow2 of version {version}, which is not known")
    if features & _EXTERNAL_DATA_FILE:
        return Head(problem="it has an external data file")
    if features & ~_HARMLESS:
        return Head(problem=f"it has features that are not known ({features & ~_HARMLESS:#x})")
    return Head(has_backing=offset != 0, is_complete=offset + size <= len(head))
