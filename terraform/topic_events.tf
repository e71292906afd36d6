# The topic that everything comes by: start messages, the ends of tasks, reminders, the Tick.

resource "google_pubsub_topic" "events" {
  # checkov:skip=CKV_GCP_83:a key of one's own is an addition to the defaults, which are encrypted
  project = var.project_id
  name    = module.definitions.names.topic

  depends_on = [google_project_service.enabled]
}

# Its own subscription, not the one that a function's event trigger makes: that has neither dead letters nor a deadline
# of 600 s, without which an event that takes longer than 10 s is delivered again while it is handled.
resource "google_pubsub_subscription" "push" {
  project = var.project_id
  name    = module.definitions.names.push_subscription
  topic   = google_pubsub_topic.events.id

  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  push_config {
    # functions-framework reads the topic's name from the path of a plain Pub/Sub push.
    push_endpoint = "${google_cloudfunctions2_function.orchestrator.service_config[0].uri}/${google_pubsub_topic.events.id}"

    oidc_token {
      service_account_email = google_service_account.acting["push"].email
      audience              = google_cloudfunctions2_function.orchestrator.service_config[0].uri
    }
  }

  # An event that comes before what it belongs to is put off for up to a minute.
  retry_policy {
    minimum_backoff = "5s"
    maximum_backoff = "60s"
  }

  # 100 deliveries with these pauses are an hour and a half: longer than most faults, shorter than a night.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }

  expiration_policy {
    ttl = ""
  }

  depends_on = [google_cloud_run_service_iam_member.push]
}
