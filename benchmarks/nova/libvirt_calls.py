# SPDX-License-Identifier: Apache-2.0
"""Counts calls of libvirt's library, alike in Nova's process and in ours."""

import libvirt

#: Answered by the client's library itself, from what it holds.
LOCAL = ("GetName", "GetUUID", "GetUUIDString", "GetID", "Free", "Ref", "GetConnect")


class CountingModule:
    """The module beneath libvirt's Python classes, each call of which is counted."""

    def __init__(self, module, counter):
        self.__dict__.update(_module=module, _counter=counter)

    def __getattr__(self, name):
        found = getattr(self._module, name)
        if callable(found) and "Event" not in name and not name.endswith(LOCAL):
            found = self._counted(found)
        self.__dict__[name] = found  # it is not looked for again
        return found

    def _counted(self, function):
        def counted(*arguments, **named):
            self._counter["libvirt"] += 1
            return function(*arguments, **named)

        return counted


def count(counter):
    """Add every call from now on to ``counter["libvirt"]``."""
    libvirt.libvirtmod = CountingModule(libvirt.libvirtmod, counter)
