"""A story of the engine with a transcript: executors over one store, whose targets fail as they are told to."""

from __future__ import annotations

from orchestrator.model.commands import Execution, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.messages import reminder_message
from orchestrator.stores.memory import MemoryStore
from orchestrator.targets.dag import DagTarget
from tests.support.transcript import Transcript
from tests.support.world import NotedTarget, World, completion

FAILED = Outcome.failed("Own.Error", "it was not there")


class Target(NotedTarget):
    """A target whose calls fail as they are told to."""

    def __init__(self, **is_able: bool) -> None:
        super().__init__(**is_able)
        self.failing: list[BaseException] = []
        self.asked: list[str] = []

    def _may_fail(self) -> None:
        if self.failing:
            raise self.failing.pop(0)

    def launch(self, launch):
        self._may_fail()
        return super().launch(launch)

    def outcome(self, execution):
        self.asked.append(execution.execution_id)
        return super().outcome(execution)

    def cancel(self, execution):
        self._may_fail()
        super().cancel(execution)


class Withdrawing(Target):
    """One that takes back what has not begun."""

    def __init__(self, **is_able: bool) -> None:
        super().__init__(**is_able)
        self.withdrawn: list[str] = []

    def withdraw(self, launch):
        self._may_fail()
        self.withdrawn.append(launch.node_name)
        return launch.node_name.startswith("Late")


class Answering(Target):
    """One whose call takes as long as what it runs, and answers with its end."""

    synchronous = True
    launch_limit_s = 20.0
    identity = Identity.NONE

    def launch(self, launch):
        execution = super().launch(launch)
        outcome = FAILED if launch.target_name == "bad" else Outcome.completed({"of": launch.node_name})
        return Execution(execution.execution_id, None, outcome)

    def find(self, launch):
        return None


class Confirming(Target):
    """A target that knows better than an event."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list = []

    def confirm(self, launch, verdict):
        answer = self.answers.pop(0) if self.answers else verdict
        if isinstance(answer, BaseException):
            raise answer
        return Execution(f"confirmed-{launch.node_name}", None, answer)


class Notifier:
    def __init__(self) -> None:
        self.sent: list = []
        self.failing: list[BaseException] = []

    def notify(self, notification):
        if self.failing:
            raise self.failing.pop(0)
        self.sent.append(notification)


class Story:
    """A world with a transcript of it."""

    def __init__(self, name: str, definition: dict, **options: object) -> None:
        self.plain, self.able, self.slow = Withdrawing(), Target(has_outcome=True, can_cancel=True), Answering()
        self.asking = Target(has_outcome=True, can_cancel=True)
        self.asking.first_question_s = 15.0
        targets = {
            "Function": self.plain,
            "CloudFunction": self.plain,
            "Dataflow": self.able,
            "CloudRunJob": self.able,
            "BigQuery": self.asking,
            "CloudFunction.sync": self.slow,
        }
        self.notifier = Notifier()
        parts = {"notifier": self.notifier, **options.pop("parts", {})}
        store = MemoryStore()
        targets["Dag"] = DagTarget(store, self._publish, self._make, launch_limit_s=0.0)
        self.world = World(definition, targets=targets, store=store, **options)
        self.world.instances = [self.world.instance(**parts) for _ in range(2)]
        self.told = Transcript(name)
        self.told.watch_store(self.world.store)
        for called, target in targets.items():
            if isinstance(target, Target) and called not in ("CloudFunction", "CloudRunJob"):
                self.told.watch(f"{called} launched", target.calls)
                self.told.watch(f"{called} asked", target.asked)
                self.told.watch(f"{called} cancelled", target.cancelled)
        self.told.watch("withdrawn", self.plain.withdrawn)
        self.told.watch("published", self.world.broker.published)
        self.told.watch("notified", self.notifier.sent)
        self.delivered = 0
        self.ended: set[str] = set()

    def _publish(self, event):
        self.world.broker.publish(event)

    def _make(self, launch, run_id):
        return self.world.executor.make_child(launch, run_id)

    @property
    def launches(self):
        found = []
        for target in (self.plain, self.able, self.asking, self.slow):
            found += target.calls
        return found

    def last(self, node_name):
        return [launch for launch in self.launches if launch.node_name == node_name][-1]

    def start(self, message_id="m1", **start):
        with self.told.step(f"start {message_id}"):
            self.told.say(str(self.world.start(message_id, **start)))

    def send(self, words, event, on=0, after_s=0.0):
        self.world.clock.forward(after_s)
        with self.told.step(words):
            handled = self.world.instances[on].execute(
                event, message_id=f"of {words}", publish_time=self.world.clock.now()
            )
            self.told.say(repr(handled))

    def end(self, node_name, outcome=None, on=0, after_s=1.0, **forged):
        launch = self.last(node_name)
        outcome = outcome or Outcome.completed({"from": node_name})
        if launch.target_type in ("Dataflow", "CloudRunJob", "BigQuery"):
            target = self.asking if launch.target_type == "BigQuery" else self.able
            target.outcomes[f"x-{launch.key}"] = outcome
        self.send(f"end of {node_name}: {outcome.kind.value}", completion(launch, outcome, **forged), on, after_s)

    def ask(self, node_name, outcome=None, kind=None, at=None):
        """Have it asked how a launch is, once its target knows of its end."""
        launch = self.last(node_name)
        target = self.asking if launch.target_type == "BigQuery" else self.able
        if outcome is not None:
            target.outcomes[f"x-{launch.key}"] = outcome
        self.send(f"how is {node_name}", reminder_message(launch.run_id, node_name, launch.attempt, kind, at))

    def tick(self, after_s=0.0, on=0):
        self.world.clock.forward(after_s)
        with self.told.step(f"tick, {after_s:g} s later"):
            self.told.say(repr(self.world.instances[on].tick()))

    def deliver(self):
        """Deliver all that was published, and is due; return whether there was something."""
        published = self.world.broker.published[self.delivered :]
        self.delivered += len(published)
        due = [event for event, delay_s in published if delay_s <= 0.0]
        for event in due:
            self.send(f"{event['resource']['type']} of {event.get('run_id')}", event)
        return bool(due)

    def go_on(self, *failing, most=100):
        """Deliver what is published and end what is launched, until there is nothing left; those named fail."""
        for _ in range(most):
            is_news = self.deliver()
            for launch in [each for each in self.launches if each.launch_id not in self.ended]:
                self.ended.add(launch.launch_id)
                is_news = True
                outcome = FAILED if launch.node_name in failing else Outcome.completed({"from": launch.node_name})
                if launch.target_type in ("Dataflow", "CloudRunJob", "BigQuery"):
                    target = self.asking if launch.target_type == "BigQuery" else self.able
                    target.outcomes[f"x-{launch.key}"] = outcome
                words = f"end of {launch.run_id}/{launch.node_name}: {outcome.kind.value}"
                self.send(words, completion(launch, outcome), after_s=1)
            if not is_news:
                return

    def say_runs(self):
        """Note how each run is."""
        for key in self.world.store.list("runs/"):
            state = self.world.state(key.removeprefix("runs/").removesuffix(".json"))
            self.told.say(
                f"{state.run.run_id} {state.run.status.value}: "
                + " ".join(f"{name}:{node.status.value}" for name, node in state.nodes.items())
            )

    @property
    def parent(self):
        """The run that no other has launched."""
        runs = [key.removeprefix("runs/").removesuffix(".json") for key in self.world.store.list("runs/")]
        return next(run_id for run_id in runs if self.world.state(run_id).run.parent is None)

    def run(self, number=0):
        return sorted(self.world.store.list("runs/"))[number].removeprefix("runs/").removesuffix(".json")

    def close(self):
        with self.told.step("close"):
            for instance in self.world.instances:
                instance.close()
        self.told.check()


class Sleeping:
    """What sleeps, by moving the clock; other instances may do something meanwhile."""

    def __init__(self, story):
        self._story, self.slept, self.meanwhile = story, [], []

    def __call__(self, seconds):
        self.slept.append(round(seconds, 6))
        self._story.world.clock.forward(seconds)
        if self.meanwhile:
            self.meanwhile.pop(0)()


def job(next=None, target="j", **keys):
    return {
        "type": "Task",
        "target_type": "Dataflow",
        "target_name": target,
        **({"next": next} if next else {}),
        **keys,
    }


def query(next=None, **keys):
    return {"type": "Task", "target_type": "BigQuery", "target_name": "q", "query": "SELECT 1",
            **({"next": next} if next else {}), **keys}  # fmt: skip


def call(next=None, target="f", **keys):
    step = {"type": "Task", "target_type": "CloudFunction", "target_name": target, "invocation": "sync"}
    return {**step, **({"next": next} if next else {}), **keys}
