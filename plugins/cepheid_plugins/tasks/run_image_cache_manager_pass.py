# SPDX-License-Identifier: Apache-2.0
"""Remove images from the host's cache that nobody uses any more.

Reads instances, migrations and block_device_mapping of all hosts that share instances_path; the
files beneath it; where something is to be removed, the definitions of all domains and the files
that processes have open. Renames, deletes and touches files in the image cache; enters this host
into the registry of the storage's users.
Source: Nova's _run_image_cache_manager_pass and its libvirt driver's image cache manager.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import cepheid
from cepheid import errors, progress
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, Raced, RunContext
from cepheid_plugins.compute import image_explained, image_options, opts
from cepheid_plugins.compute.image_survey import SILENT_SECONDS, Found, Survey, Surveyor
from cepheid_plugins.compute.image_verdicts import DESTRUCTIVE, Verdict
from cepheid_plugins.compute.turns import Turns
from cepheid_plugins.storage.native_files import LOOK_SECONDS, NativeInstancesPath
from cepheid_plugins.storage.nova_locks import Held
from cepheid_plugins.storage.storage_users import NoRoom

if TYPE_CHECKING:
    from cepheid.agent import Agent

T = TypeVar("T")

#: Problems that are named each.
NAMED = 10

#: How many times max_changes a pass proposes at most.
OFFERED = 10


class RunImageCacheManagerPass(cepheid.Task):
    """Remove images that nobody uses from the host's cache, aside first."""

    options = image_options.OPTIONS
    shared_options = opts.list_opts()
    drivers = ("database", "hypervisor")
    max_changes = 20
    time_limit = 1800
    #: The registry of the storage's users, and what keeps Nova from it meanwhile.
    own_files = ("*compute_nodes*", "*nova-storage-registry-lock*", ".locks.part")
    explains = {
        "instance": "images that instances stand on, in the image cache",
        "file": "files of the image cache that are named as Nova names them, and those set aside",
    }
    #: Where the host's processes are.
    proc = "/proc"

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self._surveyor: Surveyor | None = None
        self._turns = Turns.of(self)

    @property
    def surveyor(self) -> Surveyor:
        """Who looks at the cache; another one after its place was configured anew."""
        now = self._surveyor
        path, name = self.agent.conf.compute.instances_path, self.conf.subdirectory_name
        if now is None or now.configured != (path, name):
            now = self._surveyor = Surveyor(self.agent, name, self.proc)
        return now

    @periodic_task(spacing=2400, external_process_ok=True)
    def run_image_cache_manager_pass(self, context: RunContext) -> None:
        self._check_storage()
        surveyor = self.surveyor
        hosts = self._hosts(context)
        survey = self._survey(hosts, thorough=False)
        if survey is None:
            context.explain(None, f"there is no {surveyor.cache.base_path}")
            return
        if survey.having(*DESTRUCTIVE, Verdict.WAITING):
            thorough = self._survey(hosts, thorough=True)
            survey = survey if thorough is None else thorough
        context.count("files", len(survey.found))
        image_explained.explain(context, survey, image_options.rules(self.conf))
        self._tell(context, survey)
        used = [one.file for one in survey.having(Verdict.USED)]
        context.count("used", len(used))
        if not context.dry_run:
            # Bookkeeping, not a change: Nova's own pass and ours go by the age since the last use.
            touched = self._native(surveyor.cache.touch, used, surveyor.now())
            context.count("touched", touched)
            surveyor.remember()
        restored = _oldest_first(survey.having(Verdict.RESTORED))
        self._change(context, restored, "restore", self._restore)
        due = [one.file.entry for one in survey.having(*DESTRUCTIVE)]
        for again in (False, True):
            # What was proven before goes first: it gives room, and max_changes is for all of them.
            proven = self._in_turn(survey, Verdict.DELETED, again)
            self._change(context, proven, "delete", self._delete)
            unused = self._in_turn(survey, Verdict.SET_ASIDE, again)
            self._change(context, unused, "set_aside", self._set_aside)
        self._turns.enter(due, context.failed())

    def _hosts(self, context: RunContext) -> list[str]:
        """Return the hosts that share the storage, and enter this one."""
        users, now = self.surveyor.users, self.surveyor.now()
        try:
            known = self._native(users.hosts) if context.dry_run else self._register(now)
        except NoRoom as err:
            # That is when room is wanted most, and this host has been entered before.
            known = self._native(users.hosts)
            context.notice("registry", f"{err}. Nova forgets this host after a day of that")
        for host, at in known.items():
            if now - at > SILENT_SECONDS and host != self.agent.host:
                seen = datetime.datetime.fromtimestamp(at, datetime.UTC).replace(tzinfo=None)
                context.notice(
                    ("silent", host),
                    f"{host} shares this storage and was last heard of at {seen}. The images of "
                    f"its instances are kept; if it is gone, run 'cepheid image forget-host "
                    f"{host}'.",
                )
        return sorted({*known, self.agent.host})

    def _register(self, now: float) -> Mapping[str, float]:
        attempts = range(image_options.REGISTRY_ATTEMPTS)
        for _ in attempts:
            try:
                return self._native(self.surveyor.users.register, self.agent.host, now)
            except Held:
                self.agent.clock.sleep(image_options.REGISTRY_SECONDS)
        raise errors.CepheidError(
            "The registry of this storage's users stays locked, so nothing was done. Which process "
            "holds locks/nova-storage-registry-lock in instances_path?"
        )

    def _check_storage(self) -> None:
        """See that the storage answers, before it is looked at or changed on this thread.

        :raises CepheidError: it is not there, or hangs
        """
        path = self.agent.conf.compute.instances_path
        NativeInstancesPath(self.agent.run_native, self.agent.clock, path).check()

    def _native(self, call: Callable[..., T], *arguments: Any) -> T:
        answer: T = self.agent.run_native(
            call,
            *arguments,
            deadline=LOOK_SECONDS,
            name="a call to the storage of instances_path",
        )
        return answer

    def _survey(self, hosts: Sequence[str], thorough: bool) -> Survey | None:
        files = self.surveyor.scan()
        if files is None:
            return None
        rules = image_options.rules(self.conf)
        return self.surveyor.look(files, hosts, rules, thorough)

    def _tell(self, context: RunContext, survey: Survey) -> None:
        problems = survey.uses.problems
        context.count("skipped", len(problems))
        for problem in problems[:NAMED]:
            context.notice(("problem", problem), f"nothing is removed in this pass: {problem}")
        if len(problems) > NAMED:
            context.notice("problems", f"and for {len(problems) - NAMED} more reasons like these")
        if survey.uses.sizeless:
            context.notice(
                "sizeless",
                f"the flavors of {len(survey.uses.sizeless)} instances cannot be read, so all swap "
                "and ephemeral files are kept",
            )
        for one in survey.having(Verdict.KEPT):
            if one.owners:
                context.notice(one.file.entry, f"{one.file.entry}: {one.reason}")

    def _in_turn(self, survey: Survey, verdict: Verdict, again: bool) -> list[Found]:
        """Return the files on which a verdict was given: the oldest first, or in turn.

        :param again: those that could not be removed before, or the others
        """
        found = {one.file.entry: one for one in survey.having(verdict)}
        if again:
            return [found[entry] for entry in self._turns.failed if entry in found]
        return _oldest_first(found[entry] for entry in found if entry not in self._turns.failed)

    def _change(
        self, context: RunContext, found: list[Found], kind: str, act: Callable[[Found], None]
    ) -> None:
        if not found:
            return
        verdict = found[0].verdict
        # Whatever is refused is on record each time: no more of that than somebody may read.
        offered = found[: OFFERED * self.conf.max_changes or None]
        context.count("left_for_later", len(found) - len(offered))
        wanted = {one.file.entry: one for one in offered}

        def do(changes: list[Change]) -> dict[str, object]:
            targets = {change.target for change in changes}
            if verdict in DESTRUCTIVE:
                targets &= self._still(verdict)
            results: dict[str, object] = {}
            for one in progress.each(sorted(targets)):
                try:
                    self._check_storage()
                except errors.CepheidError as err:
                    # It would be waited for with each of them.
                    return {**dict.fromkeys(targets, err), **results}
                results[one] = _attempt(act, wanted[one])
            return results

        context.change_many(
            kind,
            [Change(entry, one.file.size_bytes, None, one.reason) for entry, one in wanted.items()],
            do,
        )

    def _still(self, verdict: Verdict) -> set[str]:
        """Look once more, right before something is removed; return what still may be."""
        hosts = self._native(self.surveyor.users.hosts)
        survey = self._survey(sorted({*hosts, self.agent.host}), True)
        return set() if survey is None else {one.file.entry for one in survey.having(verdict)}

    def _set_aside(self, one: Found) -> None:
        now = self.surveyor.now()
        minimum = image_options.rules(self.conf).minimum_age_seconds(one.file.kind)
        self.surveyor.cache.set_aside(one.file, now - minimum, now)

    def _restore(self, one: Found) -> None:
        self.surveyor.cache.restore(one.file, self.surveyor.now())

    def _delete(self, one: Found) -> None:
        self.surveyor.cache.delete(one.file)


def _oldest_first(found: Iterable[Found]) -> list[Found]:
    return sorted(found, key=lambda one: one.file.modified_at)


def _attempt(act: Callable[[Found], None], one: Found) -> object:
    """Act on one file; return what the door takes for its result."""
    try:
        act(one)
    except (Held, Raced):
        return "raced"
    except errors.CepheidError as err:
        return err
    return None
