# The deployment's key: made here, kept in Secret Manager, and in no state or plan file.

ephemeral "random_password" "deployment_key" {
  length  = 64
  special = false
}

resource "google_secret_manager_secret" "deployment_key" {
  project   = var.project_id
  secret_id = module.definitions.names.secret

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  depends_on = [google_project_service.enabled]
}

resource "google_secret_manager_secret_version" "deployment_key" {
  secret = google_secret_manager_secret.deployment_key.id

  # Written when the version is raised, and never read back.
  secret_data_wo         = ephemeral.random_password.deployment_key.result
  secret_data_wo_version = var.deployment_key_version

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_secret_manager_secret_iam_member" "orchestrator" {
  project   = var.project_id
  secret_id = google_secret_manager_secret.deployment_key.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.member.orchestrator
}
