# SPDX-License-Identifier: Apache-2.0
"""Verifying the journal: whether every record is as it was sealed, in bounded memory."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cepheid.journal import seals
from cepheid.journal.seals import RECORDS, Head
from cepheid.journal.store import Store

#: What a record of each table is called.
NAMES = {"runs": "run", "changes": "change", "pauses": "pause", "anchor": "anchor"}


@dataclass(frozen=True)
class Flaw:
    """A record that is not as it was sealed.

    :param place: the id of the seal that shows it; infinite where the record has no seal
    """

    place: float
    message: str


@dataclass
class Verdict:
    """What verifying has found.

    :param anchor: where the chain begins
    :param head: its newest seal; the journal is intact up to there if there is no flaw
    :param seals: how many seals were followed
    :param records: how many records were compared
    :param expected: whether the seal that was asked for is in the chain; None where none was asked
        for, or it is from before the anchor, so that nothing can be said
    """

    anchor: Head
    head: Head
    seals: int = 0
    records: int = 0
    expected: bool | None = None
    #: The first flaw of each kind, in the order of their places.
    flaws: list[Flaw] = field(default_factory=list)


def verify(store: Store, expect: Head | None = None) -> Verdict:
    """Verify the whole journal as it is now.

    :param expect: a seal that was noted earlier and must be in the chain still
    """
    with store.snapshot():
        (row,) = store.rows("SELECT seal_id, hash FROM anchor")
        anchor = Head(*row)
        verdict = Verdict(anchor, seals.head(store.connection))
        flaws = [_broken_link(store, verdict, expect)]
        for table in RECORDS:
            flaws.append(_differing_record(store, table, verdict))
            flaws.append(_missing_record(store, table))
    verdict.flaws = sorted((f for f in flaws if f is not None), key=lambda flaw: flaw.place)
    return verdict


def _broken_link(store: Store, verdict: Verdict, expect: Head | None) -> Flaw | None:
    """Follow the chain; return where it breaks."""
    previous = verdict.anchor
    if expect is not None:
        verdict.expected = None if expect.id < previous.id else expect == previous
    for place, table, record_id, at, digest, hashed in store.stream(
        "SELECT id, record, record_id, at, digest, hash FROM seals ORDER BY id"
    ):
        wanted = seals.link(previous.hash, place, table, record_id, at, digest)
        if place != previous.id + 1 or hashed != wanted:
            return Flaw(
                place,
                f"the chain breaks at seal {place}, that of {NAMES.get(table, table)} {record_id} "
                f"at {_time(at)}: it was edited, or what was sealed before it was removed",
            )
        previous = Head(place, hashed)
        verdict.seals += 1
        if expect is not None and expect.id == place:
            verdict.expected = expect == previous
    return None


def _differing_record(store: Store, table: str, verdict: Verdict) -> Flaw | None:
    """Return the first record, in the order of seals, that is not what its newest seal says."""
    columns = ", ".join(f"t.{column}" for column in RECORDS[table])
    first: Flaw | None = None
    for row in store.stream(
        f"SELECT {columns}, t.seal AS seal, s.digest AS digest"
        f" FROM {table} t LEFT JOIN seals s"
        f" ON s.id = t.seal AND s.record = '{table}' AND s.record_id = t.id"
    ):
        verdict.records += 1
        if row["digest"] == seals.digest_of(table, row):
            continue
        if table == "anchor":
            flaw = Flaw(0, "the anchor was edited: what came before it was not removed by Cepheid")
        elif row["digest"] is None:
            flaw = Flaw(float("inf"), f"{_name(table, row)} was put in: it has no seal of its own")
        else:
            flaw = Flaw(row["seal"], f"{_name(table, row)} was edited after it was sealed")
        if first is None or flaw.place < first.place:
            first = flaw
    return first


def _missing_record(store: Store, table: str) -> Flaw | None:
    """Return the first seal whose record is gone, or was set back to an earlier state."""
    for place, record_id, at, seal in store.stream(
        "SELECT s.id, s.record_id, s.at, t.seal"
        f" FROM seals s LEFT JOIN {table} t ON t.id = s.record_id"
        f" WHERE s.record = '{table}' AND (t.id IS NULL OR t.seal IS NULL OR t.seal < s.id)"
        " ORDER BY s.id LIMIT 1"
    ):
        name = f"{NAMES[table]} {record_id}"
        if seal is None:
            return Flaw(place, f"{name}, sealed at {_time(at)}, was removed")
        return Flaw(place, f"{name} was set back to what it was before {_time(at)}")
    return None


def _name(table: str, row: object) -> str:
    record = dict(row)  # type: ignore[call-overload]
    told = {
        "runs": "{name} {id} ({task}, {started_at:.19})",
        "changes": "{name} {id} of run {run_id} ({kind} of {target})",
        "pauses": "{name} {id} ({action}, {at:.19})",
    }
    return told[table].format(name=NAMES[table], **record)


def _time(at: int) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
