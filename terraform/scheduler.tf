# The Tick, each minute, and the start of each DAG that has a schedule.

resource "google_cloud_scheduler_job" "published" {
  for_each = module.definitions.jobs

  project   = var.project_id
  region    = var.region
  name      = each.key
  schedule  = each.value.schedule
  time_zone = each.value.time_zone

  pubsub_target {
    topic_name = google_pubsub_topic.events.id
    data       = base64encode(each.value.message)
  }

  # Of publishing, within the minute: a start that comes later than the next tick would be taken for that one's.
  retry_config {
    retry_count          = 3
    min_backoff_duration = "5s"
    max_backoff_duration = "10s"
  }
}
