"""Faults to plant in the engine, one at a time: a harness that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from orchestrator.engine import (
    acting,
    attempts,
    committing,
    dag_executor,
    deciding,
    draft,
    ending,
    inquiry,
    one_at_a_time,
    pace,
    resolve,
    status,
    ticker,
    witness,
)
from orchestrator.engine.address import Completion
from orchestrator.engine.run_box import Answer
from orchestrator.engine.sweep import Chores
from orchestrator.model.commands import Cancel, Execution, Launch
from orchestrator.model.enums import TaskStatus


def _put_without_precondition() -> Any:
    def save(self: Any, state: Any, *, expect: Any, **_: Any) -> Any:
        self._store.get(self.key)
        document = self._encoder.encode(state)
        held = self._store._bucket.held.get(self.key)
        return self._store.put(self.key, document, expect=held[1] if held else None)

    return patch.object(status.OrchestrationStatus, "save", save)


def _launch_before_the_save() -> Any:
    real_init, real_decide_on = dag_executor.DAGExecutor.__init__, deciding.Decider.decide_on
    real_save = committing.Committer._save

    def init(self: Any, *args: Any, **options: Any) -> None:
        real_init(self, *args, **options)
        self._committer.actor = self._actor

    def decide_on(self: Any, box: Any, batch: Any, state: Any, token: Any) -> Any:
        found = real_decide_on(self, box, batch, state, token)
        box.status.to_launch = [(box, command) for command in found[0].commands if isinstance(command, Launch)]
        return found

    def save(self: Any, of: Any, *what: Any) -> Any:
        for box, launch in of.to_launch:
            self.actor._launch(box, launch)
        return real_save(self, of, *what)

    return _both(
        patch.object(dag_executor.DAGExecutor, "__init__", init),
        _both(
            patch.object(deciding.Decider, "decide_on", decide_on), patch.object(committing.Committer, "_save", save)
        ),
    )


def _every_waiter_launches() -> Any:
    real = committing.Committer.commit

    def commit(self: Any, box: Any, batch: Any) -> Any:
        commands, results = real(self, box, batch)
        return commands * len(results), results

    return patch.object(committing.Committer, "commit", commit)


def _takeover_without_a_save() -> Any:
    real = inquiry.Inquiry.facts

    def facts(self: Any, work: Chores, state: Any, box: Any) -> Any:
        for node in work.takeovers:
            bare = self._witness.bare(state, node)
            self._actor._launch(box, replace(bare, recover=True, lease_end=None))
        return real(self, replace_chores(work, takeovers=()), state, box)

    return patch.object(inquiry.Inquiry, "facts", facts)


def replace_chores(work: Chores, **changes: Any) -> Chores:
    """A copy with other parts."""
    parts = ("cancels", "withdrawals", "takeovers", "questions", "due")
    return Chores(**{**{part: getattr(work, part) for part in parts}, **changes})


def _no_lease_fence() -> Any:
    return patch.object(acting.Actor, "_latest_start", lambda self, launch: None)


def _outcome_of_the_events_job() -> Any:
    real = witness.Witness._asked

    def asked(self: Any, entry: Any, node: Any, state: Any, box: Any) -> Answer:
        item = entry.item
        target = self._targets.get(node.target_key)
        if isinstance(item, Completion) and item.event.execution_id and target is not None and target.has_outcome:
            execution = Execution(item.event.execution_id)
            return Answer(execution, target.outcome(execution), True)
        return real(self, entry, node, state, box)

    return patch.object(witness.Witness, "_asked", asked)


def _nonce_not_compared() -> Any:
    return patch.object(witness, "_is_proof", lambda event, claim, launch_id: True)


def _bound_by_takeover_and_never_asked() -> Any:
    real = ticker.chores

    def chores(*args: Any) -> Chores:
        work = real(*args)
        asked = tuple(node for node in work.questions if node.claim is None or not node.claim.takeovers)
        due = tuple(each for each in work.due if each[0].claim is None or not each[0].claim.takeovers)
        return replace_chores(work, questions=asked, due=due)

    return patch.object(ticker, "chores", chores)


def _cancels_not_owed() -> Any:
    def owe_cancel(d: Any, node: Any, owed: Any) -> None:
        d.commands.append(Cancel(draft.bare_launch(d.dag, d.info, node), node.execution_id))
        ending.end(d, node, owed.ends_as, error=owed.error)

    return patch.object(attempts, "owe_cancel", owe_cancel)


def _token_ignored_after_503() -> Any:
    return patch.object(committing, "_applied_after_all", lambda tried, state: ())


def _siblings_ends_not_awaited() -> Any:
    real = ending._branch_ended

    def branch_ended(d: Any, parent: Any, branch: Any, member: str, stopped_at: Any) -> Any:
        state = real(d, parent, branch, member, stopped_at)
        if stopped_at is not None and stopped_at.status is TaskStatus.FAILED:
            state = replace(state, open_branches=0)
            d.put(state)
        return state

    return patch.object(ending, "_branch_ended", branch_ended)


def _attempt_not_compared() -> Any:
    def current(self: Any, node_name: str, attempt: int) -> Any:
        node = self.nodes.get(node_name)
        return node if node is not None and node.status is TaskStatus.RUNNING else None

    def running(state: Any, node_name: str, attempt: int) -> Any:
        return current(state, node_name, attempt)

    return _both(patch.object(draft.Draft, "current", current), patch.object(witness, "_running", running))


def _early_reminder_dropped() -> Any:
    real = witness.Witness._reminder

    def reminder(self: Any, entry: Any, item: Any, state: Any, box: Any) -> Any:
        if item.at is not None and self._clock.now() < item.at:
            return [], []
        return real(self, entry, item, state, box)

    return patch.object(witness.Witness, "_reminder", reminder)


def _start_without_message_id() -> Any:
    real = resolve.Resolver.resolve

    def resolved(self: Any, data: Any, message_id: Any, publish_time: Any, now: Any) -> Any:
        return real(self, data, None, publish_time, now)

    return patch.object(resolve.Resolver, "resolve", resolved)


def _hung_tick_keeps_all_out() -> Any:
    real = one_at_a_time.OneAtATime.__init__
    return patch.object(one_at_a_time.OneAtATime, "__init__", lambda self, _: real(self, 1e9))


def _redrive_marked_once() -> Any:
    return patch.object(committing.Committer, "_mark_again", lambda self, run: None)


def _crowd_is_none() -> Any:
    return patch.object(pace.Pace, "is_crowded", lambda self, now_s: False)


@contextmanager
def _both(*patches: Any) -> Iterator[None]:
    with patches[0], patches[1]:
        yield


PLANTED: Mapping[str, tuple[Callable[[], Any], int]] = {
    "put without precondition": (_put_without_precondition, 0),
    "launch before the save": (_launch_before_the_save, 0),
    "every waiter of a group commit launches": (_every_waiter_launches, 6),
    "takeover without a save": (_takeover_without_a_save, 1),
    "no lease fence": (_no_lease_fence, 6),
    "outcome asked of the event's job id": (_outcome_of_the_events_job, 22),
    "nonce not compared": (_nonce_not_compared, 50),
    "bind by takeover without asking the outcome": (_bound_by_takeover_and_never_asked, 1),
    "cancels not owed": (_cancels_not_owed, 40),
    "a claim's token ignored after 503": (_token_ignored_after_503, 2),
    "siblings' ends not awaited": (_siblings_ends_not_awaited, 3),
    "attempt number not compared": (_attempt_not_compared, 63),
    "reminder dropped when early": (_early_reminder_dropped, 4),
    "start without message id": (_start_without_message_id, 5),
    "a Tick that hangs keeps all others out": (_hung_tick_keeps_all_out, 6),
    "a redrive is marked once": (_redrive_marked_once, 37),
    "saves of a crowd in a row": (_crowd_is_none, 19),
}
"""What is wrong -> what makes it so, while one is in it; and the first seed that found it when last looked for."""
