# The queue by which functions are called, so that nobody waits for them, and by which events are delayed.

resource "google_cloud_tasks_queue" "launches" {
  project  = var.project_id
  name     = module.definitions.names.queue
  location = var.region

  # Attempts are the orchestrator's: a call that failed is a failed attempt, and the next one has its own number.
  retry_config {
    max_attempts = 1
  }

  rate_limits {
    max_dispatches_per_second = 500
    max_concurrent_dispatches = 1000
  }

  depends_on = [google_project_service.enabled]
}
