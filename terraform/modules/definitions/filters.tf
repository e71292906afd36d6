# Log sinks: which entries wake the orchestrator. Only the ends of what the definitions name, and never its own.
#
# A filter has 20,000 characters at most, so names go in portions. Operators bind as NOT, OR, AND, in this order, so
# there are parentheses around whatever is not plain. Comparisons ignore case, regular expressions do not.

locals {
  portion = 80

  # "project/region" -> names of the functions there
  functions_by_place = { for function in local.functions : "${function.project}/${function.region}" => function... }

  function_portions = merge([
    for place, functions in local.functions_by_place : {
      for number, some in chunklist(sort(functions[*].name), local.portion) :
      "functions-${split("/", place)[1]}${number == 0 ? "" : "-${number}"}${split("/", place)[0] == var.project_id ? "" : "-${split("/", place)[0]}"}" => {
        project = split("/", place)[0]
        region  = split("/", place)[1]
        names   = some
      }
    }
  ]...)

  # The 2nd generation's request log has the URL with our launch id in it, so that only calls of ours match. The 1st
  # generation's log has one line at the end of every call, with nothing of ours but the trace.
  function_filters = {
    for key, portion in local.function_portions : key => {
      project = portion.project
      filter  = <<-EOT
        (
          log_id("run.googleapis.com/requests")
          AND resource.type="cloud_run_revision"
          AND resource.labels.location="${portion.region}"
          AND resource.labels.service_name=(${join(" OR ", distinct([for name in portion.names : "\"${replace(lower(name), "_", "-")}\""]))})
          AND httpRequest.requestUrl=~"[?&]orchestrator_launch=[A-Za-z0-9_-]+(%2[Ff]|/)"
        ) OR (
          log_id("cloudfunctions.googleapis.com/cloud-functions")
          AND resource.type="cloud_function"
          AND resource.labels.region="${portion.region}"
          AND resource.labels.function_name=(${join(" OR ", [for name in portion.names : "\"${name}\""])})
          AND textPayload=~"^Function execution took [0-9]+ ms"
        )
      EOT
    }
  }

  # target_type, project -> its tasks
  tasks_by_type = { for task in local.tasks : "${task.target_type}/${task.project}" => task... }

  # Our key is the job's name or id: its readable part is the step's name, then come the attempt and a hash.
  keys_by_type = {
    for place, tasks in local.tasks_by_type : place => "orch-(${join("|", sort(distinct([for task in tasks : trimprefix(task.key, "orch-")])))})[0-9-]*-[0-9a-f]{24}"
  }

  names_by_type = {
    for place, tasks in local.tasks_by_type : place => "(${join(" OR ", sort(distinct([for task in tasks : "\"${task.target_name}\""])))})"
  }

  # A row a service that leaves a clean line at a job's end. What it leaves is a reason to ask the service, no more.
  # Dataproc batches and Batch jobs leave none: they are asked by reminders.
  job_filters_of = {
    Dataflow = {
      for place in keys(local.tasks_by_type) : place => <<-EOT
        log_id("dataflow.googleapis.com/job-message")
        AND resource.type="dataflow_step"
        AND (
          resource.labels.job_name=~"^${local.keys_by_type[place]}$"
          OR labels."dataflow.googleapis.com/job_name"=~"^${local.keys_by_type[place]}$"
        )
        AND textPayload=~"^(Worker pool stopped\\.\\s*$|Error occurred in the launcher container|Workflow failed\\. Causes:|Cancel request is committed for workflow job)"
      EOT
    }
    CloudRunJob = {
      for place in keys(local.tasks_by_type) : place => <<-EOT
        log_id("cloudaudit.googleapis.com/system_event")
        AND resource.type="cloud_run_job"
        AND resource.labels.job_name=${local.names_by_type[place]}
        AND protoPayload.methodName="/Jobs.RunJob"
      EOT
    }
    BigQuery = {
      for place in keys(local.tasks_by_type) : place => <<-EOT
        log_id("cloudaudit.googleapis.com/data_access")
        AND resource.type="bigquery_project"
        AND protoPayload.serviceName="bigquery.googleapis.com"
        AND protoPayload.metadata.jobChange.after="DONE"
        AND protoPayload.metadata.jobChange.job.jobName=~"/jobs/${local.keys_by_type[place]}$"
      EOT
    }
    Workflows = {
      for place in keys(local.tasks_by_type) : place => <<-EOT
        log_id("workflows.googleapis.com/executions_system")
        AND resource.type="workflows.googleapis.com/Workflow"
        AND resource.labels.workflow_id=${local.names_by_type[place]}
        AND jsonPayload.state=("SUCCEEDED" OR "FAILED" OR "CANCELLED")
      EOT
    }
    VertexPipeline = {
      for place in keys(local.tasks_by_type) : place => <<-EOT
        log_id("aiplatform.googleapis.com/pipeline_job_events")
        AND resource.type="aiplatform.googleapis.com/PipelineJob"
        AND resource.labels.pipeline_job_id=~"^${local.keys_by_type[place]}$"
        AND jsonPayload.state=("PIPELINE_STATE_SUCCEEDED" OR "PIPELINE_STATE_FAILED" OR "PIPELINE_STATE_CANCELLED")
      EOT
    }
  }

  # Functions have filters of their own above, Function steps run inside of the orchestrator.
  job_filters = merge([
    for place, tasks in local.tasks_by_type : {
      for type in [tasks[0].target_type] : "${lower(type)}${tasks[0].project == var.project_id ? "" : "-${tasks[0].project}"}" => {
        project = tasks[0].project
        filter  = local.job_filters_of[type][place]
      } if contains(keys(local.job_filters_of), type)
    }
  ]...)

  not_ours = "NOT (resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\")"

  # Sinks: name -> the project whose log it reads, and its filter.
  sinks = {
    for key, found in merge(local.function_filters, local.job_filters) : "${var.name}-${key}" => {
      project = found.project
      filter  = "(\n${indent(2, "  ${trimspace(found.filter)}")}\n) AND ${local.not_ours}"
    }
  }

  too_long = [for name, sink in local.sinks : name if length(sink.filter) > 20000]
}
