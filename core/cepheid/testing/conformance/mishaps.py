# SPDX-License-Identifier: Apache-2.0
"""What a task must do right when its drivers do not: they hang, vanish, and tell half."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from cepheid.run import Change
from cepheid.testing.conformance.findings import NotChecked, Problem
from cepheid.testing.conformance.scenes import PASSES
from cepheid.testing.conformance.trial import SPACING, Trial
from cepheid.testing.faults import Faults
from cepheid.testing.played import Played
from cepheid.testing.player import Player

#: Outcomes of a run in which something was missing.
BAD = {"failed", "partial", "overdue"}

UNKNOWN = "unknown is not gone: let the error out (the run then fails), or context.skip() the one"


def time_outs(trial: Trial) -> Iterator[Problem]:
    """A call that hangs ends the run as failed or partial; the next run works."""
    calls = _calls(trial)
    with trial.stage(timers=True) as player:
        has_work = bool(_done(player.play(seconds=4 * SPACING)))
    for kind, name, in_door in calls:
        doors = len(trial.carried)
        with trial.stage(timers=True) as player:
            faults = player.faults[kind]
            faults.block(name, seconds=2 * SPACING)
            changes = len(trial.changing)
            played = player.play(seconds=8 * SPACING)
            if not in_door:  # within, the change is what fails, and another way may lead there
                yield from _after(f"{kind}.{name} times out", played, faults, name)
            if [call for call in trial.changing[changes:] if not call.in_door]:
                yield Problem(f"after a time-out of {kind}.{name} it changes something", UNKNOWN)
            for one in trial.carried[doors:]:
                if one.unanswered and one.are_done:
                    yield Problem(
                        f"when {one.unanswered} times out, its change is said to be done",
                        "let the error out of do=; the change then fails, and the journal says so",
                    )
            faults.recover()
            again = player.play(seconds=4 * SPACING)
            if has_work and not in_door and not _done(played) and not _done(again):
                yield Problem(
                    f"after a time-out of {kind}.{name} it finds nothing to do any more",
                    "keep nothing from one run to the next that a failed one leaves broken; what "
                    "is set at the begin of a run belongs into a finally at its end",
                )
            if not again.runs or again.runs[-1].outcome == "failed":
                error = again.runs[-1].error if again.runs else "it does not run"
                yield Problem(
                    f"after a time-out of {kind}.{name} it does not work again: {error}",
                    "keep nothing from one run to the next that a failed one leaves broken",
                )


def _done(played: Played) -> list[Change]:
    return [change for change in played.changes if change.outcome == "done"]


def vanishing(trial: Trial) -> Iterator[Problem]:
    """While a driver does not answer nothing is changed."""
    for kind in sorted({kind for kind, _, _ in _calls(trial)}):
        with trial.stage(timers=True) as player:
            faults = player.faults[kind]
            faults.vanish()
            played = player.play(seconds=2 * SPACING + 1)
            yield from _after(f"the {kind} does not answer", played, faults, "")
            done = _done(played)
            if done:
                yield Problem(
                    f"while the {kind} does not answer it makes changes: {done[0].kind} of "
                    f"{done[0].target}",
                    UNKNOWN,
                )


def _after(what: str, played: Played, faults: Faults, name: str) -> Iterator[Problem]:
    failed = [call for call in faults.made if call.failed and name in ("", call.name)]
    if not failed:
        return
    if not played.runs:
        yield Problem(
            f"when {what}, its run does not end", "wait for nothing but the driver's call"
        )
    elif not BAD & set(played.outcomes):
        yield Problem(f"when {what}, its run says it is {played.outcomes[0]}", UNKNOWN)
    for run in played.runs:
        if "RecursionError" in run.error or "UnboundLocalError" in run.error:
            yield Problem(f"when {what}, it fails by a mistake of its own: {run.error}", UNKNOWN)


def half_lists(trial: Trial) -> Iterator[Problem]:
    """What is missing from one list is not taken for gone."""
    for kind, name, _ in _calls(trial):
        with trial.stage() as player:
            if not _settled(trial, player):
                continue
            hidden: set[str] = set()
            player.faults[kind].lie(name, functools.partial(_half, hidden=hidden))
            calls = len(trial.changing)
            run = player.run(trial.name)
            named = {change.target for change in run.changes if change.outcome == "done"}
            named |= {
                arg for call in trial.changing[calls:] for arg in call.args if isinstance(arg, str)
            }
            taken = sorted(named & hidden)
            if taken:
                yield Problem(
                    f"what is missing from one answer of {kind}.{name} is changed ({taken[0]})",
                    "ask once more for the one before it is taken for gone, as "
                    "hypervisor.power_state(uuid), which says DomainNotFound",
                )


def bad_rows(trial: Trial) -> Iterator[Problem]:
    """One bad item costs that item, not the pass."""
    for kind, name, _ in _calls(trial):
        with trial.stage() as player:
            usual = player.run(trial.name)
            if usual.outcome == "failed":
                raise NotChecked(f"it fails in the sandbox: {usual.error}")
            spoiled: list[str] = []
            player.faults[kind].lie(name, functools.partial(_spoiled, told=spoiled))
            run = player.run(trial.name)
            if spoiled and run.outcome == "failed":
                yield Problem(
                    f"one item of {kind}.{name} with nothing in {', '.join(spoiled)} ends the "
                    f"whole pass: {run.error}",
                    "context.skip(target, reason) and go on with the next",
                )


def _calls(trial: Trial) -> list[tuple[str, str, bool]]:
    """Return the calls that a usual run makes: kind, name, whether only within the door."""
    asked = len(trial.asked)
    with trial.stage() as player:
        player.run(trial.name)
    calls: dict[tuple[str, str], bool] = {}
    for one in trial.asked[asked:]:
        if one.phase == "run":
            calls[one.kind, one.name] = calls.get((one.kind, one.name), True) and one.in_door
    if not calls:
        raise NotChecked("it asks no driver")
    return sorted((kind, name, in_door) for (kind, name), in_door in calls.items())


def _settled(trial: Trial, player: Player) -> bool:
    """Let it run until there is nothing to change; tell whether that comes about."""
    return any(not player.run(trial.name).changes for _ in range(PASSES))


def _half(truth: Any, hidden: set[str]) -> Any:
    if isinstance(truth, dict) and len(truth) > 1:
        kept = dict(list(truth.items())[::2])
        hidden.update(str(key) for key in truth if key not in kept)
        return kept
    if isinstance(truth, list) and len(truth) > 1:
        hidden.update(str(_uuid(one)) for one in truth[1::2])
        return truth[::2]
    if isinstance(truth, tuple) and any(isinstance(part, list) for part in truth):
        return tuple(_half(part, hidden) for part in truth)
    return truth


def _uuid(item: Any) -> Any:
    return getattr(item, "uuid", getattr(item, "instance_uuid", item))


def _spoiled(truth: Any, told: list[str]) -> Any:
    """Return an answer whose first item has nothing where its type says that that may be."""
    if isinstance(truth, dict) and truth:
        first = next(iter(truth))
        return {**truth, first: _without_values(truth[first], told)}
    if isinstance(truth, list) and truth:
        return [_without_values(truth[0], told), *truth[1:]]
    if isinstance(truth, tuple) and any(isinstance(part, list) for part in truth):
        return tuple(_spoiled(part, told) if isinstance(part, list) else part for part in truth)
    return truth


def _without_values(item: Any, told: list[str]) -> Any:
    """Return a row, a dataclass or a named tuple, without what may be missing from it."""
    types = _types_of_fields(item)
    empty = {
        name: None
        for name, type_ in types.items()
        if "None" in type_ and "uuid" not in name and getattr(item, name) is not None
    }
    told += [name for name in empty if name not in told]
    if not empty:
        return item
    copy: Any = (
        item._replace if hasattr(item, "_replace") else functools.partial(dataclasses.replace, item)
    )
    return copy(**empty)


def _types_of_fields(item: Any) -> dict[str, str]:
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: str(field.type) for field in dataclasses.fields(item)}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return {name: _text(type(item).__annotations__.get(name)) for name in item._fields}
    return {}


def _text(annotation: Any) -> str:
    # Of a named tuple, one that is not evaluated is a forward reference.
    return str(getattr(annotation, "__forward_arg__", annotation))
