# Where runs lie.

resource "google_storage_bucket" "state" {
  # checkov:skip=CKV_GCP_62:usage logs of a bucket go to another bucket; data access audit logs are the project's to turn on
  project  = var.project_id
  name     = module.definitions.names.state_bucket
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.keep_state_bucket

  # A run's document is overwritten at each transition: versions are what a wrong hand can be undone with.
  versioning {
    enabled = true
  }

  # Versions do what soft deletion would do once more, at the price of a second copy.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = var.noncurrent_days
      with_state                 = "ARCHIVED"
    }
  }

  # Definitions stay, for they are few and a run needs its own; open/ is cleared by the Tick.
  dynamic "lifecycle_rule" {
    for_each = var.keep_runs_days == null ? {} : { runs = var.keep_runs_days }

    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value
        matches_prefix = ["runs/", "executions/", "results/", "dead_letters/"]
        with_state     = "LIVE"
      }
    }
  }

  depends_on = [google_project_service.enabled]
}
