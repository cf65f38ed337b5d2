# SPDX-License-Identifier: Apache-2.0
"""The page: one file with its styles and scripts in it, and the policy that lets only those run."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re

from cepheid.status.messages import Request, Response

PAGE = importlib.resources.files("cepheid.status") / "page.html"

_INLINE = re.compile(rb"<(script|style)\b[^>]*>(.*?)</\1\s*>", re.DOTALL | re.IGNORECASE)


class Page:
    """The page as it is installed."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._headers = {
            "Cache-Control": "no-cache",
            "ETag": f'"{hashlib.sha256(self._body).hexdigest()[:32]}"',
            "Content-Security-Policy": policy(self._body),
        }

    def answer(self, request: Request) -> Response:
        """Return the page, or that the client's is the same."""
        if self._headers["ETag"] in request.header("If-None-Match"):
            return Response(304, headers=self._headers)
        return Response(200, self._body, "text/html; charset=utf-8", self._headers)


def policy(body: bytes) -> str:
    """Return the Content-Security-Policy of a page: what is in it, and nothing from elsewhere.

    ``style`` and ``on…`` attributes do not count, as the browser sees it: they are not allowed.
    """
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, content in _INLINE.findall(body):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        hashes[kind.lower()].append(f"'sha256-{digest}'")
    nothing = "'none'"
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src", *(hashes[b"script"] or [nothing])]),
            " ".join(["style-src", *(hashes[b"style"] or [nothing])]),
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
