# SPDX-License-Identifier: Apache-2.0
"""MariaDB and PostgreSQL of the tests' own: on loopback, in temporary directories.

As root an unprivileged user runs them. Each is ended by its process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc

from tests.functional.processes import (
    PATIENCE_SECONDS,
    SYSTEM_PATH,
    as_user,
    require,
    unprivileged_user,
    wait_until,
)


@contextmanager
def mariadb(options: Sequence[str] = ()) -> Iterator[sa.URL]:
    """Start MariaDB; give the URL of an account that may do everything.

    :param options: further ones of the server
    """
    require("mariadbd", "mariadb-install-db")
    with _directory("cepheid-maria-") as (path, owner):
        base = ["--no-defaults", f"--datadir={path}/data"]
        # One that starts removes what it takes for leftovers of its own from where they all are.
        _run(["mariadb-install-db", *base, "--auth-root-authentication-method=normal",
              "--skip-test-db"], owner, TMPDIR=str(path))  # fmt: skip
        port = free_port()
        own = [f"--socket={path}/m.sock", "--bind-address=127.0.0.1", f"--port={port}",
               f"--pid-file={path}/pid", f"--tmpdir={path}",
               "--innodb-flush-log-at-trx-commit=0"]  # fmt: skip
        process = _start(["mariadbd", *base, *own, *options], path, owner)
        url = sa.URL.create(
            "mysql+pymysql", "root", host="127.0.0.1", port=port, query={"charset": "utf8"}
        )
        socket_url = sa.URL.create("mysql+pymysql", "root", query={"unix_socket": f"{path}/m.sock"})
        try:
            wait_until(lambda: _answers(socket_url), lambda: _log(path))
            with sa.create_engine(socket_url).begin() as connection:
                for statement in (
                    "CREATE USER IF NOT EXISTS root@'127.0.0.1'",
                    "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION",
                ):
                    connection.execute(sa.text(statement))
            yield url
        finally:
            _end(process, signal.SIGTERM)


@contextmanager
def postgresql(options: Sequence[str] = ()) -> Iterator[sa.URL]:
    """Start PostgreSQL; give the URL of an account that may do everything.

    :param options: further ones of the server
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    where = str(programs[-1]) if programs else ""
    require(f"{where}/initdb", f"{where}/postgres")
    with _directory("cepheid-pg-") as (path, owner):
        _run([f"{where}/initdb", "-D", f"{path}/data", "-A", "trust", "-U", "postgres",
              "--no-sync"], owner)  # fmt: skip
        port = free_port()
        process = _start(
            [f"{where}/postgres", "-D", f"{path}/data", "-p", str(port), "-h", "127.0.0.1",
             "-k", str(path), "-F", *options], path, owner,
        )  # fmt: skip
        url = sa.URL.create(
            "postgresql+psycopg2", "postgres", host="127.0.0.1", port=port, database="postgres"
        )
        try:
            wait_until(lambda: _answers(url), lambda: _log(path))
            yield url
        finally:
            _end(process, signal.SIGINT)


def new_account(database: sa.URL, name: str, grants: Iterable[str]) -> sa.URL:
    """Make an account that may do what is granted and no more; return the database's URL for it."""
    create = {
        "mysql": f"CREATE USER {name}@'%' IDENTIFIED BY '{name}'",
        "postgresql": f"CREATE ROLE {name} LOGIN PASSWORD '{name}'",
    }[database.get_backend_name()]
    engine = sa.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in (create, *grants):
            connection.execute(sa.text(statement))
    engine.dispose()
    return database.set(username=name, password=name)


def new_database(server: sa.URL, name: str) -> sa.URL:
    """Make an empty database on a server; return its URL."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.set(database=name)


#: They keep the ports that this process was given.
_KEPT: list[socket.socket] = []


def free_port() -> int:
    """Return a port on loopback that nobody listens on, and that nobody else is given.

    Until this process ends, a socket that is bound to it and does not listen keeps the system from
    giving it to others. A server that sets SO_REUSEADDR, as servers do, can listen on it all the
    same. Source: ip(7), socket(7).
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _KEPT.append(keeper)
    return int(keeper.getsockname()[1])


@contextmanager
def _directory(prefix: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    path = Path(tempfile.mkdtemp(prefix=prefix))
    user = unprivileged_user()
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)
    try:
        yield path, as_user(user)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _run(command: list[str], owner: dict[str, Any], **variables: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": SYSTEM_PATH, "HOME": "/", "LC_ALL": "C.UTF-8", **variables},
        stdin=subprocess.DEVNULL,
        **owner,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _start(command: list[str], path: Path, owner: dict[str, Any]) -> subprocess.Popen[bytes]:
    with (path / "server.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"PATH": SYSTEM_PATH, "HOME": str(path), "LC_ALL": "C.UTF-8"},
            **owner,
        )


def _end(process: subprocess.Popen[bytes], how: int) -> None:
    process.send_signal(how)
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE_SECONDS)


def _answers(url: sa.URL) -> bool:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect():
            return True
    except sqlalchemy.exc.DBAPIError:
        return False


def _log(path: Path) -> str:
    return (path / "server.log").read_text()[-2000:]
