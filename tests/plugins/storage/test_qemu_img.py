# SPDX-License-Identifier: Apache-2.0
"""Images that qemu-img makes for us."""

import os
import stat

from cepheid_plugins.storage import qemu_img
from tests import images


def test_a_copy_is_closed_to_others_and_open_to_its_group_whatever_the_umask(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    images.qemu_img("create", "-q", "-f", "qcow2", source, "1M")
    for umask in (0, 0o077):
        previous = os.umask(umask)
        try:
            qemu_img.convert(str(source), "qcow2", str(target))
        finally:
            os.umask(previous)
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.unlink()
