"""Draft: a run under decision, and the small words that all parts of the decision share. Pure.

    decide -> joining, starting -> stopping -> attempts -> claims -> ending -> draft

`decide` applies facts, `starting` starts nodes by their type, `claims` has Tasks launched, `attempts` follows them and
gives them up, `stopping` does so with all that runs somewhere, `ending` writes ends and says what follows, `joining`
does so where steps depend on others. What is to start next waits in the draft, so that none of them calls upwards.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from orchestrator.engine.scope import scope_of, scope_of_item
from orchestrator.model.commands import EMPTY, Command, Failure, Launch, Remind
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus, Triggers
from orchestrator.model.ids import beside
from orchestrator.model.node_state import BranchState, NodeState
from orchestrator.model.nodes import Graph, Map, Node, Parallel, Task
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import Held, RunInfo, RunState

if TYPE_CHECKING:
    from orchestrator.model.overlay import Overlay

LARGE = 1024
"""From so many nodes on, a decision does not copy them all."""
NO_TIMES: Mapping[str, datetime] = {}


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
    """The run as it is to be saved (the same object if nothing changed) and what to do then.

    Attributes:
        touched: names of the nodes that may differ from the run that was decided on, in the order in which they came
            to; None where all may.
    """

    state: RunState | None
    commands: tuple[Command, ...]
    changed: bool
    touched: tuple[str, ...] | None = ()

    def followed_by(self, other: "Decision") -> "Decision":
        """Return both as one, where the other was made of what came of this one."""
        touched = None
        if self.touched is not None and other.touched is not None:
            touched = tuple(dict.fromkeys(self.touched + other.touched))
        return Decision(other.state, self.commands + other.commands, self.changed or other.changed, touched)

    def of(self, before: RunState | None) -> "Decision":
        """Return it as one on another run than that which it was made of."""
        if before is None or self.state is None or self.touched is None:
            return self
        nodes = self.state.nodes
        differ = (name for name, node in nodes.items() if before.nodes.get(name) is not node)
        return Decision(self.state, self.commands, self.changed, tuple(dict.fromkeys((*self.touched, *differ))))


@dataclass(frozen=True, slots=True)
class Progress:
    """The steps of a graph that have not ended, and those that have not completed: Failed or Cancelled, and Skipped."""

    open: set[str]
    failed: set[str]
    skipped: set[str]


class Draft:
    """The only thing that changes in a decision, and it never leaves one.

    Attributes:
        run, nodes: the run as it is by now; `run` is None before it has started.
        commands: what its save entitles to.
        entering: entries that are to start, in their order, and each one's `caught`.
        going_on: items of Maps that a redrive lets go on, whose turn has come.
        stopping: Parallels in which everything is to be stopped (None: the whole run), and why.
        joining: graphs in which steps depend on others (and which instance of each) -> their steps that have ended, and
            whose followers have not been looked at.
        progress: of those that were looked at, how their steps stood then.
    """

    def __init__(self, dag: DAG, state: RunState | None, now: datetime, token: Token, policy: Policy) -> None:
        self.dag, self.now, self.token, self.policy = dag, now, token, policy
        self._before = state
        self.run: RunInfo | None = state.run if state else None
        self.nodes: Mapping[str, NodeState] = state.nodes if state else {}
        self._own: Overlay | dict[str, NodeState] | None = None
        self._touched: dict[str, None] | None = {}
        self.commands: list[Command] = []
        self.entering = deque[tuple[str, str | None]]()
        self.stopping = deque[tuple[str | None, Failure]]()
        self.going_on = deque[str]()
        self.joining: dict[tuple[Graph, str], list[str]] = {}
        self.progress: dict[tuple[Graph, str], Progress] = {}

    def decision(self) -> Decision:
        """What has come of it."""
        if self.run is None or self._own is None:
            return Decision(self._before, (), False)
        touched = tuple(self._touched) if self._touched is not None else None
        return Decision(RunState(self.run, self._own), tuple(self.commands), True, touched)

    @property
    def info(self) -> RunInfo:
        """The run, which has started."""
        if self.run is None:
            raise LookupError("there is no run to decide on")
        return self.run

    def parent_of(self, node_name: str) -> NodeState | None:
        """The entry of the Parallel or Item around an entry, or of an Item's Map; None where there is none."""
        if self.run is not None and self.run.part_of is not None and self.run.part_of.map == node_name:
            return None  # what is around it is another run's
        node_type = self.nodes[node_name].node_type
        if node_type is NodeTypes.ITEM or node_type is NodeTypes.PART:
            return self.nodes[node_name[: node_name.rindex("[")]]
        parent = self.dag.place(node_name).parent_dag.parent_node
        return None if parent is None else self.nodes[beside(node_name, parent.node_name)]

    def stopped(self, node_name: str) -> Failure | None:
        """Why nothing is started any more where an entry is; None where things are."""
        stop = self.info.stop if self.info.ending is None else None
        parent = self.parent_of(node_name) if stop is None else None
        while stop is None and parent is not None:
            stop = parent.stop
            parent = self.parent_of(parent.node_name)
        return stop

    def scope(self, node: NodeState) -> Mapping[str, object]:
        """What the expressions of a node can see."""
        around = self.map_around(node.node_name)
        if around is None:
            return scope_of(self.info, self.nodes, node)
        return scope_of_item(self.info, self.nodes, node, around)

    def map_around(self, node_name: str) -> NodeState | None:
        """The entry of the innermost Map that an entry of a step is in; None where it is in none."""
        if node_name[-1:] != "]":
            return None
        parent = self.dag.place(node_name).parent_dag.parent_node
        while isinstance(parent, Parallel):
            parent = parent.parent_dag.parent_node
        if parent is None:
            return None
        return self.nodes[beside(node_name[: node_name.rindex("[")], parent.node_name)]

    @property
    def is_paused(self) -> bool:
        """Whether nothing is started for now."""
        return self.run is not None and self.run.status is RunStatus.PAUSED

    @property
    def takes_slots(self) -> bool:
        """Whether the run, or a Task of it, takes slots; what that needs is loaded only where it does."""
        return self.run is not None and (self.run.queued_at is not None or bool(self.dag.pools))

    def hold(self, node_name: str, caught: str | None) -> None:
        """Keep an entry that is to start in the run, until that is resumed."""
        self.change_run(replace(self.info, held=(*self.info.held, Held(node_name, caught))))

    @property
    def touched(self) -> Iterable[str]:
        """Names of the nodes that may differ from the run that is decided on."""
        return self.nodes if self._touched is None else self._touched

    def begin(self, run: RunInfo, nodes: Iterable[NodeState]) -> None:
        """Make a run that there is not yet."""
        self.run = run
        self.nodes = self._own = {node.node_name: node for node in nodes}
        self._touched = None

    def put(self, node: NodeState) -> None:
        """Change a node."""
        self._owned()[node.node_name] = node
        if self._touched is not None:
            self._touched[node.node_name] = None

    def change_run(self, run: RunInfo) -> None:
        """Change the run itself."""
        self.run = run
        self._owned()

    def _owned(self) -> "Overlay | dict[str, NodeState]":
        if self._own is None:
            self.nodes = self._own = copied(self.nodes)
        return self._own

    def current(self, node_name: str, attempt: int) -> NodeState | None:
        """The node, if this attempt of it is the one that is Running."""
        node = self.nodes.get(node_name)
        if node is None or node.status is not TaskStatus.RUNNING or node.attempt != attempt or not attempt:
            return None
        return node

    def task(self, node: NodeState) -> Task:
        """The Task that a node with a claim is."""
        place: Node = self.dag.place(node.node_name)
        if node.node_type is NodeTypes.PART and isinstance(place, Map):
            place = place.part
        if not isinstance(place, Task):
            raise LookupError(f"{node.node_name}: has a claim but is no Task")
        return place

    def wait_until(self, node: NodeState, kind: str, at: datetime, *, is_reminded: bool = True) -> None:
        """Write that something is due at a node, and have it be reminded of, if that is not left to the Tick."""
        self.put(replace(node, due={**node.due, kind: at}))
        if is_reminded:
            self.remind(node, kind, at)

    def remind(self, node: NodeState, kind: str, at: datetime) -> None:
        """Have the run be told when something is due at a node."""
        self.commands.append(Remind(self.info.run_id, node.node_name, node.attempt, kind, at))

    def tell_parent(self) -> None:
        """Have the parent of a child run ask about it soon; should that be lost, its Tick asks."""
        parent = self.info.parent
        if parent is None:
            return
        asking = Remind(parent.run_id, parent.node, parent.attempt, None, self.now)
        if asking not in self.commands:
            self.commands.append(asking)

    def claims(self, node: NodeState) -> bool:
        """Whether this very save claims the node's attempt, so that nothing of it can run."""
        if node.claim is None or node.claim.owner != self.token.owner or node.claim.takeovers:
            return False
        return any(isinstance(x, Launch) and x.node_name == node.node_name for x in self.commands)

    def withdraw(self, node: NodeState) -> None:
        """Take back the launch of an attempt that this very save claims, and now is dead."""
        if node.claim is not None and node.claim.owner == self.token.owner:
            self.commands = [x for x in self.commands if not (isinstance(x, Launch) and x.node_name == node.node_name)]


def new_state(node: Node, instance: str = "") -> NodeState:
    """The entry of a node of a run that begins, or of an item: then `instance` is what stands behind its name."""
    task = node if isinstance(node, Task) else None
    return NodeState(
        node_name=node.node_name + instance,
        node_type=node.node_type,
        next=None if node.next is None else node.next + instance,
        leads_to=tuple(dict.fromkeys(edge.next + instance for edge in node.edges if edge.next != node.next)),
        target_type=task.target_type.value if task else None,
        target_name=task.target_name if task else None,
        invocation="sync" if task and task.target_key.endswith(".sync") else None,
        depends_on=tuple(name + instance for name in node.depends_on),
        trigger=None if node.trigger is Triggers.ALL_COMPLETED else node.trigger,
        branches=tuple(
            BranchState.of([first.node_name + instance for first in branch.start_nodes]) for branch in node.branches
        )
        if isinstance(node, Parallel)
        else (),
        status=TaskStatus.NEW,
    )


def bare_launch(dag: DAG, run: RunInfo, node: NodeState) -> Launch:
    """Return the launch of a node's current attempt as far as `find` and `cancel` need it: no parameters."""
    place = dag.find_place(node.node_name)
    claim = node.claim
    return Launch(
        node.node_name,
        node.target_type or "",
        node.target_name or "",
        step=place.execute()[0].step if isinstance(place, Task) else EMPTY,
        dag=run.dag,
        run_id=run.run_id,
        attempt=node.attempt,
        nonce=claim.nonce if claim else "",
        owner=claim.owner if claim else "",
        lease_end=claim.lease_end if claim else None,
        trace=claim.trace if claim else "",
        started_at=node.started_at,
        goes_on=child_going_on(node, node.attempt),
    )


def child_going_on(node: NodeState, attempt: int) -> str | None:
    """Return the child run that is to go on for an attempt, if one is."""
    return node.goes_on.run_id if node.goes_on is not None and node.goes_on.attempt == attempt else None


def copied(nodes: Mapping[str, NodeState]) -> "Overlay | dict[str, NodeState]":
    """Return a copy of a run's nodes, to be changed by who makes it and by nobody after that."""
    if len(nodes) < LARGE:
        return dict(nodes)
    from orchestrator.model.overlay import Overlay  # hardly any run is so large

    return Overlay.of(nodes)
