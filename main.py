"""The Cloud Function: decodes nothing and decides nothing, it hands the event over.

functions-framework --target on_event --signature-type cloudevent
"""

import gc

import functions_framework
from cloudevents.http import CloudEvent

# Nearly all that is made until the first event is handled stays: modules, classes, clients. Looking through it for
# garbage, again and again while it grows, took a tenth of the cold start (docs/benchmarks.md).
gc.disable()


@functions_framework.cloud_event
def on_event(event: CloudEvent) -> None:
    """Handle a Pub/Sub message; raises where Pub/Sub is to deliver it again."""
    try:
        # Imported with the first event, so that loading this file costs nothing beyond functions-framework
        # and a wrong setting is an error of an event, not a container that does not start.
        from orchestrator.runtime.gcp import handle

        handle(event.data, event_id=event["id"], event_time=event["time"], source=event["source"])
    finally:
        if not gc.isenabled():
            gc.freeze()  # and later collections need not look through it either
            gc.enable()
