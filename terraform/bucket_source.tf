# Where the zips of functions lie; their names carry the hash of what is in them.

resource "google_storage_bucket" "source" {
  # checkov:skip=CKV_GCP_62:usage logs of a bucket go to another bucket; data access audit logs are the project's to turn on
  # checkov:skip=CKV_GCP_78:an object's name carries the hash of its content, so none is ever overwritten
  project  = var.project_id
  name     = module.definitions.names.source_bucket
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  depends_on = [google_project_service.enabled]
}
