# SPDX-License-Identifier: Apache-2.0
"""Real servers, one of each for all tests that want it."""

import pytest

from tests.functional.libvirtd import Libvirtd, require_programs


@pytest.fixture(scope="module")
def libvirtd():
    """A private libvirtd without guests."""
    require_programs()
    with Libvirtd() as daemon:
        yield daemon
