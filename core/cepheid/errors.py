# SPDX-License-Identifier: Apache-2.0
"""The errors an operator can meet: each is one clear line that names the thing and the remedy."""

import difflib
from collections.abc import Iterable


def not_permitted(path: object) -> str:
    """Say that this user may not use a file of the agent's, and who may."""
    return (
        f"This user may not use {path}. Run this as the user who runs the agent, root as a rule: "
        "with sudo."
    )


class CepheidError(Exception):
    """What went wrong, with which option, file, row or plugin, and what to do about it.

    The command line prints the text and exits with :attr:`exit_code`; it never shows a traceback.
    """

    exit_code = 1


class ConfigError(CepheidError):
    """A configuration file or option cannot be used."""


class PluginError(CepheidError):
    """A plugin is missing, ambiguous or cannot be loaded."""


class NoSuchTask(PluginError):
    """Nothing that is installed provides a task of this name."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        nearest = difflib.get_close_matches(name, sorted(set(known)), 1)
        guess = f"the nearest name is {nearest[0]!r}; " if nearest else ""
        super().__init__(
            f"There is no task {name!r}; {guess}'cepheid task list' shows those there are."
        )


class JournalError(CepheidError):
    """The journal cannot be read or written; without it nothing is changed."""


class DoubtfulTime(JournalError):
    """The time of day contradicts the journal; nothing is removed by it."""


class CallTimeout(CepheidError):
    """A native call did not return before its deadline; whether it took effect is not known."""


class NotPermitted(CepheidError):
    """This user may not use a file of the agent's."""

    def __init__(self, path: object) -> None:
        super().__init__(not_permitted(path))


class NotRunning(CepheidError):
    """No agent answers on the admin socket."""


class Busy(CepheidError):
    """The task is running already, in this process or in another."""


class TooLate(CepheidError):
    """Who asked for it has gone; nothing was done."""


class Paused(CepheidError):
    """The task is paused by an operator."""


class AlreadyReported(CepheidError):
    """The log has told the operator; only the exit status is left to say."""
