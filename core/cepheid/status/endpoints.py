# SPDX-License-Identifier: Apache-2.0
"""What each address answers, and to whom."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from oslo_config import cfg

from cepheid import errors
from cepheid.status import health
from cepheid.status.messages import Request, Response, data, text
from cepheid.status.token import TokenFile

#: What other machines may ask for, where they may ask at all.
REMOTE_PATHS = ("/healthz", "/readyz", "/metrics")

#: What is answered without the token even where reading needs it: it tells nothing of guests.
OPEN_PATHS = ("/", "/healthz", "/readyz")

_RUN = re.compile(r"/tasks/([A-Za-z0-9_.-]{1,200})/run")

Answer = Callable[[Request], Response]


class Endpoints:
    """Answers requests; whatever goes wrong is an answer too.

    :param reads: what is answered to GET, by path
    :param run: runs a task: its name, and whether it is a dry run
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        token: TokenFile,
        reads: Mapping[str, Answer],
        run: Callable[[str, bool], Response],
    ) -> None:
        self._options = conf.status
        self._names = _names(conf)
        self._token = token
        self._reads = reads
        self._run = run
        #: What went wrong last, for the log; a native thread must not write there.
        self.failure: Exception | None = None

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            return self._refuse(request) or self._dispatch(request)
        except errors.CepheidError as err:
            return data(503, {"error": str(err)})
        except Exception as err:  # noqa: BLE001 - the edge of the server: told, and kept for the log
            self.failure = err
            return data(500, {"error": f"{type(err).__name__}; see the agent's log."})

    def _dispatch(self, request: Request) -> Response:
        read = self._reads.get(request.path)
        if read is not None:
            if request.method == "POST":
                return text(405, "Use GET.", Allow="GET, HEAD")
            return read(request)
        found = _RUN.fullmatch(request.path)
        if found is None:
            return text(404, f"There is no {request.path}. There are:", *self._reads)
        if request.method != "POST":
            return text(405, "Use POST.", Allow="POST")
        return self._act(request, found[1])

    def _refuse(self, request: Request) -> Response | None:
        """Refuse whoever may not ask; return None for those who may."""
        hosts = request.headers.get_all("Host") or []
        if not is_loopback(request.peer):
            if request.path not in REMOTE_PATHS:
                return text(403, "Other machines may ask for these only:", *REMOTE_PATHS)
        elif len(hosts) != 1 or not self._is_called(hosts[0]):
            # So no site can have its own name lead here (DNS rebinding), into a browser that may
            # ask for everything.
            return text(421, "This server has another name; see [status] allowed_hosts.")
        if (
            self._options.token_for_reading
            and request.path not in OPEN_PATHS
            and not self._token.admits(request.header("Authorization"))
        ):
            return self._unauthorized()
        return None

    def _is_called(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host.strip()}").hostname or ""
        except ValueError:
            return False
        # An address of the client's own choice is no name that could be made to lead here.
        return name.rstrip(".") in self._names or _is_address(name)

    def _act(self, request: Request, task: str) -> Response:
        origin = request.header("Origin")
        site = request.header("Sec-Fetch-Site") or "same-origin"
        ours = f"://{request.header('Host')}".lower()
        if site not in ("same-origin", "none") or (origin and not origin.lower().endswith(ours)):
            return data(403, {"error": "Pages of other sites may not ask."})
        if not self._token.admits(request.header("Authorization")):
            return self._unauthorized()
        kind = request.header("Content-Type").partition(";")[0].strip().lower()
        if kind != "application/json":
            return data(415, {"error": "Send application/json."})
        try:
            wanted = json.loads(request.body)
        except (ValueError, RecursionError):
            wanted = None
        if not isinstance(wanted, dict) or not isinstance(wanted.get("dry_run"), bool):
            return data(400, {"error": 'Send {"dry_run": true} or {"dry_run": false}.'})
        return self._run(task, wanted["dry_run"])

    def _unauthorized(self) -> Response:
        message = f"Send 'Authorization: Bearer' with the token; it is in {self._token.path}."
        return data(401, {"error": message}, WWW_Authenticate='Bearer realm="cepheid"')


def tagged(request: Request, document: Mapping[str, Any], without: Iterable[str]) -> Response:
    """Answer with a document, or that the client's is the same but for the keys `without`."""
    lasting = {key: value for key, value in document.items() if key not in set(without)}
    digest = hashlib.sha256(json.dumps(lasting, default=str).encode()).hexdigest()
    tag = f'W/"{digest[:32]}"'
    if tag in request.header("If-None-Match"):
        return Response(304, headers={"ETag": tag})
    return data(200, document, ETag=tag)


def healthz(request: Request) -> Response:
    """Answer that the process is there and answers."""
    return text(200, "alive")


def readyz(request: Request, found: list[health.Check]) -> Response:
    """Answer whether the agent can do its work: in lines, or in JSON to who accepts that."""
    ready = health.is_ready(found)
    status = 200 if ready else 503
    if "application/json" in request.header("Accept") or request.query.get("format") == "json":
        rows = [{"name": check.name, "state": check.state, "text": check.text} for check in found]
        return data(status, {"ready": ready, "checks": rows})
    first = "ready" if ready else "not ready"
    return text(status, first, *(f"{c.name}: {c.state}: {c.text}" for c in found))


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is this machine's, and reached by no other."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _names(conf: cfg.ConfigOpts) -> set[str]:
    names = {"localhost", conf.host, socket.gethostname(), *conf.status.allowed_hosts}
    return {name.lower().rstrip(".") for name in names}
