# SPDX-License-Identifier: Apache-2.0
"""What the tap devices of a host have counted.

Reads /proc/net/dev, or a file of its form.
Source: proc_net_dev(5); net/core/net-procfs.c in Linux.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from oslo_config import cfg

from cepheid_plugins.bandwidth.driver import MeterError

#: A line has this many numbers. Two of them are the bytes received and the bytes sent.
NUMBERS, RECEIVED, SENT = 16, 0, 8

DEVICE_FILE = cfg.StrOpt(
    "device_file",
    default="/proc/net/dev",
    help="The file with the counters of the host's network devices.",
)


class Traffic(NamedTuple):
    """Bytes that went through a tap device, as the guest behind it sees them."""

    in_bytes: int
    out_bytes: int


class Reading(NamedTuple):
    """The counters of all devices at one time, and the devices whose lines make no sense."""

    counters: dict[str, Traffic]
    malformed: list[str]


def read(path: Path) -> Reading:
    """Read the file, once.

    :raises MeterError: it cannot be read, or it is another kind of file
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as err:
        raise MeterError(
            f"The device_file {path} cannot be read: {err.strerror}; name another, or look at "
            "its owner."
        ) from err
    lines = text.splitlines()
    if len(lines) < 2 or lines[1].count("bytes") != 2:
        raise MeterError(f"The device_file {path} is not of the form of /proc/net/dev.")
    return parse(lines[2:])


def parse(lines: list[str]) -> Reading:
    """Return what the lines below the two of the heading say."""
    reading = Reading({}, [])
    for line in lines:
        name, _, text = line.partition(":")
        numbers = text.split()
        if len(numbers) == NUMBERS and all(map(is_counter, numbers)):
            # The host receives on a tap device what the guest sends, and the other way round.
            reading.counters[name.strip()] = Traffic(
                in_bytes=int(numbers[SENT]), out_bytes=int(numbers[RECEIVED])
            )
        else:
            reading.malformed.append(name.strip())
    return reading


def is_counter(text: str) -> bool:
    """Tell whether it is a number that a database holds: of 63 bits, which is 8 EiB."""
    return text.isdecimal() and int(text) < 2**63
