# SPDX-License-Identifier: Apache-2.0
"""Faults of drivers, whatever their kind: calls that hang, wrong answers, lost connections.

A task in a test is given each driver behind a :class:`Watched`, which passes every call on and
keeps what was called. Its :class:`Faults` say what goes wrong meanwhile.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cepheid import errors
from cepheid.clock import Clock

#: Stands for every call of a driver.
ANY = "*"

#: Seconds after which a call that hangs is given up, as in ``[hypervisor] call_timeout``.
CALL_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Call:
    """A call that reached a driver.

    :param failed: whether a fault or the driver itself made an error of it
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    failed: bool = False


class Faults:
    """What goes wrong with one driver, and what was called of it.

    :param error: makes the error of a call that was not answered; by default the driver's own
        ``unavailable``, or :class:`~cepheid.errors.CallTimeout`
    """

    def __init__(
        self, driver: Any, clock: Clock, error: Callable[[str], Exception] | None = None
    ) -> None:
        self.driver = driver
        self._clock = clock
        self._error = error or getattr(driver, "unavailable", None) or errors.CallTimeout
        #: What was called, oldest first.
        self.made: list[Call] = []
        #: Called with the name before each call; what it raises comes out of the call.
        self.before_call: Callable[[str], object] = lambda name: None
        #: Called with the name and the arguments after each call that was answered.
        self.after_call: Callable[[str, tuple[Any, ...]], object] = lambda name, args: None
        self._gone: dict[str, Exception | None] = {}
        self._blocked: dict[str, float] = {}
        self._lies: dict[str, Callable[[Any], Any]] = {}
        self._released = threading.Event()

    def vanish(self, *names: str, error: Exception | None = None) -> None:
        """Let the connection be gone: each of these calls, or every one, fails at once."""
        self._gone.update(dict.fromkeys(names or (ANY,), error))

    def block(self, *names: str, seconds: float = CALL_TIMEOUT_SECONDS) -> None:
        """Let these calls, or every one, hang until :meth:`release`, or `seconds`; then they fail.

        The seconds are of the fake clock. Without somebody who lets it pass it passes at once.
        """
        self._released.clear()
        self._blocked.update(dict.fromkeys(names or (ANY,), seconds))

    def lie(self, name: str, answer: Callable[[Any], Any]) -> None:
        """Let a call answer what `answer` makes of the truth; see :func:`half`, :func:`without`."""
        self._lies[name] = answer

    def release(self) -> None:
        """Let the calls that hang be answered, and hang no more."""
        self._blocked.clear()
        self._released.set()

    def recover(self) -> None:
        """End every fault."""
        self.release()
        self._gone.clear()
        self._lies.clear()

    @property
    def counted(self) -> Counter[str]:
        """How often each call was made."""
        return Counter(call.name for call in self.made)

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make one call, as the faults let it."""
        try:
            self.before_call(name)
            self._hang(name)
            if ANY in self._gone or name in self._gone:
                error = self._gone.get(name, self._gone.get(ANY))
                raise error or self._error(f"{name}: the connection is gone")
            answer = function(*args, **kwargs)
        except BaseException:
            self.made.append(Call(name, args, kwargs, failed=True))
            raise
        self.made.append(Call(name, args, kwargs))
        self.after_call(name, args)
        return self._lies[name](answer) if name in self._lies else answer

    def _hang(self, name: str) -> None:
        seconds = self._blocked.get(name, self._blocked.get(ANY))
        if seconds is not None and not self._wait(seconds):
            raise self._error(
                f"{name} did not return within {seconds:g} seconds; "
                "whether it took effect is not known."
            )

    def _wait(self, seconds: float) -> bool:
        if threading.current_thread().name.startswith("timer-"):
            return self._clock.wait(self._released, seconds)
        self._clock.sleep(seconds)  # nobody else would let time pass
        return self._released.is_set()


class Watched:
    """A driver as a task sees it in a test: the same attributes and methods, with faults."""

    def __init__(self, driver: Any, faults: Faults) -> None:
        self.__dict__.update(_driver=driver, _faults=faults)

    def __getattr__(self, name: str) -> Any:
        driver, faults = self.__dict__["_driver"], self.__dict__["_faults"]
        if isinstance(getattr(type(driver), name, None), property):
            return faults.call(name, lambda: getattr(driver, name))
        value = getattr(driver, name)
        if not callable(value) or name.startswith("_"):
            return value
        return lambda *args, **kwargs: faults.call(name, value, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_driver"], name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__["_driver"])


def half(answer: Any) -> Any:
    """Return every second item of a list, tuple or mapping; anything else as it is."""
    if isinstance(answer, dict):
        return dict(list(answer.items())[::2])
    return answer[::2] if isinstance(answer, list | tuple) else answer


def without(*keys: Any) -> Callable[[Any], Any]:
    """Return a lie: these are missing from a mapping, by key, or from a list, by uuid or value."""

    def lie(answer: Any) -> Any:
        if isinstance(answer, dict):
            return {key: value for key, value in answer.items() if key not in keys}
        return [one for one in answer if getattr(one, "uuid", one) not in keys]

    return lie


def stale(answer: Any) -> Callable[[Any], Any]:
    """Return a lie: an answer of earlier, whatever the truth is by now."""
    return lambda truth: answer
