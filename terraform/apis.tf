# Enabled, and left enabled at the end: others in the project may use them.

resource "google_project_service" "enabled" {
  for_each = module.definitions.apis

  project            = var.project_id
  service            = each.key
  disable_on_destroy = false
}

data "google_project" "this" {
  project_id = var.project_id
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}
