# SPDX-License-Identifier: Apache-2.0
"""Cell databases of real Nova: its own migrations, its own objects, in its own environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cepheid_plugins.database import grants
from tests.functional import released, servers

#: The release whose database is the contract.
NOVA_VERSION = "34.0.0"

#: What Nova's Python is given to run.
SCRIPTS = Path(__file__).parent / "nova"


def environment() -> Path:
    """Return the virtual environment with Nova."""
    return released.environment(
        "nova", NOVA_VERSION, "pymysql", "psycopg2-binary", "python-memcached"
    )


def least_account(url: sa.URL, name: str = "least") -> sa.URL:
    """Return the database's URL for an account with the printed grants."""
    kind = url.get_backend_name()
    if kind == "sqlite":
        return url
    printed = grants.statements(kind, url.database, "alembic_version", name, nova=True)
    return servers.new_account(url, name, printed)


class NovaCell:
    """A cell database that Nova's own migrations made.

    :param url: an empty database
    :param settings: further lines of nova.conf's [DEFAULT]
    """

    def __init__(self, path: Path, url: sa.URL, settings: str = "") -> None:
        self.url = url
        self._environment = environment()
        self._conf = path / "nova.conf"
        # A percent sign of the URL would be oslo.config's.
        connection = url.render_as_string(hide_password=False).replace("$", "$$")
        self._conf.write_text(
            f"[DEFAULT]\nstate_path = {path}\n{settings}[database]\nconnection = {connection}\n"
            f"[api_database]\nconnection = sqlite:///{path}/api.sqlite\n"
        )
        self._manage("db", "sync", "--local_cell")

    def sync_api(self) -> None:
        """Make the database in which Nova finds its cells and hosts."""
        self._manage("api_db", "sync")

    def write(self, instances: list[dict[str, Any]]) -> dict[str, str]:
        """Make instances on host1 with Nova's objects; return their uuids by name."""
        made: dict[str, str] = json.loads(self._script("write", json.dumps(instances)))
        return made

    def destroy(self, uuids: list[str]) -> None:
        """Delete instances with Nova's objects."""
        self._script("destroy", json.dumps(uuids))

    def retry(self, uuids: list[str]) -> None:
        """Let Nova's objects record one more attempt to remove deleted instances' files."""
        self._script("retry", json.dumps(uuids))

    def read(self) -> dict[str, dict[str, Any]]:
        """Read all instances with Nova's objects, deleted ones too, by name."""
        found: dict[str, dict[str, Any]] = json.loads(self._script("read", ""))
        return found

    def command(self, script: str, command: str) -> list[str]:
        """Return what runs a script with this cell's nova.conf, in Nova's Python."""
        python = self._environment / "bin" / "python"
        return [str(python), str(SCRIPTS / script), str(self._conf), command]

    def _script(self, command: str, given: str) -> str:
        return self.run(*self.command("cell.py", command), given=given)

    def _manage(self, *words: str) -> None:
        program = str(self._environment / "bin" / "nova-manage")
        self.run(program, "--config-file", str(self._conf), *words)

    def run(self, *command: str, given: str = "") -> str:
        """Run a command of :meth:`command`; return the last line that it prints."""
        done = subprocess.run(command, input=given, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
