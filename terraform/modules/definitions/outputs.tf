output "definitions" {
  description = "Names of the DAGs."
  value       = keys(local.definitions)

  precondition {
    condition     = length(local.definitions) > 0
    error_message = "${var.folder}: has no DAG; write a folder with a dag.json into it."
  }
  precondition {
    condition     = length(local.too_deep) == 0
    error_message = "${join(", ", local.too_deep)}: has Parallels more than 8 levels deep; Terraform, which has no recursion, sees 8."
  }
  precondition {
    condition     = length(local.unknown_types) == 0
    error_message = "target_type ${join(", ", local.unknown_types)}: is not known here; there are ${join(", ", keys(local.services))}."
  }
  precondition {
    condition     = var.default_dag == "" || contains(keys(local.definitions), var.default_dag)
    error_message = "default_dag: there is no DAG ${var.default_dag}; there are ${join(", ", keys(local.definitions))}."
  }
  precondition {
    condition     = length(local.pools_without_limit) == 0
    error_message = "settings.POOLS: gives the pool ${join(", ", local.pools_without_limit)} no limit; write it as in \"${join(",", [for pool in local.pools_without_limit : "${pool}=5"])}\"."
  }
  precondition {
    condition     = length(setsubtract(var.skip_functions_of, keys(local.definitions))) == 0
    error_message = "skip_functions_of: there is no DAG ${join(", ", setsubtract(var.skip_functions_of, keys(local.definitions)))}; there are ${join(", ", keys(local.definitions))}."
  }
}

output "target_types" {
  description = "The target types that the definitions use."
  value       = local.target_types
}

output "functions" {
  description = "\"project/region/name\" -> a function that steps call: where it is, who calls it, and where its source lies if it is to be deployed."
  value       = local.functions

  precondition {
    condition     = length(local.sources_twice) == 0
    error_message = "Functions with two sources, of which only one can be deployed under the name: ${join("; ", local.sources_twice)}. Rename one, or name a DAG in skip_functions_of."
  }
  precondition {
    condition     = length(local.entry_points_twice) == 0
    error_message = "Functions that steps enter in two ways, of which only one can be deployed: ${join("; ", local.entry_points_twice)}. Give each its own function."
  }
  precondition {
    condition     = length(local.named_like_us) == 0
    error_message = "${join(", ", local.named_like_us)}: has the orchestrator's own name; choose another `name` for the deployment."
  }
  precondition {
    condition     = length(local.bad_names) == 0
    error_message = "${join(", ", local.bad_names)}: cannot be deployed under this name; allowed are a small letter, then up to 62 small letters, digits and -, the last no -."
  }
}

output "pipelines" {
  description = "Name -> a Dataflow pipeline whose source is here: its DAG, folder and file."
  value       = { for name, found in local.pipelines : name => found[0] }

  precondition {
    condition     = length(local.pipelines_twice) == 0
    error_message = "Pipelines with two sources, of which only one can be the template of the name: ${join("; ", local.pipelines_twice)}. Rename one."
  }
  precondition {
    condition     = length(local.pipelines_without_beam) == 0
    error_message = "${join(", ", local.pipelines_without_beam)}: does not name apache-beam, or is not there; a flex template has only what it names, as in apache-beam[gcp]==2.77.0."
  }
}

output "sinks" {
  description = "Name -> a log sink: the project whose log it reads, and its filter."
  value       = local.sinks

  precondition {
    condition     = length(local.too_long) == 0
    error_message = "${join(", ", local.too_long)}: the filter has more than 20,000 characters; the definitions name too many jobs."
  }
}

output "inputs" {
  description = "DAG -> an input to start a run of it with: its input.json, and \"…\" for what its steps ask for beside that."
  value       = local.inputs
}

output "jobs" {
  description = "Name -> a Cloud Scheduler job: its schedule, time zone and the message that it publishes."
  value       = local.jobs

  precondition {
    condition     = length(local.jobs_twice) == 0
    error_message = "DAGs whose scheduler jobs would have one name: ${join("; ", local.jobs_twice)}. Rename one."
  }
}

output "trigger_buckets" {
  description = "Bucket -> the prefix of the objects that start runs; \"\" for all of them."
  value       = local.trigger_buckets

  precondition {
    condition     = length(local.own_bucket) == 0
    error_message = "${join(", ", local.own_bucket)}: has a trigger on ${local.names.state_bucket}, where each run that it starts writes; name another bucket."
  }
}

output "trigger_topics" {
  description = "\"projects/P/topics/T\" -> a topic whose messages start runs: its project, its name, and what our subscription is called."
  value       = local.trigger_topics

  precondition {
    condition     = length(local.own_topics) == 0
    error_message = "${join("; ", local.own_topics)}: is a topic of the orchestrator itself; name one of your own."
  }
}

output "alerts" {
  description = "Key -> an alert: its title, what to do about it, and the filter of the log entries that raise it."
  value       = local.alerts
}

output "apis" {
  description = "The APIs to enable."
  value       = local.apis
}

output "project_roles" {
  description = "\"project/role\" -> a role that the orchestrator needs there for the target types that the definitions use."
  value       = local.project_roles
}

output "run_job_roles" {
  description = "\"project/region/job/role\" -> a role that the orchestrator needs on a Cloud Run job that a step names."
  value       = local.run_job_roles
}

output "notified_topics" {
  description = "\"projects/P/topics/T\" -> a topic that the orchestrator tells of the events of runs: its project and name."
  value       = local.notified_topics
}

output "secrets" {
  description = "Name -> a secret that steps are given: its project and name."
  value       = local.secrets
}

output "types_acting_as_others" {
  description = "The target types in use whose jobs run as an account that the deployment has to name."
  value       = local.types_acting_as_others
}

output "uses_dataflow" {
  description = "Whether a step is a Dataflow job."
  value       = local.uses_dataflow
}

output "names" {
  description = "Thing -> its name."
  value       = local.names
}

output "service_accounts" {
  description = "Who -> the account's id and what it is for."
  value       = local.service_accounts
}

output "emails" {
  description = "Who -> the service account's e-mail address."
  value       = local.emails
}

output "environment" {
  description = "Environment of the orchestrator's function; the deployment's key comes from Secret Manager beside it."
  value       = local.environment
}
