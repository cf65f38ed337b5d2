# SPDX-License-Identifier: Apache-2.0
"""Confines this process, so that a bad plugin in it cannot harm the machine.

Landlock lets it, and its children, write beneath one directory only (Linux 5.13), make no TCP
connection (6.7) and send no signal to others (6.12). Limits keep it small. What Landlock does not
know (chmod, Unix sockets) an audit hook of Python's refuses, and all of it where there is no
Landlock: that stops Python code, not native code.

Source: landlock(7); <linux/landlock.h>; Python's table of audit events.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from pathlib import Path

#: System calls, the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

#: Rights to change files, by the version of Landlock that brought them.
WRITE_FILE = 1 << 1
WRITES = {1: WRITE_FILE | sum(1 << bit for bit in range(4, 13)), 2: 1 << 13, 3: 1 << 14}
#: TCP binds and connections, and signals and abstract sockets of others, likewise.
NET, NET_VERSION = 0b11, 4
SCOPES, SCOPES_VERSION = 0b11, 6

#: What such a process may use: bytes of one file, bytes of memory, files open at one time.
LIMITS = {
    resource.RLIMIT_FSIZE: 256 << 20,
    resource.RLIMIT_AS: 4 << 30,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_CORE: 0,
}


def confine(directory: Path) -> bool:
    """Confine this process to writing beneath `directory`; tell whether the kernel sees to it."""
    for limit, value in LIMITS.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)
    if version < 1:
        return False
    writes = 0
    for since, rights in WRITES.items():
        writes |= rights if version >= since else 0
    attributes = struct.pack("=Q", writes)
    if version >= NET_VERSION:
        attributes += struct.pack("=Q", NET)
    if version >= SCOPES_VERSION:
        attributes += struct.pack("=Q", SCOPES)
    ruleset = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        for path, rights in ((directory, writes), (Path(os.devnull), WRITE_FILE)):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", rights, opened)
            failed = libc.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0)
            os.close(opened)
            if failed:
                return False
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return bool(libc.syscall(RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)
