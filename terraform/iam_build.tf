# What building a function takes, under an account of its own: the default one has the rights of an editor.

resource "google_project_iam_member" "build" {
  for_each = toset(["roles/logging.logWriter", "roles/artifactregistry.writer"])

  project = var.project_id
  role    = each.key
  member  = local.member.build
}

# A build does not fetch the zip from our bucket: Cloud Functions copies it to one of its own first, which it makes with the
# first function of a region. So the right is the project's, and a condition keeps it to these buckets.
# Source: https://github.com/hashicorp/terraform-provider-google/issues/20571
resource "google_project_iam_member" "build_sources" {
  project = var.project_id
  role    = "roles/storage.objectViewer"
  member  = local.member.build

  condition {
    title      = "sources of functions only"
    expression = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-\")"
  }
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = local.member.build
}

# A right takes a while to be everywhere; a build, or a revision that reads the secret, that comes sooner fails for good.
# Source: the provider's own example of a function with a build account waits as long.
resource "time_sleep" "rights_are_known" {
  create_duration = "60s"

  triggers = {
    build        = google_service_account.acting["build"].unique_id
    orchestrator = google_service_account.acting["orchestrator"].unique_id
    secret       = google_secret_manager_secret.deployment_key.id
  }

  depends_on = [
    google_project_iam_member.build,
    google_project_iam_member.build_sources,
    google_storage_bucket_iam_member.build,
    google_secret_manager_secret_iam_member.orchestrator,
  ]
}
