# Offline: `terraform init && terraform test` in modules/definitions. The same outputs are held to Python's side, and the
# filters to recorded log entries, in tests/terraform/.

variables {
  folder     = "./tests/fixtures/every"
  name       = "orchestrator"
  project_id = "my-project"
  region     = "europe-west1"
}

run "a_definition_with_every_target_type" {
  command = plan

  assert {
    condition     = length(output.target_types) == 9
    error_message = "Nine target types are used: ${join(", ", output.target_types)}."
  }
  assert {
    condition = toset([for role in values(output.project_roles) : role.role]) == toset([
      "roles/aiplatform.user", "roles/batch.jobsEditor", "roles/bigquery.jobUser", "roles/dataflow.developer",
      "roles/dataproc.serverlessEditor", "roles/logging.viewer", "roles/workflows.invoker", "roles/workflows.viewer",
    ])
    error_message = "The roles are those of the types: ${join(", ", keys(output.project_roles))}."
  }
  assert {
    condition     = toset(keys(output.run_job_roles)) == toset([for role in ["jobsExecutorWithOverrides", "viewer"] : "my-project/europe-west1/report/roles/run.${role}"])
    error_message = "The Cloud Run job is given by itself."
  }
  assert {
    condition = toset(keys(output.sinks)) == toset([
      for what in ["bigquery", "cloudrunjob", "dataflow", "functions-europe-west1", "vertexpipeline", "workflows"] : "orchestrator-${what}"
    ])
    error_message = "There is a sink for each type that leaves a line at its end: ${join(", ", keys(output.sinks))}."
  }
  assert {
    condition     = alltrue([for sink in values(output.sinks) : endswith(sink.filter, "AND NOT (resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"orchestrator\")")])
    error_message = "No sink delivers what the orchestrator itself writes."
  }
  assert {
    condition     = output.types_acting_as_others == toset(["Batch", "Dataproc", "VertexPipeline"]) && output.uses_dataflow
    error_message = "Dataflow jobs run under an account that is made here, those of three other types under one that is named."
  }
}

run "the_apis_are_those_of_the_types_and_those_that_everything_needs" {
  command = plan

  assert {
    condition = length(setsubtract([
      for api in ["aiplatform", "batch", "bigquery", "compute", "cloudresourcemanager", "cloudtasks", "dataflow", "dataproc", "run", "serviceusage", "workflowexecutions"] :
      "${api}.googleapis.com"
    ], output.apis)) == 0
    error_message = "They are ${join(", ", output.apis)}."
  }
}

run "the_topics_that_are_told_and_the_secrets_that_are_given_are_named" {
  command = plan

  variables {
    notify = "[{\"on\": [\"failed\"], \"topic\": \"projects/my-project/topics/all-dags\"}]"
  }

  assert {
    condition = output.notified_topics == {
      "projects/my-project/topics/all-dags"  = { project = "my-project", name = "all-dags" }
      "projects/other-project/topics/alerts" = { project = "other-project", name = "alerts" }
    }
    error_message = "One is told of nightly's runs, one of all: ${join(", ", keys(output.notified_topics))}."
  }
  assert {
    condition     = output.secrets == { api-key = { project = "my-project", name = "api-key" } }
    error_message = "A step in a Parallel is given one: ${join(", ", keys(output.secrets))}."
  }
}

run "one_function_of_two_dags_is_deployed_once_and_called_by_both" {
  command = plan

  assert {
    condition     = keys(output.functions) == ["my-project/europe-west1/load"]
    error_message = "Both DAGs call the one function."
  }
  assert {
    condition     = output.functions["my-project/europe-west1/load"].folder == "by-hand/functions/load"
    error_message = "Its source lies in one of the two DAGs."
  }
  assert {
    condition     = tolist(output.functions["my-project/europe-west1/load"].callers) == tolist(["invoker", "orchestrator"])
    error_message = "One calls it by the queue, the other directly."
  }
}

run "a_dag_opts_out_of_having_its_functions_deployed" {
  command = plan

  variables {
    skip_functions_of = ["by-hand"]
  }

  assert {
    condition     = !output.functions["my-project/europe-west1/load"].is_deployed
    error_message = "It is taken as existing."
  }
}

run "the_scheduler_publishes_the_tick_and_the_start_of_a_dag_with_a_schedule" {
  command = plan

  assert {
    condition     = keys(output.jobs) == ["orchestrator-start-nightly", "orchestrator-tick"]
    error_message = "Only nightly has a schedule: ${join(", ", keys(output.jobs))}."
  }
  assert {
    condition = jsondecode(output.jobs["orchestrator-start-nightly"].message) == {
      resource  = { type = "start" }
      dag       = "nightly"
      schedule  = "30 6 * * 1-5"
      time_zone = "Europe/Berlin"
    }
    error_message = "The message says by which schedule it was sent."
  }
  assert {
    condition     = output.jobs["orchestrator-start-nightly"].time_zone == "Europe/Berlin"
    error_message = "The job fires in the zone of the definition."
  }
}

run "buckets_and_topics_that_start_runs_are_named" {
  command = plan

  assert {
    condition     = output.trigger_buckets == { landing = "", uploads = "today/" }
    error_message = "A bucket tells of one prefix, or of all objects: ${jsonencode(output.trigger_buckets)}."
  }
  assert {
    condition     = keys(output.trigger_topics) == ["projects/other-project/topics/orders"]
    error_message = "One topic of another project starts runs."
  }
  assert {
    condition     = can(regex("^orchestrator-trigger-orders-[0-9a-f]{8}$", output.trigger_topics["projects/other-project/topics/orders"].subscription))
    error_message = "The subscription is called after it."
  }
}

run "a_deployment_of_another_name_shares_no_name_with_it" {
  command = plan

  variables {
    name = "orchestrator-test"
  }

  assert {
    condition     = alltrue([for name in values(output.names) : strcontains(name, "orchestrator-test")])
    error_message = "Every name has the deployment's in it."
  }
  assert {
    condition     = alltrue([for account in values(output.service_accounts) : length(account.id) <= 30])
    error_message = "An account's id has 30 characters at most."
  }
}

run "names_stay_within_googles_limits_at_the_longest_name" {
  command = plan

  variables {
    name       = "orchestrator-stage" # 18 characters, as variables.tf allows
    project_id = "a-project-id-of-30-characters0"
  }

  assert {
    condition     = alltrue([for account in values(output.service_accounts) : length(account.id) <= 30])
    error_message = "An account's id has 30 characters at most."
  }
  assert {
    condition     = alltrue([for thing in ["state_bucket", "source_bucket", "dataflow_bucket"] : length(output.names[thing]) <= 63])
    error_message = "A bucket's name has 63 characters at most."
  }
}

run "two_sources_of_one_function_are_refused" {
  command = plan

  variables {
    folder = "./tests/fixtures/clash"
  }

  expect_failures = [output.functions]
}

run "a_folder_without_a_dag_is_refused" {
  command = plan

  variables {
    folder = "./tests/fixtures/empty"
  }

  expect_failures = [output.definitions]
}

run "a_default_that_is_no_dag_is_refused" {
  command = plan

  variables {
    default_dag = "weekly"
  }

  expect_failures = [output.definitions]
}

run "a_pool_without_a_limit_is_refused" {
  command = plan

  variables {
    folder = "./tests/fixtures/pooled"
    pools  = "api=2"
  }

  expect_failures = [output.definitions]
}

run "pools_with_limits_are_deployed" {
  command = plan

  variables {
    folder = "./tests/fixtures/pooled"
    pools  = "bigquery=5, api=2"
  }

  assert {
    condition     = join(",", output.definitions) == "nightly"
    error_message = "Both pools have a limit."
  }
}

run "the_name_of_a_function_is_not_free_for_the_deployment" {
  command = plan

  variables {
    name = "load"
  }

  expect_failures = [output.functions]
}
