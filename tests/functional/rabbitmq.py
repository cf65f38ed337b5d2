# SPDX-License-Identifier: Apache-2.0
"""A RabbitMQ of the tests' own: on loopback, in a temporary directory, with an epmd of its own.

As root an unprivileged user runs it. All of it is ended by process id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.functional.processes import (
    PATIENCE_SECONDS,
    SYSTEM_PATH,
    as_user,
    require,
    unprivileged_user,
    wait_until,
)
from tests.functional.servers import free_port

#: What Debian's packages install; the programs of that name in /usr/sbin ask for root.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")

#: A broker starts in ten seconds or so, half of it on one core.
START_SECONDS = 90


class RabbitMQ:
    """A broker, started by ``with``; it can be stopped and started again in between.

    Its exchanges and queues do not outlive a restart unless they are durable.
    """

    def __init__(self) -> None:
        require(str(PROGRAMS / "rabbitmq-server"), "epmd")
        self._owner = unprivileged_user()
        self._path = Path(tempfile.mkdtemp(prefix="cepheid-rabbit-"))
        if self._owner is not None:
            os.chown(self._path, self._owner.pw_uid, self._owner.pw_gid)
        self.port = free_port()
        self._ports = {"epmd": free_port(), "dist": free_port()}
        self._epmd: subprocess.Popen[bytes] | None = None
        self._broker: subprocess.Popen[bytes] | None = None
        self._log_before = 0

    @property
    def url(self) -> str:
        """The transport_url."""
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/"

    def __enter__(self) -> RabbitMQ:
        try:
            # Erlang would start one itself, which would outlive the broker.
            self._epmd = self._popen(
                ["epmd", "-port", str(self._ports["epmd"]), "-address", "127.0.0.1"]
            )
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait(PATIENCE_SECONDS)
        shutil.rmtree(self._path, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._broker is not None

    def start(self) -> None:
        """Start the broker and wait until it listens."""
        self._log_before = self._output.stat().st_size if self._output.exists() else 0
        self._broker = self._popen([str(PROGRAMS / "rabbitmq-server")])
        wait_until(self._is_up, self._log, START_SECONDS)

    def stop(self) -> None:
        """End the broker as its service manager would."""
        self.thaw()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker without a chance to say so."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let the broker do nothing, while the kernel goes on taking connections for it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _end(self, how: int) -> None:
        if self._broker is None:
            return
        self._signal(how)
        try:
            self._broker.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._broker.wait(PATIENCE_SECONDS)
        self._broker = None

    def _signal(self, number: int) -> None:
        """Send a signal to the broker, a shell script with an Erlang in it: a process group."""
        if self._broker is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._broker.pid, number)

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._output.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._path,
                env=self._environment(),
                start_new_session=True,
                **as_user(self._owner),
            )

    def _environment(self) -> dict[str, str]:
        """Return what keeps this broker apart from any other. Source: rabbitmq.com/configure."""
        path = self._path
        return {
            "PATH": SYSTEM_PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": str(path),  # the cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "RABBITMQ_NODENAME": f"cepheid{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._ports["dist"]),
            "RABBITMQ_MNESIA_BASE": f"{path}/mnesia",
            "RABBITMQ_LOG_BASE": f"{path}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{path}/pid",
            "RABBITMQ_CONF_ENV_FILE": f"{path}/none",
            "RABBITMQ_CONFIG_FILE": f"{path}/none",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{path}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{path}/plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _is_up(self) -> bool:
        assert self._broker is not None
        assert self._broker.poll() is None, self._log()
        return b"Server startup complete" in self._output.read_bytes()[self._log_before :]

    @property
    def _output(self) -> Path:
        return self._path / "output"

    def _log(self) -> str:
        return self._output.read_text(errors="replace")[-3000:]
