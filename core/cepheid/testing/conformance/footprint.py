# SPDX-License-Identifier: Apache-2.0
"""What a process has that a plugin should leave alone: taken before and after, and compared."""

from __future__ import annotations

import importlib
import locale
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cepheid.testing.conformance.findings import Problem

#: Modules whose names nobody may bind anew.
PATCHABLE = (
    "builtins", "datetime", "io", "json", "logging", "os", "random", "select", "signal", "socket",
    "sqlite3", "subprocess", "threading", "time",
)  # fmt: skip

#: Threads of the core's own.
OWN_THREADS = ("timer", "cepheid-native", "MainThread")


@dataclass(frozen=True)
class Footprint:
    """A process at one time."""

    threads: frozenset[int]
    children: frozenset[str]
    signals: dict[int, Any]
    logging: tuple[Any, ...]
    patches: dict[tuple[str, str], int]
    directory: str
    environment: dict[str, str]
    rest: dict[str, Any]


def take() -> Footprint:
    """Return what this process is like now."""
    root = logging.getLogger()
    return Footprint(
        threads=frozenset(
            id(one) for one in threading.enumerate() if not one.name.startswith(OWN_THREADS)
        ),
        children=_children(),
        signals={number: signal.getsignal(number) for number in signal.valid_signals()},
        logging=(tuple(map(id, root.handlers)), root.level, root.manager.disable),
        patches={
            (name, attribute): id(value)
            for name in PATCHABLE
            for attribute, value in vars(importlib.import_module(name)).items()
            if not attribute.startswith("_")
        },
        directory=os.getcwd(),
        environment=dict(os.environ),
        rest={
            "the umask": _umask(),
            "sys.excepthook": sys.excepthook,
            "the default time-out of sockets": socket.getdefaulttimeout(),
            "the locale": locale.setlocale(locale.LC_ALL),
            "the limit of recursion": sys.getrecursionlimit(),
        },
    )


def kept(factory: type) -> dict[str, str]:
    """Return what the plugin's classes and modules keep in lists, sets and mappings."""
    holders: dict[str, Any] = {}
    for base in factory.__mro__:
        if not base.__module__.startswith(("cepheid.", "builtins")):
            holders[base.__qualname__] = vars(base)
            holders[base.__module__] = vars(sys.modules[base.__module__])
    return {
        f"{holder}.{name}": repr(value)
        for holder, values in holders.items()
        for name, value in list(values.items())
        if isinstance(value, dict | list | set) and not name.startswith("_")
    }


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the names of what :func:`kept` found and is another one now."""
    return sorted(name for name, value in after.items() if before.get(name) != value)


def differences(before: Footprint, after: Footprint) -> Iterator[Problem]:
    """Return what was left changed."""
    started = after.threads - before.threads
    names = [one.name for one in threading.enumerate() if id(one) in started]
    if names:
        yield Problem(
            f"it leaves threads of its own behind ({', '.join(sorted(names))})",
            "do the work in the task's method; the agent gives it a thread and a time",
        )
    if after.children - before.children:
        yield Problem("it leaves processes behind", "wait for what it starts, with a time-out")
    for number, handler in after.signals.items():
        if before.signals.get(number) is not handler:
            yield Problem(
                f"it sets the handler of {signal.Signals(number).name}",
                "leave signals to the agent, which ends and reloads by them",
            )
    if after.logging != before.logging:
        yield Problem(
            "it sets up logging (the root logger's handlers or level)",
            "use logging.getLogger(__name__) and leave the rest to the operator",
        )
    changed = [
        f"{name}.{attribute}"
        for (name, attribute), value in before.patches.items()
        if after.patches.get((name, attribute)) != value
    ]
    if changed:
        yield Problem(
            f"it patches the standard library ({', '.join(changed)})",
            "wrap what you need in your own module; the agent's other tasks use these too",
        )
    if after.directory != before.directory:
        yield Problem("it changes the working directory", "give absolute paths instead")
    if after.environment != before.environment:
        yield Problem(
            "it changes the environment of the agent", "pass env= to the programs that need it"
        )
    for name, value in after.rest.items():
        if before.rest[name] != value:
            yield Problem(f"it changes {name} of the whole agent", "leave it as it is")


def _children() -> frozenset[str]:
    found: set[str] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(path.read_text().split())
        except OSError:
            continue
    return frozenset(found)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
