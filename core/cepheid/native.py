# SPDX-License-Identifier: Apache-2.0
"""Native calls with a deadline.

A Python thread cannot be killed and a native call can hang for ever. :class:`NativePool` runs
such calls on daemon threads of its own. A call that is past its deadline is abandoned: its caller
gets :class:`~cepheid.errors.CallTimeout`, its thread is replaced, and should the call ever return,
its result is dropped and the thread ends. Give it one native call at a time: what a caller would
have done next is then never done.

The pool is the same with native and with green threads: its workers are native, and a caller
waits on a socket, which with green threads wakes the hub.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from cepheid import concurrency, errors

T = TypeVar("T")

#: Abandoned calls that may hang at one time; beyond, the pool refuses work at once.
MAX_ABANDONED = 64
#: Those of one name; beyond, it refuses that one. Storage that hangs does not keep libvirt from
#: being asked, nor the other way round.
MAX_ABANDONED_OF_ONE = 8

#: Seconds after which a call counts as one that waits; until then a thread may be on its way to it.
QUEUED_SECONDS = 1.0


class _Call:
    """One call: queued, then running, then finished or abandoned."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], name: str) -> None:
        self.function = function
        self.args = args
        self.name = name
        self.result: Any = None
        self.error: BaseException | None = None
        #: Why no thread is there to make it.
        self.refusal = ""
        #: When it was queued, and when it was started, in the operating system's monotonic seconds.
        self.queued_at = 0.0
        self.started = False
        self.started_at = 0.0
        self.finished = False
        self.abandoned = False
        self.waiter, self.waker = socket.socketpair()

    def run(self) -> None:
        try:
            self.result = self.function(*self.args)
        except BaseException as err:  # noqa: BLE001 - raised on the caller's thread
            self.error = err

    def close(self) -> None:
        self.waiter.close()
        self.waker.close()


class NativePool:
    """A bounded pool of native daemon threads whose calls have deadlines.

    :param size: calls that may run at one time, abandoned ones not counted
    :param max_abandoned: calls that may hang at one time before new ones are refused
    :param max_of_one: those of them that may have one name before others of that name are refused
    """

    def __init__(
        self,
        size: int = 8,
        max_abandoned: int = MAX_ABANDONED,
        max_of_one: int = MAX_ABANDONED_OF_ONE,
    ) -> None:
        self.size = size
        self.max_abandoned = max_abandoned
        self.max_of_one = max_of_one
        self._threading = concurrency.original("threading")
        # The descriptor's own write: with green threads the caller's socket is green, and a
        # worker must not touch the hub.
        self._write = concurrency.original("os").write
        self._changed = self._threading.Condition(self._threading.Lock())
        self._queue: deque[_Call] = deque()
        self._workers = 0
        self._idle = 0
        self._abandoned = 0
        self._abandoned_total = 0
        self._running: set[_Call] = set()
        self._monotonic = concurrency.original("time").monotonic
        self._closed = False

    @property
    def abandoned(self) -> int:
        """Calls that hang past their deadline now."""
        return self._abandoned

    @property
    def abandoned_total(self) -> int:
        """Calls that were abandoned since the start."""
        return self._abandoned_total

    @property
    def under_way(self) -> list[tuple[str, float, bool]]:
        """The calls that are being made: name, seconds so far, whether it was abandoned."""
        now = self._monotonic()
        with self._changed:
            calls = [(c.name, now - c.started_at, c.abandoned) for c in self._running]
        return sorted(calls, key=lambda call: -call[1])

    @property
    def queued(self) -> int:
        """Calls that have waited for a thread for :data:`QUEUED_SECONDS` or longer."""
        since = self._monotonic() - QUEUED_SECONDS
        with self._changed:
            return sum(call.queued_at <= since for call in self._queue)

    def run(self, function: Callable[..., T], *args: Any, deadline: float, name: str = "") -> T:
        """Call `function` on a native thread and return what it returns.

        :param deadline: seconds to wait for it, the time in the queue included
        :param name: what to call it in errors; calls of one name share :attr:`max_of_one`
        :raises CallTimeout: it has not returned by then, or too many hang already
        """
        name = name or getattr(function, "__name__", "a native call")
        if deadline <= 0:
            raise errors.CallTimeout(f"{name} was not called: its time was over already.")
        call = _Call(function, args, name)
        try:
            self._submit(call)
            call.waiter.settimeout(deadline)
            with contextlib.suppress(TimeoutError):
                call.waiter.recv(1)
        finally:
            self._release(call)
        if call.refusal:
            raise errors.CallTimeout(
                f"{name} was not called: no native thread can be started ({call.refusal}). "
                "Look at the limits of the agent's processes and threads."
            )
        if not call.started:
            raise errors.CallTimeout(
                f"{name} was not called: for {deadline:g} seconds all native threads were busy. "
                "Look at libvirtd, or raise [DEFAULT] native_workers."
            )
        if not call.finished:
            raise errors.CallTimeout(
                f"{name} did not return within {deadline:g} seconds; "
                "whether it took effect is not known."
            )
        if call.error is not None:
            # Its traceback has this call in it; neither is to keep the other.
            error, call.error = call.error, None
            try:
                raise error
            finally:
                del error
        return call.result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let idle workers end; running calls are left to themselves (the threads are daemons)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _submit(self, call: _Call) -> None:
        with self._changed:
            if self._closed:
                raise errors.CallTimeout(f"{call.name} was not called: the agent is stopping.")
            if self._abandoned >= self.max_abandoned:
                raise errors.CallTimeout(
                    f"{call.name} was not called: {self._abandoned} earlier calls hang past "
                    "their deadlines. Look at libvirtd and its log, then restart the agent."
                )
            alike = sum(one.abandoned and one.name == call.name for one in self._running)
            if alike >= self.max_of_one:
                raise errors.CallTimeout(
                    f"{call.name} was not called: {alike} earlier calls of it hang past their "
                    "deadlines. It is tried again when one of them has returned."
                )
            call.queued_at = self._monotonic()
            self._queue.append(call)
            self._provide_worker()

    def _provide_worker(self) -> None:
        if len(self._queue) <= self._idle:
            self._changed.notify()
        elif self._workers < self.size:
            thread = self._threading.Thread(target=self._work, name="cepheid-native", daemon=True)
            try:
                thread.start()
            except RuntimeError as err:  # the system has no more; those that there are go on
                if not self._workers:
                    self._refuse_queued(str(err))
            else:
                self._workers += 1

    def _refuse_queued(self, reason: str) -> None:
        """Answer the calls that wait for a thread: there is none, and none can be had."""
        while self._queue:
            call = self._queue.popleft()
            call.refusal = reason
            self._write(call.waker.fileno(), b"x")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                if not self._queue:
                    self._workers -= 1
                    return
                call = self._queue.popleft()
                call.started, call.started_at = True, self._monotonic()
                self._running.add(call)
            call.run()
            with self._changed:
                self._running.discard(call)
                if call.abandoned:  # another worker has taken this one's place
                    self._abandoned -= 1
                    return
                call.finished = True
                self._write(call.waker.fileno(), b"x")
            del call  # what it returned is not kept until the next one comes

    def _release(self, call: _Call) -> None:
        """Abandon the call unless it has finished; no worker writes to its socket after this."""
        try:
            with self._changed:
                if call.started and not call.finished:
                    call.abandoned = True
                    self._abandoned += 1
                    self._abandoned_total += 1
                    self._workers -= 1
                    if self._queue:
                        self._provide_worker()
                elif call in self._queue:
                    self._queue.remove(call)
        finally:
            call.close()
