"""Times and limits that `decide` needs to know. Pure values; the runtime fills them from settings."""

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from orchestrator.model.allowance import MAX_DECISION_WORK

CROWD = 32
"""How many attempts of one run may run side by side before all of its saves keep the whole interval."""


class TargetRules(msgspec.Struct, frozen=True):
    """What decide has to know of one target type; read from the Target's own attributes."""

    has_outcome: bool = False
    can_cancel: bool = False
    synchronous: bool = False
    launch_limit_s: float = 0.0
    first_question_s: float = 0.0
    default_timeout_s: float | None = None
    """In place of the policy's, for an attempt whose author gave none and whose target has no outcome."""


class Secret(msgspec.Struct, frozen=True):
    """Bytes that are not shown where it is printed."""

    value: bytes = b""

    def __repr__(self) -> str:
        return "Secret()"


class Policy(msgspec.Struct, frozen=True):
    """Attributes (all times in seconds):

    min_lease_s: a lease lasts this long, or as long as the target's launch call may take.
    lease_margin_s: what a synchronous launch's lease adds to its call's deadline.
    clock_allowance_s: how far two machines' clocks may be apart; owners stop this long before a
        lease's end, others start this long after it.
    default_timeout_s: timeout of a Task whose target has no outcome to ask for, where its author
        gave none; below the shortest identity window (24 h).
    max_takeovers: an attempt taken over this often without ever being bound is given up.
    max_losses: so often the next attempt is started because the one before was lost with its host; then it has failed.
    grace_s: how long an event whose run or record is not there yet is put off.
    question_delay_s: when to ask again after an event whose execution was not final yet.
    last_question_wait_s: where a target is asked by reminders, the longest wait between two; then the Tick alone asks.
    marker_age_s: an open/ marker without a run is reported from this age on.
    questions_at_once: how many questions to targets are asked side by side, and how many runs a Tick looks after so
        (a few at the most).
    tick_budget_s: how long a Tick takes up further runs; what it did not come to is for the next one. With the longest
        launch call that may follow, less than the 10 minutes that a request to the function may take.
    save_interval_s: the least time between two saves of one run in the long run; 0 = none.
    crowd: with more attempts of a run than this side by side, no two saves of it are closer than that, ever.
    trace_key: the deployment's key, which the traces of launches are made under; empty: of their nonces alone.
    notify: who is told of the events of all runs, as `notify` of a definition says it.
    pools: how many slots each pool has, by its name.
    max_decision_work: values that the CEL expressions of one decision may have to touch, all together; one that goes in
        counts fifty times.
    inline_items: a Map of more items than this runs as parts, child runs of its items.
    part_items: how many items a part has at the most.
    max_items: how many items a Map may have.
    max_notification_tries: after so many, from one lease to 2**8 of them apart, a notification is given up.
    """

    targets: Mapping[str, TargetRules] = msgspec.field(default_factory=dict)
    min_lease_s: float = 60.0
    lease_margin_s: float = 30.0
    clock_allowance_s: float = 5.0
    default_timeout_s: float = 23 * 3600.0
    max_takeovers: int = 20
    max_losses: int = 100
    grace_s: float = 60.0
    question_delay_s: float = 15.0
    last_question_wait_s: float = 300.0
    marker_age_s: float = 86400.0
    questions_at_once: int = 1
    tick_budget_s: float = 240.0
    save_interval_s: float = 0.0
    crowd: int = CROWD
    trace_key: Secret = Secret()
    notify: tuple[Mapping[str, object], ...] = ()
    pools: Mapping[str, int] = msgspec.field(default_factory=dict)
    max_decision_work: int = MAX_DECISION_WORK
    max_notification_tries: int = 10
    inline_items: int = 100
    part_items: int = 500
    max_items: int = 100_000

    def rules(self, target_type: str) -> TargetRules:
        """The rules of a target type; of one that nobody registered, the most careful ones."""
        return self.targets.get(target_type) or _CAREFUL

    def lease(self, target_type: str) -> timedelta:
        """How long a claim on a launch at this target type lasts."""
        rules = self.rules(target_type)
        # Longer than one call may take, else the owner could never start it in time.
        limit_s = rules.launch_limit_s + (self.lease_margin_s if rules.synchronous else 2 * self.clock_allowance_s)
        return timedelta(seconds=max(self.min_lease_s, limit_s))

    def timeout_s(self, target_type: str, authors: float | None) -> float | None:
        """How long an attempt may take, or None where nothing limits it but its target.

        A synchronous launch has none: its call's own deadline is it.
        """
        rules = self.rules(target_type)
        if rules.synchronous:
            return None
        if authors is None and not rules.has_outcome:
            return self.default_timeout_s if rules.default_timeout_s is None else rules.default_timeout_s
        return authors


_CAREFUL = TargetRules()
