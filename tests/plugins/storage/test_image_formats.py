# SPDX-License-Identifier: Apache-2.0
"""What the beginning of an image says, of images that qemu-img made."""

import contextlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oslo_utils.imageutils import format_inspector

from cepheid_plugins.storage.image_formats import HEAD_BYTES, Head, inspect
from tests.images import qemu_img


@pytest.fixture
def make(tmp_path):
    def make(image_format, *options):
        path = tmp_path / "image"
        qemu_img("create", "-q", "-f", image_format, *options, path, "4M")
        return path.read_bytes()[:HEAD_BYTES]

    return make


def test_a_qcow2_image_stands_on_nothing_or_names_a_backing_file(make):
    assert inspect(make("qcow2")) == Head()
    backed = ("-u", "-b", "/base", "-F", "raw")
    assert inspect(make("qcow2", *backed)) == Head(has_backing=True)


@pytest.mark.parametrize("backing_format", ["raw", "qcow2"])
def test_one_of_the_older_version_is_read_too(make, backing_format):
    """Where the newer has its features it has the format of its backing file."""
    head = make("qcow2", "-o", "compat=0.10", "-u", "-b", "/base", "-F", backing_format)
    assert inspect(head) == Head(has_backing=True)


def test_a_name_beyond_what_is_looked_at_is_not_told_by_that(make):
    head = make("qcow2", "-u", "-b", f"/{'x' * 1000}", "-F", "raw")
    assert inspect(head[:512]) == Head(has_backing=True, is_complete=False)
    assert inspect(head).is_complete


def test_an_external_data_file_is_not_for_qemu_img(make, tmp_path):
    head = make("qcow2", "-o", f"data_file={tmp_path}/data")
    assert inspect(head).problem == "it has an external data file"


@pytest.mark.parametrize("options", ["extended_l2=on", "compression_type=zstd"])
def test_how_clusters_are_kept_is_nothing_to_it(make, options):
    assert inspect(make("qcow2", "-o", options)) == Head()
    backed = ("-u", "-b", "/base", "-F", "raw", "-o", options)
    assert inspect(make("qcow2", *backed)) == Head(has_backing=True)


@pytest.mark.parametrize(
    ("image_format", "name"),
    [
        ("qcow", "qcow"),
        ("qed", "qed"),
        ("vmdk", "vmdk"),
        ("vdi", "vdi"),
        ("vpc", "vhd"),
        ("vhdx", "vhdx"),
    ],
)
def test_other_formats_with_chains_are_refused(make, image_format, name):
    assert inspect(make(image_format)).problem == f"it is {name}, whose chains are not read"


@pytest.mark.parametrize("content", [b"", b"\0" * 512, b"\xff" * HEAD_BYTES, b"#!/bin/sh\n"])
def test_anything_else_stands_on_nothing(content):
    assert inspect(content) == Head()


@pytest.mark.parametrize("size", [4, 100, 511])
def test_a_qcow2_image_that_is_cut_short_is_not_taken_for_raw(make, size):
    assert inspect(make("qcow2")[:size]).problem == "it is cut short"


@pytest.mark.parametrize("version", [0, 4])
def test_a_version_that_nobody_knows_is_refused(make, version):
    head = bytearray(make("qcow2"))
    head[7] = version
    problem = f"it is qcow2 of version {version}, which is not known"
    assert inspect(bytes(head)).problem == problem


@pytest.mark.parametrize("bit", range(5, 64))
def test_a_feature_that_nobody_knows_is_refused(make, bit):
    head = bytearray(make("qcow2"))
    head[72:80] = (1 << bit).to_bytes(8, "big")
    assert inspect(bytes(head)).problem == f"it has features that are not known ({1 << bit:#x})"


def test_two_formats_in_one_are_refused(make):
    head = bytearray(make("qcow2"))
    # VDI's signature is further back.
    head[0x40:0x44] = (0xBEDA107F).to_bytes(4, "little")
    assert inspect(bytes(head)).problem == "it is qcow2 and vdi, whose chains are not read"


@pytest.mark.parametrize("after", ["é".encode(), b"\xff", b"\0\xff"])
def test_a_text_in_any_encoding_stands_on_nothing(after, caplog):
    assert inspect(b"#" * 600 + after) == Head()
    assert caplog.records == []


DESCRIPTOR = b'# Disk DescriptorFile\nversion=1\nCreateType="monolithicFlat"\n'


@pytest.mark.parametrize(
    "head",
    [
        b"KDMV",
        b"COWD".ljust(HEAD_BYTES, b"\0"),
        DESCRIPTOR,
        DESCRIPTOR + 'parentFileNameHint="größer.vmdk"\n'.encode(),
        DESCRIPTOR + 'parentFileNameHint="größer.vmdk"\n'.encode("latin-1"),
        # What names its parent may be further back than is looked.
        DESCRIPTOR + b"# pad\n" * 100 + "# größer\n".encode() + b"# pad\n" * 600,
    ],
)
def test_whatever_may_be_vmdk_is_refused(head):
    assert inspect(head[:HEAD_BYTES]).problem == "it is vmdk, whose chains are not read"


EXTENDED_L2 = 1 << 4


@given(
    start=st.sampled_from(
        [b"QFI\xfb\0\0\0\3", b"QFI\xfb", b"QED\0", b"conectix", b"vhdxfile", b""]
    ),
    fill=st.binary(max_size=120),
    vdi=st.booleans(),
    feature=st.integers(0, 63),
)
def test_whatever_oslo_utils_refuses_is_refused_or_has_a_backing_file(start, fill, vdi, feature):
    head = bytearray((start + fill).ljust(HEAD_BYTES, b"\0"))
    if vdi:
        head[64:68] = b"\x7f\x10\xda\xbe"
    else:
        head[72:80] = (1 << feature).to_bytes(8, "big")
    found = inspect(bytes(head))
    # Hypothesis takes words from the sources, VMDK's too, of which oslo.utils is not asked.
    assume("vmdk" not in found.problem)
    assert bool(found.problem or found.has_backing) == _is_refused(head)


def _is_refused(head):
    """Tell whether oslo.utils finds a format with chains in it that is not a safe qcow2.

    Extended L2 entries are taken away first: they are a feature that it does not know.
    """
    head = bytearray(head)
    head[79] &= ~EXTENDED_L2
    inspectors = [
        format_inspector.ALL_FORMATS[name]() for name in ("qcow2", "qed", "vdi", "vhd", "vhdx")
    ]
    for inspector in inspectors:
        with contextlib.suppress(format_inspector.ImageFormatError):
            inspector.eat_chunk(bytes(head))
    matched = [inspector for inspector in inspectors if inspector.format_match]
    if [inspector.NAME for inspector in matched] != ["qcow2"]:
        return bool(matched)
    try:
        matched[0].safety_check()
    except format_inspector.SafetyCheckFailed:
        return True
    return False
