# SPDX-License-Identifier: Apache-2.0
"""Cell databases of real Nova: its own migrations, its own objects, in its own environment."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
import threading
from collections.abc import Sequence
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


class PreloadedNova:
    """Nova's Python with Nova in it, which runs scripts one after the other.

    It ends with this process.
    """

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, SCRIPTS / "preloaded.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    @classmethod
    @functools.cache
    def of(cls, python: Path) -> PreloadedNova:
        """Return that of this process, started on first use."""
        return cls(python)

    def run(self, command: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
        """Run a script with its arguments.

        :param given: on its standard input
        """
        with tempfile.TemporaryDirectory() as path, self._lock:
            files = {name: f"{path}/{name}" for name in ("stdin", "stdout", "stderr")}
            Path(files["stdin"]).write_text(given)
            print(json.dumps({"command": command, **files}), file=self._process.stdin, flush=True)
            status = self._process.stdout.readline()
            assert status, "Nova's process has ended; what it said of that is above"
            out, err = (Path(files[name]).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(command, int(status), out, err)


class NovaCell:
    """A cell database that Nova's own migrations made.

    :param url: an empty database
    :param settings: further lines of nova.conf's [DEFAULT]
    """

    def __init__(self, path: Path, url: sa.URL, settings: str = "") -> None:
        self.url = url
        self._python = environment() / "bin" / "python"
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
        return [str(self._python), str(SCRIPTS / script), str(self._conf), command]

    def _script(self, command: str, given: str) -> str:
        return self.run(*self.command("cell.py", command), given=given)

    def _manage(self, *words: str) -> None:
        program = self._python.parent / "nova-manage"
        self.run(str(self._python), str(program), "--config-file", str(self._conf), *words)

    def run(self, *command: str, given: str = "") -> str:
        """Run a command of :meth:`command`; return the last line that it prints."""
        done = PreloadedNova.of(self._python).run(command[1:], given)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
