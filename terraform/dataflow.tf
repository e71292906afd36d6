# What Dataflow jobs need, if a step is one: a bucket for templates and temporary files, a registry for the images that
# flex templates are made of, and the rights of the workers. What the workers read and write themselves is the author's to
# give to them.

locals {
  dataflow = module.definitions.uses_dataflow ? { this = module.definitions.names } : {}
}

resource "google_storage_bucket" "dataflow" {
  # checkov:skip=CKV_GCP_62:usage logs of a bucket go to another bucket; data access audit logs are the project's to turn on
  # checkov:skip=CKV_GCP_78:templates are built anew from their source, and the rest is temporary
  for_each = local.dataflow

  project  = var.project_id
  name     = each.value.dataflow_bucket
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 31
      matches_prefix = ["temp/", "staging/"]
    }
  }

  depends_on = [google_project_service.enabled]
}

resource "google_artifact_registry_repository" "templates" {
  # checkov:skip=CKV_GCP_84:a key of one's own is an addition to the defaults, which are encrypted
  for_each = local.dataflow

  project       = var.project_id
  location      = var.region
  repository_id = each.value.template_registry
  description   = "Images of Dataflow flex templates."
  format        = "DOCKER"

  depends_on = [google_project_service.enabled]
}

resource "google_project_iam_member" "dataflow_worker" {
  for_each = local.dataflow

  project = var.project_id
  role    = "roles/dataflow.worker"
  member  = local.member.dataflow
}

resource "google_storage_bucket_iam_member" "dataflow" {
  for_each = module.definitions.uses_dataflow ? {
    # Workers stage and spill; the orchestrator reads a template's specification when it launches it.
    dataflow     = "roles/storage.objectUser"
    orchestrator = "roles/storage.objectViewer"
  } : {}

  bucket = google_storage_bucket.dataflow["this"].name
  role   = each.value
  member = local.member[each.key]
}

resource "google_artifact_registry_repository_iam_member" "dataflow" {
  for_each = local.dataflow

  project    = var.project_id
  location   = var.region
  repository = google_artifact_registry_repository.templates["this"].name
  role       = "roles/artifactregistry.reader"
  member     = local.member.dataflow
}
