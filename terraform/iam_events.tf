# Who may publish events. The sinks may too (sinks.tf), Cloud Storage of buckets with triggers (triggers.tf), and Cloud
# Scheduler as the service that it is. The accounts that tasks run as may not: who can publish here can start runs.

resource "google_pubsub_topic_iam_member" "events" {
  for_each = merge(
    # The orchestrator publishes what is due at once, Cloud Tasks in the invoker's name what is due later.
    { orchestrator = local.member.orchestrator, invoker = local.member.invoker },
    { for name, member in var.starters : "starter ${name}" => member },
  )

  project = var.project_id
  topic   = google_pubsub_topic.events.id
  role    = "roles/pubsub.publisher"
  member  = each.value
}
