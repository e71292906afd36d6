# The orchestrator: main.py, what it imports, and the definitions.

locals {
  orchestrator_environment = merge(module.definitions.environment, {
    # functions-framework serves from gunicorn, by default with 4 threads a CPU, whatever its platform lets in: requests
    # that wait for a run's next save would hold all of them, and everything else up.
    THREADS = tostring(var.orchestrator.concurrency)
    }, length(var.first_generation_functions) == 0 ? {} : {
    FIRST_GENERATION_FUNCTIONS = join(",", sort(var.first_generation_functions))
  })
}

data "archive_file" "orchestrator" {
  type             = "zip"
  output_path      = "${path.root}/.terraform/zips/orchestrator-${module.package.hashes.orchestrator}.zip"
  output_file_mode = "0644"

  dynamic "source" {
    for_each = module.package.orchestrator

    content {
      filename = source.key
      content  = file(source.value)
    }
  }
}

resource "google_storage_bucket_object" "orchestrator" {
  bucket = google_storage_bucket.source.name
  name   = "orchestrator/${module.package.hashes.orchestrator}.zip"
  source = data.archive_file.orchestrator.output_path

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_cloudfunctions2_function" "orchestrator" {
  project     = var.project_id
  location    = var.region
  name        = module.definitions.names.orchestrator
  description = "Wakes on an event, decides what comes next in its run, and launches it."

  build_config {
    runtime         = "python313"
    entry_point     = "on_event"
    service_account = google_service_account.acting["build"].id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.orchestrator.name
      }
    }

    # An image's files are all of 1980, so that byte code which goes by its source's time is void (buildpacks/lifecycle issue
    # 1358). With any number here Python makes byte code that goes by the source's hash; docs/benchmarks.md says what it saves.
    environment_variables = { SOURCE_DATE_EPOCH = "315532801" }

    automatic_update_policy {}
  }

  service_config {
    available_cpu                    = var.orchestrator.cpu
    available_memory                 = var.orchestrator.memory
    max_instance_request_concurrency = var.orchestrator.concurrency
    max_instance_count               = var.orchestrator.max_instances
    min_instance_count               = var.orchestrator.min_instances
    timeout_seconds                  = 600
    service_account_email            = google_service_account.acting["orchestrator"].email
    ingress_settings                 = "ALLOW_INTERNAL_ONLY"
    all_traffic_on_latest_revision   = true
    environment_variables            = merge(var.settings, local.orchestrator_environment)

    secret_environment_variables {
      key        = "DEPLOYMENT_KEY"
      project_id = var.project_id
      secret     = google_secret_manager_secret.deployment_key.secret_id
      version    = google_secret_manager_secret_version.deployment_key.version
    }
  }

  lifecycle {
    precondition {
      condition     = length(setintersection(keys(var.settings), keys(local.orchestrator_environment))) == 0
      error_message = "settings: ${join(", ", setintersection(keys(var.settings), keys(local.orchestrator_environment)))}: follows from the deployment itself; leave it out."
    }
  }

  depends_on = [time_sleep.rights_are_known]
}
