# What the orchestrator may do.

resource "google_storage_bucket_iam_member" "orchestrator_state" {
  bucket = google_storage_bucket.state.name
  role   = "roles/storage.objectUser"
  member = local.member.orchestrator
}

# To call functions by the queue, and to take back what a cancelled run has put into it.
resource "google_cloud_tasks_queue_iam_member" "orchestrator" {
  for_each = toset(["roles/cloudtasks.enqueuer", "roles/cloudtasks.taskDeleter"])

  project  = var.project_id
  location = google_cloud_tasks_queue.launches.location
  name     = google_cloud_tasks_queue.launches.name
  role     = each.key
  member   = local.member.orchestrator
}

# As whom its tasks and jobs run: the invoker, the Dataflow workers, and what the deployment names. No other.
locals {
  acted_as = merge(
    { invoker = google_service_account.acting["invoker"].name },
    module.definitions.uses_dataflow ? { dataflow = google_service_account.acting["dataflow"].name } : {},
    { for name, email in var.job_service_accounts : "job ${name}" => "projects/-/serviceAccounts/${email}" },
  )
}

resource "google_service_account_iam_member" "orchestrator_acts_as" {
  for_each = local.acted_as

  service_account_id = each.value
  role               = "roles/iam.serviceAccountUser"
  member             = local.member.orchestrator
}

# A warning and no error: the accounts may be given in another way.
check "jobs_run_as_somebody" {
  assert {
    condition     = length(module.definitions.types_acting_as_others) == 0 || length(var.job_service_accounts) > 0
    error_message = "${join(", ", module.definitions.types_acting_as_others)}: jobs run as a service account, which the orchestrator may launch them as only if it is in job_service_accounts."
  }
}

# For the target types that the definitions use, in the projects of their steps.
resource "google_project_iam_member" "orchestrator" {
  for_each = module.definitions.project_roles

  project = each.value.project
  role    = each.value.role
  member  = local.member.orchestrator
}

# Cloud Run jobs are given one by one.
resource "google_cloud_run_v2_job_iam_member" "orchestrator" {
  for_each = module.definitions.run_job_roles

  project  = each.value.project
  location = each.value.region
  name     = each.value.name
  role     = each.value.role
  member   = local.member.orchestrator
}

# Topics of others, in whatever project, that are told of the events of runs. Each has to exist.
resource "google_pubsub_topic_iam_member" "notified" {
  for_each = module.definitions.notified_topics

  project = each.value.project
  topic   = each.value.name
  role    = "roles/pubsub.publisher"
  member  = local.member.orchestrator
}

# What steps are given as ${secret.NAME}. Each has to exist.
resource "google_secret_manager_secret_iam_member" "given_to_steps" {
  for_each = module.definitions.secrets

  project   = each.value.project
  secret_id = each.value.name
  role      = "roles/secretmanager.secretAccessor"
  member    = local.member.orchestrator
}
