# SPDX-License-Identifier: Apache-2.0
"""Progress: what is done never goes back, and is never more than there is to do."""

import cepheid
from cepheid import progress
from cepheid.periodic_task import periodic_task


class WorkThrough(cepheid.Task):
    """Go through things as a test wants it."""

    work = None

    @periodic_task
    def work_through(self, context):
        self.work(context)


def run(agent, work):
    task = agent.build(WorkThrough)
    task.work = work
    return agent.run(task)


def test_each_item_is_done_when_the_next_is_asked_for(agent, reports):
    def work(context):
        for number, _ in enumerate(progress.each("abc")):
            assert context.run.progress == (number, 3)

    assert run(agent, work).progress == (3, 3)
    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_one_thing_after_another_is_added_up(agent, reports):
    def work(context):
        list(progress.each("ab"))
        list(progress.each(""))
        list(progress.each("c"))

    run(agent, work)
    assert reports == [(0, 2), (1, 2), (2, 2), (2, 3), (3, 3)]


def test_who_stops_half_way_has_not_done_it_all(agent):
    def work(context):
        for item in progress.each("abc"):
            if item == "b":
                break
        list(progress.each("d"))

    assert run(agent, work).progress == (2, 4)


def test_more_than_there_was_is_no_more_than_all(agent):
    assert run(agent, lambda context: progress.Steps(2).done(5)).progress == (2, 2)


def test_where_the_total_is_not_known_it_stays_so(agent):
    def work(context):
        context.progress(7)
        list(progress.each("ab"))

    assert run(agent, work).progress == (9, None)


def test_a_run_that_has_ended_is_told_of_nothing_any_more(agent, reports):
    ended = run(agent, lambda context: list(progress.each("ab")))
    reports.clear()
    assert list(progress.each("abc")) == ["a", "b", "c"]
    assert (reports, ended.progress) == ([], (2, 2))
