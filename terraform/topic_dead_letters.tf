# What could not be delivered, kept for a person to see. (What was delivered and was no use lies in the state bucket,
# under dead_letters/.)

resource "google_pubsub_topic" "dead_letters" {
  # checkov:skip=CKV_GCP_83:a key of one's own is an addition to the defaults, which are encrypted
  project = var.project_id
  name    = module.definitions.names.dead_letter_topic

  depends_on = [google_project_service.enabled]
}

# A topic without a subscription keeps nothing.
resource "google_pubsub_subscription" "dead_letters" {
  project = var.project_id
  name    = module.definitions.names.dead_letter_topic
  topic   = google_pubsub_topic.dead_letters.id

  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}
