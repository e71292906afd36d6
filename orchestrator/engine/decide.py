"""Decide what follows from what happened: (run, facts) -> (run, commands).

Pure: no clock, network, randomness or logging. The executor calls this between loading and saving a
run, and again when the save loses a race, so equal inputs give equal answers. It is idempotent: a fact
that was applied before, or that no longer applies, changes nothing and yields no command.

How a run moves: a node that starts claims an attempt for each Task that it starts. A Task that
completes starts what is `next`; one that fails, or that nothing follows, ends its branch; the last
branch to end ends its Parallel, which goes on in the same way; the outermost branch ends the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine.scope import scope_of
from orchestrator.model.commands import EMPTY, Cancel, Command, Failure, Json, Launch, Remind, Withdraw
from orchestrator.model.dag import DAG
from orchestrator.model.enums import DueKind, OutcomeKind, RunStatus, TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    CancelSettled,
    ClaimExpired,
    Fact,
    LaunchBound,
    LaunchFailed,
    RunStarted,
    TimeCame,
)
from orchestrator.model.ids import launch_id_of, nonce_of, trace_of
from orchestrator.model.nodes import Graph, Node, Parallel, Task
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import (
    FORMAT,
    BranchState,
    Claim,
    NodeState,
    OwedCancel,
    RunInfo,
    RunState,
)

_NO_TIMES: Mapping[str, datetime] = {}


@dataclass(frozen=True, slots=True)
class Token:
    """What makes the claims of one save its own; minted by the shell for every try at a save.

    owner: `<instance>.<16 hex>`, unique to the save.
    seed: 32 random bytes, from which the nonces of its launches come.
    """

    owner: str
    seed: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """The run as it is to be saved (the same object if nothing changed) and what to do then."""

    state: RunState | None
    commands: tuple[Command, ...]
    changed: bool


def decide(
    dag: DAG, state: RunState | None, facts: Sequence[Fact], now: datetime, token: Token, policy: Policy
) -> Decision:
    """Return what the run becomes by `facts`, and the commands that the save of it entitles to.

    Args:
        dag: of the run's own definition.
        state: as loaded; None if there is no such run, which only RunStarted changes.
        facts: in any order but for a RunStarted, which comes first.
        now: aware UTC; times in the document and leases come from it.
        token: owner and nonces of the claims that are made.
        policy: times and limits.
    """
    draft = _Draft(dag, state, now, token, policy)
    for fact in facts:
        _APPLY[type(fact)](draft, fact)
    return draft.decision()


class _Draft:
    """A run under decision; the only thing here that changes, and it never leaves `decide`."""

    def __init__(self, dag: DAG, state: RunState | None, now: datetime, token: Token, policy: Policy) -> None:
        self.dag, self.now, self.token, self.policy = dag, now, token, policy
        self.before = state
        self.run: RunInfo | None = state.run if state else None
        self.nodes: Mapping[str, NodeState] = state.nodes if state else {}
        self.own: dict[str, NodeState] | None = None
        self.commands: list[Command] = []

    def decision(self) -> Decision:
        if self.run is None or self.own is None:
            return Decision(self.before, (), False)
        return Decision(RunState(self.run, self.own), tuple(self.commands), True)

    def put(self, node: NodeState) -> None:
        if self.own is None:
            self.nodes = self.own = dict(self.nodes)
        self.own[node.node_name] = node

    def change_run(self, run: RunInfo) -> None:
        self.run = run
        if self.own is None:
            self.nodes = self.own = dict(self.nodes)

    def current(self, node_name: str, attempt: int) -> NodeState | None:
        """The node, if this attempt of it is the one that is Running."""
        node = self.nodes.get(node_name)
        if node is None or node.status is not TaskStatus.RUNNING or node.attempt != attempt or not attempt:
            return None
        return node

    @property
    def is_cancelling(self) -> bool:
        return self.run is not None and self.run.cancel_reason is not None

    # -- what facts do ------------------------------------------------------------------------------

    def run_started(self, fact: RunStarted) -> None:
        if self.run is not None:
            return
        self.run = RunInfo(
            format=FORMAT,
            run_id=fact.run_id,
            dag=fact.dag,
            definition=fact.definition,
            status=RunStatus.RUNNING,
            input=fact.input,
            message_id=fact.message_id,
            scheduled_for=fact.scheduled_for,
            started_at=self.now,
        )
        self.nodes = self.own = {node.node_name: _new_state(node) for node in self.dag.all_nodes}
        self.enter(self.dag.start_node)

    def attempt_ended(self, fact: AttemptEnded) -> None:
        node = self.current(fact.node_name, fact.attempt)
        if node is None:
            return
        if fact.execution_id is not None:
            node = replace(node, execution_id=fact.execution_id)
        outcome = fact.outcome
        if node.owed_cancel is not None:
            self.settle(node)
        elif outcome.kind is OutcomeKind.COMPLETED:
            self.end(node, TaskStatus.COMPLETED, result=outcome.result)
        elif outcome.kind is OutcomeKind.LOST and not self.is_cancelling:
            self.claim(node)  # the attempt is gone with its host: the next one
        elif outcome.kind is OutcomeKind.FAILED:
            self.end(node, TaskStatus.FAILED, error=outcome.error)
        else:
            self.end(node, TaskStatus.CANCELLED, error=outcome.error)

    def launch_failed(self, fact: LaunchFailed) -> None:
        node = self.current(fact.node_name, fact.attempt)
        if node is None or node.claim is None or node.claim.owner != fact.owner:
            return
        if node.owed_cancel is not None:
            self.settle(node)
        else:
            self.end(node, TaskStatus.FAILED, error=fact.error)

    def launch_bound(self, fact: LaunchBound) -> None:
        node = self.current(fact.node_name, fact.attempt)
        if node is None or node.claim is None or node.claim.owner != fact.owner or node.execution_id:
            return
        due, task = node.due, self.task(node)
        if self.policy.rules(task.target_key).synchronous and not due:
            # The call that would have answered is gone, and with it the deadline that was its timeout.
            limit_s = self.policy.default_timeout_s if task.timeout_s is None else task.timeout_s
            due = {DueKind.TIMEOUT.value: self.now + timedelta(seconds=limit_s)}
        self.put(replace(node, execution_id=fact.execution_id, due=due))

    def claim_expired(self, fact: ClaimExpired) -> None:
        node = self.current(fact.node_name, fact.attempt)
        if node is None or node.claim is None or node.claim.owner != fact.owner:
            return
        if node.execution_id or node.owed_cancel:
            return
        if self.is_cancelling:  # nothing is launched any more; what may have been launched is looked for
            self.owe_cancel_of_run(node)
            return
        if node.claim.takeovers >= self.policy.max_takeovers:
            self.give_up(
                node,
                Failure(
                    "Launch.Uncertain",
                    f"{node.node_name}: no launch of attempt {node.attempt} was ever answered, "
                    f"in {node.claim.takeovers + 1} tries",
                ),
            )
            return
        task = self.task(node)
        timeout_s = self.policy.timeout_s(task.target_key, task.timeout_s)
        timeout_at = node.due.get(DueKind.TIMEOUT.value)
        if node.claim.takeovers and timeout_at is not None and timeout_at <= self.now:
            self.time_is_up(node, timeout_s)
            return
        claim = Claim(
            self.token.owner,
            self.now + self.policy.lease(task.target_key),
            node.claim.nonce,
            node.claim.takeovers + 1,
            node.claim.trace,
        )
        due = node.due
        if timeout_s is not None and node.claim.takeovers == 0:
            # What the timeout is to limit starts only now. Once: else a launch that nobody ever
            # answers would be put off for ever.
            due = {**due, DueKind.TIMEOUT.value: self.now + timedelta(seconds=timeout_s)}
        try:
            launch = self.launch_of(task, node, node.attempt, claim, recover=True)
        except ExpressionError as exc:
            self.end(node, TaskStatus.FAILED, error=Failure("Task.BadParameters", str(exc)))
            return
        self.put(replace(node, claim=claim, due=due))
        self.commands.append(launch)

    def time_came(self, fact: TimeCame) -> None:
        node = self.current(fact.node_name, fact.attempt)
        if node is None or node.owed_cancel is not None or node.due.get(fact.kind) != fact.at:
            return
        if fact.kind == DueKind.QUESTION:
            self.ask_again(node, fact.at)
            return
        task = self.task(node)
        timeout_s = self.policy.timeout_s(task.target_key, task.timeout_s) or 0.0
        if not fact.is_bound and node.claim is not None:
            # The launch may come as late as the lease's end, and is due its time from then on. After a
            # takeover it has had that, and is only not to come after the end of its node.
            is_first = node.claim.takeovers == 0
            wait_s = timeout_s if is_first else self.policy.clock_allowance_s
            later = node.claim.lease_end + timedelta(seconds=wait_s)
            if later > (fact.at if is_first else max(fact.at, self.now)):
                self.put(replace(node, due={**node.due, fact.kind: later}))
                self.remind(node, fact.kind, later)
                return
        self.time_is_up(node, timeout_s)

    def ask_again(self, node: NodeState, at: datetime) -> None:
        """The question that was due at `at` found no end: the next comes twice as late after the claim.

        It stands in the node, so that a question delivered twice breeds one more and not two. Where the wait would
        be too long there is no next one; the Tick goes on asking.
        """
        first = timedelta(seconds=self.policy.rules(node.target_key).first_question_s)
        claimed_at = node.claim.lease_end - self.policy.lease(node.target_key) if node.claim else at
        wait = max(first, at - claimed_at)
        due = {kind: time for kind, time in node.due.items() if kind != DueKind.QUESTION}
        if wait <= timedelta(seconds=self.policy.last_question_wait_s):
            due[DueKind.QUESTION.value] = max(at + wait, self.now + first)
            self.remind(node, DueKind.QUESTION.value, due[DueKind.QUESTION.value])
        self.put(replace(node, due=due))

    def cancel_requested(self, fact: CancelRequested) -> None:
        if self.run is None or self.run.status.is_final or self.is_cancelling:
            return
        self.change_run(replace(self.run, cancel_reason=fact.reason))
        for node in tuple(self.nodes.values()):
            if node.status is not TaskStatus.RUNNING or not node.attempt or node.owed_cancel:
                continue
            if self.policy.rules(node.target_key).can_cancel:
                self.owe_cancel_of_run(node)
            else:
                self.commands.append(Withdraw(bare_launch(self.dag, self.info, node)))

    def cancel_settled(self, fact: CancelSettled) -> None:
        node = self.current(fact.node_name, fact.attempt)
        if node is not None and node.owed_cancel is not None:
            self.settle(node)

    # -- how nodes start ----------------------------------------------------------------------------

    def enter(self, node: Node) -> None:
        """Start a node that is New; one that was entered before is never entered twice."""
        if self.nodes[node.node_name].status is not TaskStatus.NEW:
            return
        launches = node.execute()
        for launch in launches:
            self.open_around(self.dag.by_name[launch.node_name])
        for launch in launches:
            state = self.nodes[launch.node_name]
            self.claim(replace(state, started_at=self.now))

    def open_around(self, node: Node) -> None:
        """Mark the Parallels around a node that starts, outwards to the first that runs already."""
        parent = node.parent_dag.parent_node
        while parent is not None and self.nodes[parent.node_name].status is TaskStatus.NEW:
            state = self.nodes[parent.node_name]
            self.put(
                replace(
                    state,
                    status=TaskStatus.RUNNING,
                    open_branches=len(parent.branches),
                    started_at=self.now,
                )
            )
            parent = parent.parent_dag.parent_node

    def claim(self, node: NodeState) -> None:
        """Claim the node's next attempt and have it launched, or fail it where it has no parameters."""
        self.withdraw(node)
        task = self.task(node)
        attempt = node.attempt + 1
        launch_id = launch_id_of(self.info.run_id, node.node_name, attempt)
        nonce, key = nonce_of(self.token.seed, launch_id), self.policy.trace_key.value
        claim = Claim(
            self.token.owner,
            self.now + self.policy.lease(task.target_key),
            nonce,
            trace=trace_of(launch_id, nonce, key) if key else "",
        )
        try:
            launch = self.launch_of(task, node, attempt, claim)
        except ExpressionError as exc:
            node = replace(node, attempt=attempt)
            self.end(node, TaskStatus.FAILED, error=Failure("Task.BadParameters", str(exc)))
            return
        timeout_s = self.policy.timeout_s(task.target_key, task.timeout_s)
        question_s = self.policy.rules(task.target_key).first_question_s
        due = _NO_TIMES
        if timeout_s is not None:
            at = self.now + timedelta(seconds=timeout_s)
            due = {DueKind.TIMEOUT.value: at}
        if question_s:
            due = {**due, DueKind.QUESTION.value: self.now + timedelta(seconds=question_s)}
        node = replace(
            node,
            status=TaskStatus.RUNNING,
            attempt=attempt,
            execution_id=None,
            claim=claim,
            due=due,
        )
        self.put(node)
        self.commands.append(launch)
        if timeout_s is not None and task.timeout_s is not None:
            self.remind(node, DueKind.TIMEOUT.value, at)  # a default one is left to the Tick
        if question_s:
            self.remind(node, DueKind.QUESTION.value, due[DueKind.QUESTION.value])

    def launch_of(self, task: Task, node: NodeState, attempt: int, claim: Claim, *, recover: bool = False) -> Launch:
        (bare,) = task.execute()
        parameters: Json = task.parameters
        if not task.template.is_constant:
            parameters = task.template.resolve(scope_of(self.info, self.nodes))
        return Launch(
            bare.node_name,
            bare.target_type,
            bare.target_name,
            parameters if isinstance(parameters, dict) else EMPTY,
            bare.step,
            self.info.dag,
            self.info.run_id,
            attempt,
            claim.nonce,
            claim.owner,
            claim.lease_end,
            recover,
            trace=claim.trace,
            started_at=node.started_at,
        )

    # -- how nodes end ------------------------------------------------------------------------------

    def end(self, node: NodeState, status: TaskStatus, *, result: Json = None, error: Failure | None = None) -> None:
        """Write a node's end and go on from it."""
        self.withdraw(node)
        self.put(
            replace(
                node,
                status=status,
                claim=None,
                due=_NO_TIMES,
                owed_cancel=None,
                open_branches=0,
                ended_at=self.now,
                result=result,
                error=error,
            )
        )
        place = self.dag.by_name[node.node_name]
        if status is TaskStatus.COMPLETED and place.next is not None and not self.is_cancelling:
            self.enter(self.dag.by_name[place.next])
        else:
            self.branch_ended(place.parent_dag)

    def branch_ended(self, graph: Graph) -> None:
        """Nothing in this branch will start any more."""
        parent = graph.parent_node
        if parent is None:
            self.end_run()
            return
        state = self.nodes[parent.node_name]
        if state.open_branches > 1:
            self.put(replace(state, open_branches=state.open_branches - 1))
            return
        status, error = self.sum_up(parent)
        self.end(state, status, error=error)

    def sum_up(self, parallel: Parallel) -> tuple[TaskStatus, Failure | None]:
        """Status and error of a Parallel whose branches have ended; the first in definition order."""
        stopped = [node for branch in parallel.branches if (node := self.stopped_at(branch)) is not None]
        for status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            for node in stopped:
                if node.status is status:
                    return status, _with_node(node)
        return (TaskStatus.CANCELLED, None) if stopped else (TaskStatus.COMPLETED, None)

    def stopped_at(self, graph: Graph) -> NodeState | None:
        """The node at which an ended branch stopped short of its end, if it did."""
        for place in graph.chain():
            node = self.nodes[place.node_name]
            if node.status is not TaskStatus.COMPLETED:
                return node
        return None

    def end_run(self) -> None:
        stopped = self.stopped_at(self.dag)
        if stopped is None:
            status, error = RunStatus.COMPLETED, None
        elif stopped.status is TaskStatus.FAILED:
            status, error = RunStatus.FAILED, _with_node(stopped)
        else:
            status = RunStatus.CANCELLED if self.is_cancelling else RunStatus.FAILED
            error = _with_node(stopped) or Failure("Run.Cancelled", self.info.cancel_reason or "")
        for node in tuple(self.nodes.values()):
            if node.status is TaskStatus.NEW:
                self.put(replace(node, status=TaskStatus.SKIPPED))
        self.change_run(replace(self.info, status=status, error=error, ended_at=self.now))

    def withdraw(self, node: NodeState) -> None:
        """Take back the launch of an attempt that this very save claims, and now is dead."""
        if node.claim is not None and node.claim.owner == self.token.owner:
            self.commands = [x for x in self.commands if not (isinstance(x, Launch) and x.node_name == node.node_name)]

    def time_is_up(self, node: NodeState, timeout_s: float | None) -> None:
        """Give up an attempt that took too long."""
        self.give_up(node, Failure("Task.Timeout", f"{node.node_name}: no end within {timeout_s or 0.0:g} s"))

    def give_up(self, node: NodeState, error: Failure) -> None:
        """Fail an attempt that may still be running: first it has to be cancelled, where it can be."""
        if self.policy.rules(node.target_key).can_cancel:
            self.owe_cancel(node, OwedCancel(TaskStatus.FAILED, error))
        else:
            self.end(node, TaskStatus.FAILED, error=error)

    def owe_cancel(self, node: NodeState, owed: OwedCancel) -> None:
        node = replace(node, owed_cancel=owed, due=_NO_TIMES)
        self.put(node)
        self.commands.append(Cancel(bare_launch(self.dag, self.info, node), node.execution_id))

    def owe_cancel_of_run(self, node: NodeState) -> None:
        reason = self.info.cancel_reason or ""
        self.owe_cancel(node, OwedCancel(TaskStatus.CANCELLED, Failure("Run.Cancelled", reason)))

    def settle(self, node: NodeState) -> None:
        """The cancel is settled: the node ends as was owed."""
        owed = node.owed_cancel
        if owed is not None:
            self.end(node, owed.ends_as, error=owed.error)

    # -- small words --------------------------------------------------------------------------------

    @property
    def info(self) -> RunInfo:
        if self.run is None:
            raise LookupError("there is no run to decide on")
        return self.run

    def task(self, node: NodeState) -> Task:
        place = self.dag.by_name[node.node_name]
        if not isinstance(place, Task):
            raise LookupError(f"{node.node_name}: has an attempt but is no Task")
        return place

    def remind(self, node: NodeState, kind: str, at: datetime) -> None:
        self.commands.append(Remind(self.info.run_id, node.node_name, node.attempt, kind, at))


def bare_launch(dag: DAG, run: RunInfo, node: NodeState) -> Launch:
    """Return the launch of a node's current attempt as far as `find` and `cancel` need it: no parameters."""
    place = dag.by_name.get(node.node_name)
    return Launch(
        node.node_name,
        node.target_type or "",
        node.target_name or "",
        step=place.execute()[0].step if isinstance(place, Task) else EMPTY,
        dag=run.dag,
        run_id=run.run_id,
        attempt=node.attempt,
        nonce=node.claim.nonce if node.claim else "",
        owner=node.claim.owner if node.claim else "",
        lease_end=node.claim.lease_end if node.claim else None,
        trace=node.claim.trace if node.claim else "",
        started_at=node.started_at,
    )


def _new_state(node: Node) -> NodeState:
    return NodeState(
        node_name=node.node_name,
        node_type=node.node_type,
        next=node.next,
        target_type=node.target_type.value if isinstance(node, Task) else None,
        target_name=node.target_name if isinstance(node, Task) else None,
        invocation="sync" if isinstance(node, Task) and node.target_key.endswith(".sync") else None,
        branches=tuple(BranchState(branch.start_node.node_name) for branch in node.branches)
        if isinstance(node, Parallel)
        else (),
        status=TaskStatus.NEW,
    )


def _with_node(node: NodeState) -> Failure | None:
    """A node's error, naming the Task that it began with."""
    if node.error is None or node.error.node is not None:
        return node.error
    return replace(node.error, node=node.node_name)


_APPLY: Mapping[type, Callable[..., None]] = {
    RunStarted: _Draft.run_started,
    AttemptEnded: _Draft.attempt_ended,
    LaunchFailed: _Draft.launch_failed,
    LaunchBound: _Draft.launch_bound,
    ClaimExpired: _Draft.claim_expired,
    TimeCame: _Draft.time_came,
    CancelRequested: _Draft.cancel_requested,
    CancelSettled: _Draft.cancel_settled,
}
