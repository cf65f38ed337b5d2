# SPDX-License-Identifier: Apache-2.0
"""What is asked and what is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """A request.

    :param peer: the address of the client
    :param headers: may be asked for in any spelling
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Any
    body: bytes
    peer: str

    def header(self, name: str) -> str:
        """Return a header; empty where there is none."""
        return str(self.headers.get(name) or "")


@dataclass(frozen=True)
class Response:
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def text(status: int, *lines: str, **headers: str) -> Response:
    """Answer in lines of text."""
    return Response(status, ("\n".join(lines) + "\n").encode(), headers=_named(headers))


def data(status: int, value: Any, **headers: str) -> Response:
    """Answer in JSON."""
    body = json.dumps(value, default=str, separators=(",", ":")).encode() + b"\n"
    return Response(status, body, "application/json", _named(headers))


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
