# The ends of tasks, from the log to the topic.

resource "google_logging_project_sink" "ends" {
  for_each = module.definitions.sinks

  project     = each.value.project
  name        = each.key
  description = "The ends of what the definitions launch, to the orchestrator."
  destination = "pubsub.googleapis.com/${google_pubsub_topic.events.id}"
  filter      = each.value.filter

  unique_writer_identity = true

  depends_on = [google_project_service.enabled]
}

# One right a project, for all sinks of a project write under one identity.
resource "google_pubsub_topic_iam_member" "sinks" {
  for_each = toset([for sink in module.definitions.sinks : sink.project])

  project = var.project_id
  topic   = google_pubsub_topic.events.id
  role    = "roles/pubsub.publisher"
  member  = [for name, sink in google_logging_project_sink.ends : sink.writer_identity if module.definitions.sinks[name].project == each.key][0]
}
