# Events may reach the orchestrator, from its own subscription and from nobody else.

resource "google_cloud_run_service_iam_member" "push" {
  project  = var.project_id
  location = google_cloudfunctions2_function.orchestrator.location
  service  = google_cloudfunctions2_function.orchestrator.name
  role     = "roles/run.invoker"
  member   = local.member.push
}

# Pub/Sub makes the tokens of the push account; projects from before April 2021 have not given it that right.
resource "google_service_account_iam_member" "push_tokens" {
  service_account_id = google_service_account.acting["push"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent

  # The agent is there once the project has used Pub/Sub.
  depends_on = [google_pubsub_topic.events]
}

# Dead letters: taken from the one, put into the other.
resource "google_pubsub_subscription_iam_member" "dead_letters" {
  project      = var.project_id
  subscription = google_pubsub_subscription.push.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

resource "google_pubsub_topic_iam_member" "dead_letters" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letters.id
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}
