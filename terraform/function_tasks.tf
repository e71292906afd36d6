# The functions whose source lies in dag_definitions/*/functions/.

locals {
  # What is different for a function, over what holds for all; a null says nothing.
  function_config = {
    for key, function in local.deployed : key => merge(
      { service_account = null, environment = {} },
      var.function_defaults,
      { for name, value in try(var.functions[function.name], {}) : name => value if value != null },
    )
  }
}

data "archive_file" "task" {
  for_each = local.deployed

  type             = "zip"
  output_path      = "${path.root}/.terraform/zips/${each.value.name}-${module.package.hashes[each.key]}.zip"
  output_file_mode = "0644"

  dynamic "source" {
    for_each = module.package.functions[each.key]

    content {
      filename = source.key
      content  = file(source.value)
    }
  }
}

resource "google_storage_bucket_object" "task" {
  for_each = local.deployed

  bucket = google_storage_bucket.source.name
  name   = "functions/${each.value.region}/${each.value.name}/${module.package.hashes[each.key]}.zip"
  source = data.archive_file.task[each.key].output_path

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_cloudfunctions2_function" "task" {
  # checkov:skip=CKV_GCP_124:the queue and the orchestrator call it by its public URL; who may, IAM says, and that are these two
  for_each = local.deployed

  project     = each.value.project
  location    = each.value.region
  name        = each.value.name
  description = "Of the DAG ${join(", ", each.value.dags)}; called by ${var.name}."

  build_config {
    runtime         = "python313"
    entry_point     = each.value.entry_point
    service_account = google_service_account.acting["build"].id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.task[each.key].name
      }
    }

    automatic_update_policy {}
  }

  service_config {
    available_cpu                    = local.function_config[each.key].cpu
    available_memory                 = local.function_config[each.key].memory
    max_instance_request_concurrency = local.function_config[each.key].concurrency
    max_instance_count               = local.function_config[each.key].max_instances
    timeout_seconds                  = local.function_config[each.key].timeout_seconds
    service_account_email            = try(coalesce(local.function_config[each.key].service_account), google_service_account.acting["functions"].email)
    ingress_settings                 = "ALLOW_ALL"
    all_traffic_on_latest_revision   = true

    # THREADS as for the orchestrator; a function that takes one request at once has threads enough.
    environment_variables = merge(local.function_config[each.key].concurrency > 1 ? {
      THREADS = tostring(local.function_config[each.key].concurrency)
      } : {}, local.function_config[each.key].environment, {
      STATUS_BUCKET    = module.definitions.environment.STATUS_BUCKET
      LOG_EXECUTION_ID = "true"
    })
  }

  depends_on = [time_sleep.rights_are_known]
}
