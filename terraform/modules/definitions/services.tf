# What the orchestrator needs for each target type: a row a type. Only the rows of types that a definition uses count.
#
#   apis      what has to be enabled
#   roles     what the orchestrator's service account may do in the project of the steps
#   act_as    whether jobs run under a service account that the launch names or implies, which takes iam.serviceAccountUser

locals {
  # Whose workers are machines of Compute Engine in the project.
  on_machines = ["compute.googleapis.com"]

  services = {
    Function = { apis = [], roles = [], act_as = false }
    # What the orchestrator does itself, by its own topic and bucket.
    Dag      = { apis = [], roles = [], act_as = false }
    Callback = { apis = [], roles = [], act_as = false }
    CloudFunction = {
      apis = ["cloudtasks.googleapis.com", "logging.googleapis.com"]
      # Its log line is the only thing that tells of a call's end where the function does not record it itself.
      roles  = ["roles/logging.viewer"]
      act_as = false
    }
    Dataflow    = { apis = concat(["dataflow.googleapis.com"], local.on_machines), roles = ["roles/dataflow.developer"], act_as = true }
    CloudRunJob = { apis = ["run.googleapis.com"], roles = [], act_as = false } # given job by job: jobs below
    BigQuery    = { apis = ["bigquery.googleapis.com"], roles = ["roles/bigquery.jobUser"], act_as = false }
    Dataproc    = { apis = concat(["dataproc.googleapis.com"], local.on_machines), roles = ["roles/dataproc.serverlessEditor"], act_as = true }
    Batch       = { apis = concat(["batch.googleapis.com"], local.on_machines), roles = ["roles/batch.jobsEditor"], act_as = true }
    Workflows = {
      apis   = ["workflows.googleapis.com", "workflowexecutions.googleapis.com"]
      roles  = ["roles/workflows.invoker", "roles/workflows.viewer"]
      act_as = false
    }
    VertexPipeline = { apis = ["aiplatform.googleapis.com"], roles = ["roles/aiplatform.user"], act_as = true }
  }

  # Of every deployment, whatever its definitions use.
  base_apis = [
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "cloudscheduler.googleapis.com",
    "cloudtasks.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "serviceusage.googleapis.com",
    "storage.googleapis.com",
  ]

  apis = toset(concat(local.base_apis, flatten([for type in local.target_types : try(local.services[type].apis, [])])))

  # "project/role" -> both: a step may name another project than the deployment's.
  project_roles = merge([
    for task in local.tasks : {
      for role in try(local.services[task.target_type].roles, []) : "${task.project}/${role}" => {
        project = task.project
        role    = role
      }
    }
  ]...)

  # Whose jobs run as an account that the deployment has to name; Dataflow's workers have one of their own here.
  types_acting_as_others = toset([
    for type in local.target_types : type if try(local.services[type].act_as, false) && type != "Dataflow"
  ])

  run_jobs = {
    for task in local.tasks : "${task.project}/${task.region}/${task.target_name}" => {
      name    = task.target_name
      project = task.project
      region  = task.region
    }... if task.target_type == "CloudRunJob"
  }

  # To start it with our id in its environment and to cancel it; to list and read its executions.
  run_job_roles = merge([
    for key, jobs in local.run_jobs : {
      for role in ["roles/run.jobsExecutorWithOverrides", "roles/run.viewer"] : "${key}/${role}" => merge(jobs[0], { role = role })
    }
  ]...)

  unknown_types = setsubtract(local.target_types, keys(local.services))
}
