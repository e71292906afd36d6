# What a person is told of.

resource "google_monitoring_notification_channel" "email" {
  for_each = var.alert_emails

  project      = var.project_id
  display_name = "${var.name}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.value }

  depends_on = [google_project_service.enabled]

  # A channel that a policy still names cannot be deleted: the policies are changed first, then it goes.
  lifecycle {
    create_before_destroy = true
  }
}

locals {
  channels = concat(tolist(var.notification_channels), [for channel in google_monitoring_notification_channel.email : channel.id])
}

resource "google_monitoring_alert_policy" "logged" {
  for_each = module.definitions.alerts

  project               = var.project_id
  display_name          = "${var.name}: ${each.value.title}"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = each.value.title

    condition_matched_log {
      filter = each.value.filter
    }
  }

  alert_strategy {
    auto_close = "604800s"

    notification_rate_limit {
      period = "300s"
    }
  }

  documentation {
    content   = each.value.about
    mime_type = "text/markdown"
  }

  depends_on = [google_project_service.enabled]
}

resource "google_monitoring_alert_policy" "undelivered" {
  project               = var.project_id
  display_name          = "${var.name}: an event could not be delivered"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "dead letters wait"

    condition_threshold {
      filter          = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${google_pubsub_subscription.dead_letters.name}\" AND metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    content   = "They wait in the subscription ${google_pubsub_subscription.dead_letters.name}: look at them with `gcloud pubsub subscriptions pull`, publish them again where that helps. A schedule's start means the latest tick then: write `scheduled_for` in place of `schedule` and `time_zone`."
    mime_type = "text/markdown"
  }
}
