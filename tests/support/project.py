"""A Google Cloud project on this machine, as the deployed function finds it: TLS, tokens, Google's own host names.

`tests.support.cloud` has more of a cloud (a topic, Dataflow, instances), reached by emulators' variables; here is only
what a run of functions needs, and nothing tells the function that it is not on Google Cloud.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from uuid import uuid4

from tests.support.cloud_tasks_server import CloudTasksServer
from tests.support.functions_server import FunctionsServer
from tests.support.google_hosts import ACCOUNT, GoogleHosts, without_clouds
from tests.support.storage_server import StorageServer

PROJECT, REGION, BUCKET, TOPIC = "my-project", "europe-west1", "state", "events"


class Project:
    """The project; a context manager.

    Args:
        folder: where certificates go.
        dag: folder of the DAG whose functions there are.

    Attributes:
        environment: of the function.
        ended: the log entries that the calls of functions left, in order.
    """

    def __init__(self, folder: Path, dag: Path) -> None:
        self.ended: Queue[dict] = Queue()
        self.storage = StorageServer(buckets=[BUCKET])
        self.tasks = CloudTasksServer()
        self.functions = FunctionsServer([dag], self.ended.put, project=PROJECT, region=REGION)
        servers = {"storage.googleapis.com": self.storage.url, "cloudtasks.googleapis.com": self.tasks.endpoint}
        self.hosts = GoogleHosts(folder, servers, PROJECT)
        self._stack = ExitStack()

    def __enter__(self) -> Project:
        for server in (self.storage, self.tasks, self.functions, self.hosts):
            self._stack.enter_context(server)
        self.environment = {
            **without_clouds(),
            **self.hosts.environment,
            "STATUS_BUCKET": f"gs://{BUCKET}",
            "EVENTS_TOPIC": f"projects/{PROJECT}/topics/{TOPIC}",
            "TASKS_QUEUE": f"projects/{PROJECT}/locations/{REGION}/queues/launches",
            "INVOKER_SERVICE_ACCOUNT": ACCOUNT,
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "FUNCTION_REGION": REGION,
            "CLOUD_FUNCTIONS_URL": self.functions.url_template,
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def statuses(self, run_id: str) -> dict[str, str]:
        """Node name -> status, of the run document; empty without one."""
        stored = self.storage.stored(BUCKET, f"runs/{run_id}.json")
        document = json.loads(stored.data) if stored else {}
        return {name: node["status"] for name, node in document.items() if name != "$run"}


def delivery(event: Mapping[str, object]) -> tuple[dict[str, str], dict[str, object]]:
    """Attributes and data of the CloudEvent by which Eventarc delivers an event that was published now."""
    message_id, now = uuid4().hex, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    data = base64.b64encode(json.dumps(event).encode()).decode()
    attributes = {
        "id": message_id,
        "specversion": "1.0",
        "time": now,
        "type": "google.cloud.pubsub.topic.v1.messagePublished",
        "source": f"//pubsub.googleapis.com/projects/{PROJECT}/topics/{TOPIC}",
    }
    message = {"data": data, "messageId": message_id, "publishTime": now, "attributes": {}}
    return attributes, {"message": message, "subscription": f"projects/{PROJECT}/subscriptions/s"}


def asynchronous(definition: dict) -> dict:
    """Return a definition whose functions are called by the queue, as is the default."""
    text = json.dumps(definition)
    return json.loads(text, object_hook=lambda value: {key: value[key] for key in value if key != "invocation"})
