"""The Policy of an instance: what its settings, its store and its targets say."""

from collections.abc import Iterator, Mapping

from orchestrator.model.policy import Policy, TargetRules
from orchestrator.ports import Asked, ObjectStore, Paced, Patient, Target
from orchestrator.runtime.settings import Settings

QUESTIONS_AT_ONCE = 16
"""How many questions to services an instance in the cloud asks side by side: an answer takes some 30 ms."""


class RulesOf(Mapping[str, TargetRules]):
    """What decide has to know of each target, read from the target when it is first asked for."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets
        self._read: dict[str, TargetRules] = {}

    def __getitem__(self, target_type: str) -> TargetRules:
        rules = self._read.get(target_type)
        if rules is None:
            target = self._targets[target_type]
            rules = self._read[target_type] = TargetRules(
                target.has_outcome,
                target.can_cancel,
                target.synchronous,
                target.launch_limit_s,
                target.first_question_s if isinstance(target, Asked) else 0.0,
                target.default_timeout_s if isinstance(target, Patient) else None,
            )
        return rules

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)


def policy_of(settings: Settings, store: ObjectStore, targets: Mapping[str, Target]) -> Policy:
    """Return the times and limits of an instance."""
    interval_s = settings.save_interval_s
    if interval_s is None:
        interval_s = store.write_interval_s if isinstance(store, Paced) else 0.0
    return Policy(
        RulesOf(targets),
        min_lease_s=settings.launch_lease_s,
        clock_allowance_s=settings.clock_allowance_s,
        default_timeout_s=settings.default_timeout_s,
        grace_s=settings.event_grace_s,
        questions_at_once=1 if settings.events_topic is None else QUESTIONS_AT_ONCE,
        save_interval_s=interval_s,
        trace_key=settings.deployment_key,
        notify=settings.notify,
        pools=settings.pools,
    )
