# SPDX-License-Identifier: Apache-2.0
"""Real servers, one of each for all tests that want it."""

import pytest

from tests.functional.libvirtd import PROGRAMS, Libvirtd
from tests.functional.processes import require


@pytest.fixture(scope="module")
def libvirtd():
    """A private libvirtd without guests."""
    require(*PROGRAMS)
    with Libvirtd() as daemon:
        yield daemon
