# Who may call which function: each that a step names, by whom the step has it called.

locals {
  calls = merge([
    for key, function in module.definitions.functions : {
      for caller in function.callers : "${key}/${caller}" => merge(function, {
        caller     = caller
        generation = !function.is_deployed && contains(var.first_generation_functions, function.name) ? 1 : 2
      })
    }
  ]...)
}

resource "google_cloud_run_service_iam_member" "callers" {
  for_each = { for key, call in local.calls : key => call if call.generation == 2 }

  project  = each.value.project
  location = each.value.region
  service  = each.value.service
  role     = "roles/run.invoker"
  member   = local.member[each.value.caller]

  depends_on = [google_cloudfunctions2_function.task]
}

resource "google_cloudfunctions_function_iam_member" "callers" {
  for_each = { for key, call in local.calls : key => call if call.generation == 1 }

  project        = each.value.project
  region         = each.value.region
  cloud_function = each.value.name
  role           = "roles/cloudfunctions.invoker"
  member         = local.member[each.value.caller]
}

# A function that uses orchestrator.tasks records its result in the runs' bucket, and sees nothing else of it: each account
# that such a function runs as, `functions` being that of those that have none of their own.
locals {
  recording = toset([
    for key, uses_package in module.package.uses_package : try(coalesce(local.function_config[key].service_account), "functions")
    if uses_package
  ])
}

resource "google_storage_bucket_iam_member" "functions_results" {
  for_each = local.recording

  bucket = google_storage_bucket.state.name
  role   = "roles/storage.objectUser"
  member = each.key == "functions" ? local.member.functions : "serviceAccount:${each.key}"

  condition {
    title      = "results only"
    expression = "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.state.name}/objects/results/\")"
  }
}
