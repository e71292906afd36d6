# Events of others that start runs: objects in buckets, and messages of topics. The buckets and topics have to exist.

# Cloud Storage publishes as an agent of the bucket's project: here that of this project, which reading it makes.
data "google_storage_project_service_account" "this" {
  count = length(module.definitions.trigger_buckets) > 0 ? 1 : 0

  project = var.project_id

  depends_on = [google_project_service.enabled]
}

resource "google_pubsub_topic_iam_member" "buckets" {
  count = length(module.definitions.trigger_buckets) > 0 ? 1 : 0

  project = var.project_id
  topic   = google_pubsub_topic.events.id
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${data.google_storage_project_service_account.this[0].email_address}"
}

# Straight to the topic of events: what a bucket publishes says by its attributes what it is.
resource "google_storage_notification" "triggers" {
  for_each = module.definitions.trigger_buckets

  bucket             = each.key
  topic              = google_pubsub_topic.events.id
  payload_format     = "JSON_API_V1"
  event_types        = ["OBJECT_FINALIZE"]
  object_name_prefix = each.value == "" ? null : each.value

  depends_on = [google_pubsub_topic_iam_member.buckets]
}

# The path of the endpoint names the topic that it comes from. By that the orchestrator knows that it is a message, and no
# start, cancel or end, whatever stands in it: who may publish there need not be trusted with runs.
resource "google_pubsub_subscription" "triggers" {
  for_each = module.definitions.trigger_topics

  project = var.project_id
  name    = each.value.subscription
  topic   = each.key

  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  push_config {
    # A topic's name may hold a %, and a path is decoded.
    push_endpoint = "${google_cloudfunctions2_function.orchestrator.service_config[0].uri}/${replace(each.key, "%", "%25")}"

    oidc_token {
      service_account_email = google_service_account.acting["push"].email
      audience              = google_cloudfunctions2_function.orchestrator.service_config[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "5s"
    maximum_backoff = "60s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }

  expiration_policy {
    ttl = ""
  }

  depends_on = [google_cloud_run_service_iam_member.push]
}

resource "google_pubsub_subscription_iam_member" "trigger_dead_letters" {
  for_each = module.definitions.trigger_topics

  project      = var.project_id
  subscription = google_pubsub_subscription.triggers[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
