# SPDX-License-Identifier: Apache-2.0
"""The directories of instances, looked at and changed on native threads, with deadlines.

Storage that hangs holds up who calls, and only until the deadline. A call that was given up changes
nothing any more when the storage is back, but for the one step that hung.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from cepheid import errors
from cepheid_plugins.storage.instances_path import InstancesPath

if TYPE_CHECKING:
    from cepheid.clock import Clock
    from cepheid_plugins.storage.backing_files import RunNative

T = TypeVar("T")

#: Seconds until storage that does not answer is given up.
LOOK_SECONDS = 60
#: Seconds after which a removal stops; whoever comes next goes on with it.
REMOVE_SECONDS = 300


class NativeInstancesPath(InstancesPath):
    """An :class:`InstancesPath` for whoever must not be held up by storage that hangs.

    Programs that copy are run from the caller's thread, and take as long as the disks do.

    :param run_native: makes a call with a deadline
    """

    def __init__(
        self, run_native: RunNative, clock: Clock, path: str, option: str = "instances_path"
    ) -> None:
        self._run_native = run_native
        self._clock = clock
        # Even what the path stands for is asked of the storage.
        folder = run_native(InstancesPath, path, option, deadline=LOOK_SECONDS, name=option)
        self.path, self._option = folder.path, option

    def check(self) -> None:
        self._native(lambda folder: folder.check())

    def exists(self, name: str) -> bool:
        return self._native(lambda folder: folder.exists(name))

    def names(self) -> tuple[str, ...]:
        return self._native(lambda folder: folder.names())

    def files(self, name: str) -> list[str]:
        return self._native(lambda folder: folder.files(name))

    def modified_at(self, name: str, file: str) -> float | None:
        return self._native(lambda folder: folder.modified_at(name, file))

    def holds(self, name: str, path: str) -> bool:
        return self._native(lambda folder: folder.holds(name, path))

    def make(self, name: str) -> None:
        self._native(lambda folder: folder.make(name))

    def read(self, name: str, file: str) -> bytes | None:
        return self._native(lambda folder: folder.read(name, file))

    def write(self, name: str, file: str, content: bytes) -> None:
        self._native(lambda folder: folder.write(name, file, content))

    def complete(self, name: str, partial: str, file: str) -> None:
        self._native(lambda folder: folder.complete(name, partial, file))

    def unlink(self, name: str, file: str) -> None:
        self._native(lambda folder: folder.unlink(name, file), REMOVE_SECONDS)

    def rename(self, old: str, new: str) -> None:
        self._native(lambda folder: folder.rename(old, new))

    def remove(self, name: str) -> None:
        self._native(lambda folder: folder.remove(name), REMOVE_SECONDS)

    def _native(self, act: Callable[[InstancesPath], T], seconds: float | None = None) -> T:
        seconds = LOOK_SECONDS if seconds is None else seconds
        folder = self.checked(until(self._clock, seconds))
        answer: T = self._run_native(
            act, folder, deadline=seconds, name=f"a call to the storage of {self._option}"
        )
        return answer


def until(clock: Clock, seconds: float) -> Callable[[], None]:
    """Return what raises CallTimeout from so many seconds on: who waited has given it up."""
    ends_at = clock.monotonic() + seconds

    def check() -> None:
        if clock.monotonic() >= ends_at:
            raise errors.CallTimeout(f"It was not done within {seconds:g} s, and is given up.")

    return check
