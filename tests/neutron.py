# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server that answers as Keystone and Neutron do, from shapes that they have sent.

Source: the API references of Identity v3 and Networking v2.0.
"""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

NET, SUBNET, SUBNET6 = "net-0000-4000-8000-000000000001", "subnet-4", "subnet-6"


def port(port_id: str, device_id: str, mac: str, address: str, **fields: Any) -> dict[str, Any]:
    """Return a port as Neutron lists it."""
    return {
        "id": port_id,
        "name": "",
        "network_id": NET,
        "tenant_id": "project-1",
        "project_id": "project-1",
        "mac_address": mac,
        "admin_state_up": True,
        "status": "ACTIVE",
        "device_id": device_id,
        "device_owner": "compute:nova",
        "fixed_ips": [{"subnet_id": SUBNET, "ip_address": address}],
        "binding:host_id": "host1",
        "binding:vif_type": "ovs",
        "binding:vif_details": {"port_filter": True, "connectivity": "l2"},
        "binding:vnic_type": "normal",
        "binding:profile": {},
        "security_groups": [],
        **fields,
    }


class NeutronServer:
    """Keystone under /v3 and Neutron under /v2.0, on loopback."""

    def __init__(self) -> None:
        self.ports: list[dict[str, Any]] = [
            port("dhcp-1", "dhcp", "fa:16:3e:ff:ff:ff", "10.0.0.2", device_owner="network:dhcp")
        ]
        self.networks = [
            {
                "id": NET, "name": "private", "tenant_id": "project-1", "project_id": "project-1",
                "mtu": 1450, "provider:physical_network": None, "subnets": [SUBNET, SUBNET6],
            }
        ]  # fmt: skip
        self.subnets = [
            {
                "id": SUBNET, "network_id": NET, "cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.1",
                "dns_nameservers": ["10.0.0.53"], "enable_dhcp": True, "ip_version": 4,
                "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}],
                "ipv6_address_mode": None,
            },
            {
                "id": SUBNET6, "network_id": NET, "cidr": "2001:db8::/64", "gateway_ip": None,
                "dns_nameservers": [], "enable_dhcp": False, "ip_version": 6, "host_routes": [],
                "ipv6_address_mode": "slaac",
            },
        ]  # fmt: skip
        self.floatingips: list[dict[str, Any]] = []
        #: How many an answer lists at most; 0 for all.
        self.page_size = 0
        #: Answers that come before all others: status, headers, body.
        self.failures: list[tuple[int, dict[str, str], Any]] = []
        #: Requests to Neutron: method and path with its query.
        self.requests: list[tuple[str, str]] = []
        #: Set while requests are to hang.
        self.hang: threading.Event | None = None
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def settings(self) -> str:
        """What nova.conf says of it."""
        return (
            f"[neutron]\nauth_type = password\nauth_url = {self.url}/v3\nusername = nova\n"
            "password = secret\nproject_name = service\nuser_domain_name = Default\n"
            "project_domain_name = Default\nregion_name = RegionOne\ntimeout = 5\n"
        )

    def close(self) -> None:
        """End it."""
        if self.hang is not None:
            self.hang.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body of an answer."""
        where = urlsplit(path)
        if where.path.startswith("/v3"):
            return self._keystone(method, where.path)
        if not where.path.startswith("/v2.0/"):
            link = {"rel": "self", "href": f"{self.url}/v2.0/"}
            version = {"id": "v2.0", "status": "CURRENT", "links": [link]}
            return 200, {}, {"versions": [version]}
        self.requests.append((method, path))
        if self.hang is not None:
            self.hang.wait()
        if self.failures:
            return self.failures.pop(0)
        what, _, found_id = where.path.removeprefix("/v2.0/").partition("/")
        rows = getattr(self, what)
        if method == "PUT":
            (row,) = [row for row in rows if row["id"] == found_id]
            row.update(body["port"])
            return 200, {}, {"port": row}
        wanted = parse_qs(where.query)
        marker = wanted.pop("marker", [None])[0]
        found = [r for r in rows if all(r.get(key) in values for key, values in wanted.items())]
        if marker is not None:
            found = found[[r["id"] for r in found].index(marker) + 1 :]
        if not self.page_size:
            return 200, {}, {what: found}
        link = {"rel": "next", "href": f"{self.url}{path}"}
        # A full page has a next one, be there nothing in it.
        links = [link] if len(found) >= self.page_size else []
        return 200, {}, {what: found[: self.page_size], f"{what}_links": links}

    def _keystone(self, method: str, path: str) -> tuple[int, dict[str, str], Any]:
        if method == "GET":
            link = {"rel": "self", "href": f"{self.url}/v3/"}
            return 200, {}, {"version": {"id": "v3.14", "status": "stable", "links": [link]}}
        assert path == "/v3/auth/tokens"
        endpoints = [
            {"id": name, "interface": name, "region": "RegionOne", "region_id": "RegionOne",
             "url": self.url}
            for name in ("public", "internal", "admin")
        ]  # fmt: skip
        token = {
            "methods": ["password"],
            "expires_at": "2100-01-01T00:00:00.000000Z",
            "issued_at": "2026-11-23T00:00:00.000000Z",
            "user": {"id": "user", "name": "nova", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "service", "name": "service",
                        "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": "admin", "name": "admin"}],
            "catalog": [{"id": "n", "type": "network", "name": "neutron", "endpoints": endpoints}],
        }  # fmt: skip
        return 201, {"X-Subject-Token": "a-token"}, {"token": token}

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _reply(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, headers, found = server.answer(self.command, self.path, body)
                data = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = _reply

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler
