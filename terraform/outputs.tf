output "topic" {
  description = "The topic that start messages are published to: EVENTS_TOPIC of `orchestrator start`."
  value       = google_pubsub_topic.events.id
}

output "state_bucket" {
  description = "The bucket with the runs: STATUS_BUCKET of `orchestrator status`."
  value       = "gs://${google_storage_bucket.state.name}"
}

output "start_commands" {
  description = "DAG -> a command that starts a run of it, with the input of its input.json; what stands as … there is yours to fill in."
  value = {
    for dag in module.definitions.definitions :
    dag => "gcloud pubsub topics publish ${google_pubsub_topic.events.id} --message='${
      replace(jsonencode({ resource = { type = "start" }, dag = dag, input = module.definitions.inputs[dag] }), "'", "'\\''")
    }'"
  }
}

output "flex_template_commands" {
  description = "Pipeline -> the command that builds its flex template, to be run in the repository's root after each change of it."
  value = {
    for name, pipeline in module.definitions.pipelines : name => join(" ", [
      "gcloud dataflow flex-template build ${module.definitions.environment.DATAFLOW_TEMPLATES}/${name}.json",
      "--project=${var.project_id}",
      "--image-gcr-path=${var.region}-docker.pkg.dev/${var.project_id}/${module.definitions.names.template_registry}/${name}:latest",
      "--sdk-language=PYTHON",
      "--flex-template-base-image=PYTHON3",
      "--py-path=dag_definitions/${pipeline.folder}",
      "--env=FLEX_TEMPLATE_PYTHON_PY_FILE=${pipeline.file}",
      "--env=FLEX_TEMPLATE_PYTHON_REQUIREMENTS_FILE=requirements.txt",
    ])
  }
}

output "existing_functions" {
  description = "Functions that steps call and that are not deployed here: each has to exist before its right to be called can be given."
  value       = [for key, function in module.definitions.functions : key if !function.is_deployed]

  precondition {
    condition     = length(setsubtract(keys(var.functions), values(local.deployed)[*].name)) == 0
    error_message = "functions: ${join(", ", setsubtract(keys(var.functions), values(local.deployed)[*].name))}: is not deployed here; there are ${join(", ", values(local.deployed)[*].name)}."
  }
  precondition {
    condition     = length(setsubtract(var.first_generation_functions, [for function in values(module.definitions.functions) : function.name if !function.is_deployed])) == 0
    error_message = "first_generation_functions: ${join(", ", setsubtract(var.first_generation_functions, [for function in values(module.definitions.functions) : function.name if !function.is_deployed]))}: no step calls an existing function of this name."
  }
}

output "service_accounts" {
  description = "Who -> the e-mail address of its account: what functions and Dataflow workers need for the data, they are given by these."
  value       = { for who, account in google_service_account.acting : who => account.email }
}

output "dead_letters" {
  description = "The subscription in which events wait that could not be delivered."
  value       = google_pubsub_subscription.dead_letters.id
}
