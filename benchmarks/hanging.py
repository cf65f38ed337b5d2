# SPDX-License-Identifier: Apache-2.0
"""cepheid, with a libvirt in which one call never returns: that for the disks of all domains.

Only update_available_resource makes it. python -m benchmarks.hanging is used as cepheid is.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import libvirt

#: The native one, whatever becomes of the module's.
_sleep = time.sleep
_answer = libvirt.virConnect.getAllDomainStats


def _hang(connection: Any, stats: int = 0, flags: int = 0) -> Any:
    while flags & libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT:
        _sleep(3600)
    return _answer(connection, stats, flags)


if __name__ == "__main__":
    libvirt.virConnect.getAllDomainStats = _hang
    from cepheid.__main__ import main

    sys.exit(main())
