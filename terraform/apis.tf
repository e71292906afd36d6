# Enabled, and left enabled at the end: others in the project may use them. Service Usage and Cloud Resource Manager, by which
# this and the project are read, have to be enabled before (docs/deploy.md); here they are so that all are in one list.

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
