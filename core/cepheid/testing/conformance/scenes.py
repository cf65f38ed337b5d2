# SPDX-License-Identifier: Apache-2.0
"""What a task must do right when it runs: each scene returns what it did wrong."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from cepheid import errors
from cepheid.observers import Observer
from cepheid.run import Change, Run
from cepheid.testing.conformance import footprint
from cepheid.testing.conformance.findings import NotChecked, Problem
from cepheid.testing.conformance.trial import CANARY, NUMBER, SPACING, Carried, Trial, tree
from cepheid.testing.conformance.watch import REFUSED
from cepheid.testing.player import Player

EACH = (
    "make a change for each target: context.change for one, context.change_many with a Change for "
    "each of many"
)

#: Processor seconds that the constructor may take, and seconds that a pass over few instances may.
CONSTRUCTOR_SECONDS, PASS_SECONDS = 0.5, 2.0

#: Instances of a small host and of a large one, and passes until there is nothing left to do.
FEW, MANY, PASSES = 10, 1000, 4

#: Numbers of instances that are alike and idle: see the doubles' ``populate``.
ALIKE_STEP = 13 * 8

#: An error that is none of cepheid's, which say in words what is to be done: its class first.
OTHER_ERROR = re.compile(r"[A-Z]\w*(: |$)")

#: Runs after the first, in which what was done is to be seen as done.
AGAIN = 2

DOOR = "make each change by context.change(kind, target, before, after, reason, do=...)"


def constructor(trial: Trial) -> Iterator[Problem]:
    """Building it asks nobody, writes nothing and is quick."""
    acts, asked = len(trial.watch.acts), len(trial.asked)
    with trial.stage():
        took = trial.start_seconds
    for one in trial.asked[asked:]:
        if one.phase == "constructor":
            yield Problem(
                f"its constructor calls {one.kind}.{one.name}, so that it cannot be built while "
                f"the {one.kind} is away",
                "keep the driver in the constructor, and ask it in the decorated method",
                one.where,
            )
    for act in trial.watch.since(acts, "file", "network", "program", "process", "sleep"):
        if act.phase == "constructor":
            yield Problem(
                f"its constructor {act.what}", "do that in the decorated method", act.where
            )
    if took > CONSTRUCTOR_SECONDS:
        yield Problem(
            f"building it took {took:.1f} s of processor time",
            "do the work in the decorated method, on the agent's thread for it",
        )


def normal_run(trial: Trial) -> Iterator[Problem]:
    """A run changes things through the door only, says why, and leaves the agent as it was."""
    acts, calls, doors = len(trial.watch.acts), len(trial.changing), len(trial.carried)
    with trial.stage() as player:
        run = player.run(trial.name)
        yield from past_the_door(trial, player, acts, calls)
        yield from _unexplained(run)
        if run.outcome == "failed":
            if REFUSED in run.error or not OTHER_ERROR.match(run.error):
                raise NotChecked(f"it fails in the sandbox: {run.error}")
            yield Problem(
                f"a run fails where nothing is wrong: {run.error}",
                "mend what the error names; what it needs of its own belongs into the package "
                "(package_data), or behind a driver with a double",
            )
        again = [player.run(trial.name) for _ in range(AGAIN)]
        yield from _vain([run, *again], trial.carried[doors:])
        if not run.changes and not trial.watch.since(acts, "file"):
            raise NotChecked("it found nothing to change among what the sandbox has")


def _vain(runs: Sequence[Run], carried: Sequence[Carried]) -> Iterator[Problem]:
    """Return what is said to be done and is not, and what is done to another."""
    for one in carried:
        for call in one.strays:
            yield Problem(
                f"a change of {one.changes[0].target} calls {call.name} of {call.args[0]}",
                "bind what do= is to act on: lambda uuid=row.uuid: ...",
                call.where,
            )
        for target in one.untouched[:1]:
            yield Problem(
                f"a change of {target} is done, and no call of the hypervisor's is about it",
                "let do= act on each of the changes that it is given, and bind what it acts on",
            )
    failed = [c for run in runs for c in run.changes if c.outcome == "failed"]
    for change in failed[:1]:
        if REFUSED not in change.error:
            yield Problem(
                f"where nothing is wrong its change {change.kind} fails: {change.error}",
                "look at what there is in each run anew; what is gone is done",
            )
    idle = [{c.target for one in carried if not one.did for c in one.changes if c in run.changes}
            for run in runs]  # fmt: skip
    done = [{c.target for c in run.changes if c.outcome == "done"} for run in runs]
    for target in sorted(set.intersection(*idle, *done))[:1]:
        yield Problem(
            f"its change of {target} is done in each run, and nothing is done",
            "let do= raise what goes wrong; the change then fails, and says why",
        )


def past_the_door(trial: Trial, player: Player, acts: int, calls: int) -> Iterator[Problem]:
    """Return what was changed otherwise than through the run's context."""
    for call in trial.changing[calls:]:
        is_telling = getattr(player.faults[call.kind].driver, "tells_only", False)
        if not call.in_door and not is_telling:
            yield Problem(f"it calls {call.kind}.{call.name} past context.change", DOOR, call.where)
    own = str(player.state_path)
    for act in trial.watch.since(acts, "file", "program", "network"):
        if act.phase != "run" or act.in_door or act.path.startswith(own):
            continue
        name = os.path.basename(act.path)
        if not any(fnmatch.fnmatch(name, pattern) for pattern in trial.factory.own_files):
            yield Problem(f"it {act.what} past context.change", DOOR, act.where)


def _unexplained(run: Run) -> Iterator[Problem]:
    for kind in sorted({change.kind for change in run.changes}):
        of_kind = [change for change in run.changes if change.kind == kind]
        if any(not isinstance(change.target, str) or not change.target for change in of_kind):
            yield Problem(
                f"its changes {kind!r} do not say on what they are made",
                "give target= the instance's uuid, the path, ... as a text",
            )
        if any(not change.reason for change in of_kind):
            yield Problem(
                f"its changes {kind!r} do not say why they are made",
                "give reason= what an operator wants to read in 'cepheid task history'",
            )


def leaves_nothing_behind(trial: Trial) -> Iterator[Problem]:
    """After a run the process is as it was: no threads, signals, logging, patches, directory."""
    with trial.stage() as player:
        before, kept = footprint.take(), footprint.kept(trial.factory)
        player.run(trial.name)
        yield from footprint.differences(before, footprint.take())
        for name in footprint.changed(kept, footprint.kept(trial.factory)):
            yield Problem(
                f"{name} is another one after a run; it is of all agents and of dry runs as well",
                "keep it on self, made in the constructor",
            )


def is_quick(trial: Trial) -> Iterator[Problem]:
    """A pass over few instances in memory takes no time, and sleeps by the agent's clock only."""
    acts = len(trial.watch.acts)
    with trial.stage() as player:
        began = time.monotonic()
        player.run(trial.name)
        took = time.monotonic() - began
    for act in trial.watch.since(acts, "sleep"):
        yield Problem(
            f"it {act.what}",
            "look again in the next run, or call self.agent.clock.sleep()",
            act.where,
        )
    if took > PASS_SECONDS:
        trial.hopeless = "a pass takes too long for more of them"
        yield Problem(
            f"a pass over {NUMBER} instances in memory took {took:.1f} s; meanwhile "
            "no other green thread goes on",
            "wait for nothing but drivers, and compute in proportion to what there is",
        )


def dry_run(trial: Trial) -> Iterator[Problem]:
    """A dry run changes nothing: no call, no file, no program."""
    acts, calls = len(trial.watch.acts), len(trial.changing)
    with trial.stage() as player:
        before = tree(player.path)
        player.run(trial.name, dry_run=True)
        after = tree(player.path)
    for call in trial.changing[calls:]:
        yield Problem(f"a dry run calls {call.kind}.{call.name}", DOOR, call.where)
    seen = [
        act for act in trial.watch.since(acts, "file", "program", "network") if act.phase == "run"
    ]
    for act in seen:
        yield Problem(f"a dry run {act.what}", DOOR, act.where)
    if not any(act.kind == "file" for act in seen):
        for name in sorted(set(before) | set(after)):
            if before.get(name) != after.get(name):
                yield Problem(f"a dry run leaves {name} changed", DOOR)


def limit(trial: Trial) -> Iterator[Problem]:
    """One change is one: max_changes limits what is done, not how often it is said."""
    doors = len(trial.carried)
    with trial.stage() as player:
        run = player.run(trial.name)
    for one in trial.carried[doors:]:
        if len(one.deleted) > len(one.changes):
            yield Problem(
                f"{len(one.deleted)} files were deleted in the name of {len(one.changes)} changes",
                EACH,
            )
    calls = len(trial.changing)
    with trial.stage(max_changes=1) as player:
        limited = player.run(trial.name)
    done = sum(change.outcome == "done" for change in limited.changes)
    named = {
        call.args[0] for call in trial.changing[calls:] if call.kind == "hypervisor" and call.args
    }
    if len(named) > max(1, done):
        yield Problem(f"with max_changes = 1 there were {len(named)} domains changed", EACH)
    if not run.changes and not named:
        raise NotChecked("it found nothing to change among what the sandbox has")


def overlapping(trial: Trial) -> Iterator[Problem]:
    """While it runs it cannot be run again."""
    answers: list[str] = []

    class Again(Observer):
        def run_started(self, run: Run) -> None:
            if answers:
                return
            answers.append("ran")
            try:
                self.agent.tasks[trial.name].run_now("check")
            except errors.Busy:
                answers.append("busy")

    with trial.stage() as player:
        player.agent.runner.observers = [*player.agent.runner.observers, Again(player.agent)]
        player.run(trial.name)
    if "busy" not in answers:
        yield Problem(
            "a second run begins while one goes on",
            "leave run_now, periodic_tasks and run_periodic_tasks to the base class",
        )


def repeatable(trial: Trial) -> Iterator[Problem]:
    """The same hours played twice are the same."""

    def one() -> list[object]:
        with trial.stage(timers=True) as player:
            played = player.play(seconds=5 * SPACING)
        where = str(player.path)
        return [
            (run.outcome, run.counters, [_essence(change, where) for change in run.changes])
            for run in played.runs
        ]

    if one() != one() and one() != one():  # not for a disk that was filled meanwhile
        yield Problem(
            "the same hours, played twice, are not the same",
            "take time and chance from self.agent.clock and self.agent.random, sort what is "
            "unordered, and keep nothing in a module, a class or a default argument",
        )


def _essence(change: Change, where: str) -> tuple[str, ...]:
    return (change.kind, change.target.replace(where, ""), change.outcome)


def constant_cost(trial: Trial) -> Iterator[Problem]:
    """A pass in which nothing changes costs the same whatever the number of instances."""
    small, large = _cost(trial, FEW), _cost(trial, MANY)
    for name in sorted(large):
        if large[name] > max(small[name], 1) and large[name] > small[name]:
            yield Problem(
                f"{name}: {small[name]} at {FEW} instances, {large[name]:,} at {MANY:,}",
                "ask for all of them at once: domains(), instances_on_host(), one SELECT ... JOIN",
            )


def _cost(trial: Trial, instances: int) -> Counter[str]:
    numbers = [ALIKE_STEP * number for number in range(instances)]
    with trial.stage(numbers) as player:
        for number in range(2 * PASSES):
            before = _spent(player)
            run = player.run(trial.name)
            if run.outcome == "failed":
                raise NotChecked(f"it fails in the sandbox: {run.error}")
            # The first pass may learn what the next ones know.
            if number and not run.changes:
                return _spent(player) - before
        raise NotChecked(f"{2 * PASSES} passes one after another all find something to change")


def _spent(player: Player) -> Counter[str]:
    spent: Counter[str] = Counter()
    for kind, faults in player.faults.items():
        for name, number in faults.counted.items():
            spent[f"calls of {kind}.{name}"] += number
        for what in ("statements", "calls"):
            counter = getattr(faults.driver, what, None)
            if isinstance(counter, Counter):
                for name, number in counter.items():
                    spent[f"{kind} {what} ({name})"] += number
    return spent


def reload(trial: Trial) -> Iterator[Problem]:
    """An option that the constructor reads is read by the runs as well."""
    with trial.stage() as player:
        player.run(trial.name)
        player.run(trial.name)
    own = {option.dest for option in trial.factory.options}
    read = {(one.name, one.phase) for one in trial.reads if one.group == trial.name}
    for name in sorted(own):
        if ((name, "constructor") in read or (name, "import") in read) and (
            name,
            "run",
        ) not in read:
            yield Problem(
                "it is read when the task is built, and then no more: a reload changes nothing",
                "read self.conf where the value is needed",
                f"[{trial.name}] {name}",
            )


def secrets(trial: Trial) -> Iterator[Problem]:
    """What is secret is in no log, no journal and no output."""
    with trial.stage() as player:
        run = player.run(trial.name)
        said = [run.error, *(f"{c.target}{c.before}{c.after}{c.reason}" for c in run.changes)]
    if any(CANARY in text for text in said):
        yield Problem(
            "the journal holds a secret option's value", "leave it out of targets and reasons"
        )
    if any(CANARY in text for text in trial.log.text):
        yield Problem("the log holds a secret option's value", "do not log it, at no level")
