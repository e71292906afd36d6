# The whole, with providers that only pretend: `terraform init && terraform test` in terraform/, where the providers can be
# had; no project and no credentials are needed. What follows from the definitions is tested without any provider in modules/.

mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "471167364752"
    }
  }

  mock_resource "google_service_account" {
    defaults = {
      id    = "projects/my-project/serviceAccounts/somebody@my-project.iam.gserviceaccount.com"
      name  = "projects/my-project/serviceAccounts/somebody@my-project.iam.gserviceaccount.com"
      email = "somebody@my-project.iam.gserviceaccount.com"
    }
  }

  mock_resource "google_pubsub_topic" {
    defaults = {
      id = "projects/my-project/topics/orchestrator-events"
    }
  }

  mock_resource "google_logging_project_sink" {
    defaults = {
      writer_identity = "serviceAccount:service-471167364752@gcp-sa-logging.iam.gserviceaccount.com"
    }
  }
}

mock_provider "archive" {}

# Else each run of the tests would wait for rights.
mock_provider "time" {}

variables {
  project_id = "my-project"
  region     = "europe-west1"
}

run "events_reach_the_orchestrator_and_nothing_is_lost_on_the_way" {
  assert {
    condition     = google_pubsub_subscription.push.ack_deadline_seconds == 600
    error_message = "An event may take as long as its function."
  }
  assert {
    condition     = google_pubsub_subscription.push.expiration_policy[0].ttl == ""
    error_message = "A subscription that nobody used for a month stays."
  }
  assert {
    condition     = endswith(google_pubsub_subscription.push.push_config[0].push_endpoint, "/projects/my-project/topics/orchestrator-events")
    error_message = "functions-framework reads the topic's name from the path."
  }
  assert {
    condition     = google_pubsub_subscription.push.dead_letter_policy[0].dead_letter_topic == google_pubsub_topic.dead_letters.id
    error_message = "What cannot be delivered is kept."
  }
  assert {
    condition     = google_pubsub_subscription_iam_member.dead_letters.member == "serviceAccount:service-471167364752@gcp-sa-pubsub.iam.gserviceaccount.com"
    error_message = "Pub/Sub itself takes dead letters from the one and puts them into the other."
  }
}

run "the_orchestrator_takes_many_requests_in_few_instances" {
  assert {
    condition     = google_cloudfunctions2_function.orchestrator.service_config[0].max_instance_request_concurrency == 200 && google_cloudfunctions2_function.orchestrator.service_config[0].max_instance_count == 3
    error_message = "Events of one run share a save in one instance."
  }
  assert {
    condition     = google_cloudfunctions2_function.orchestrator.service_config[0].environment_variables["THREADS"] == "80"
    error_message = "It has a thread for each request that it is let have at once."
  }
  assert {
    condition     = google_cloudfunctions2_function.orchestrator.build_config[0].environment_variables["SOURCE_DATE_EPOCH"] != ""
    error_message = "Its byte code holds in an image."
  }
  assert {
    condition     = google_cloudfunctions2_function.orchestrator.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"
    error_message = "Nobody but Google's own services reaches it."
  }
  assert {
    condition     = google_cloudfunctions2_function.orchestrator.service_config[0].secret_environment_variables[0].key == "DEPLOYMENT_KEY"
    error_message = "The key comes from Secret Manager."
  }
  assert {
    condition     = !contains(keys(google_cloudfunctions2_function.orchestrator.service_config[0].environment_variables), "DEPLOYMENT_KEY")
    error_message = "The key does not stand in the environment that everybody can read."
  }
  assert {
    condition     = strcontains(google_storage_bucket_object.orchestrator.name, module.package.hashes.orchestrator)
    error_message = "A zip's name carries the hash of what is in it."
  }
}

run "a_build_may_read_what_cloud_functions_copies_and_no_function_is_built_before_it_may" {
  assert {
    condition     = google_project_iam_member.build_sources.role == "roles/storage.objectViewer" && google_project_iam_member.build_sources.condition[0].expression == "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-471167364752-\")"
    error_message = "The build fetches the zip from Cloud Functions' own bucket, and from no other that is not ours."
  }
  assert {
    condition     = toset(keys(google_project_iam_member.build)) == toset(["roles/logging.logWriter", "roles/artifactregistry.writer"])
    error_message = "It writes its log and its image."
  }
  assert {
    condition     = time_sleep.rights_are_known.create_duration == "60s"
    error_message = "Rights take a while to be known everywhere."
  }
}

run "each_function_of_the_samples_is_deployed_and_may_be_called_by_who_calls_it" {
  assert {
    condition     = toset(values(google_cloudfunctions2_function.task)[*].name) == toset(["orch-test-1", "orch-test-2", "orch-test-3", "wordcount-init", "wordcount-profile", "wordcount-report"])
    error_message = "The samples have six functions."
  }
  assert {
    condition     = length(google_cloud_run_service_iam_member.callers) == 6 && alltrue([for key in keys(google_cloud_run_service_iam_member.callers) : endswith(key, "/orchestrator")])
    error_message = "The samples call theirs directly."
  }
  assert {
    condition     = length(google_storage_bucket_iam_member.functions_results) == 0
    error_message = "None of them uses orchestrator.tasks, so none needs the runs' bucket."
  }
  assert {
    condition     = length(output.existing_functions) == 0
    error_message = "None is taken as existing."
  }
}

run "a_function_can_be_larger_than_the_others" {
  variables {
    functions = {
      orch-test-1 = { memory = "2Gi", environment = { LEVEL = "debug" } }
      orch-test-2 = { service_account = "loader@my-project.iam.gserviceaccount.com" }
    }
  }

  assert {
    condition     = google_cloudfunctions2_function.task["my-project/europe-west1/orch-test-1"].service_config[0].available_memory == "2Gi" && google_cloudfunctions2_function.task["my-project/europe-west1/orch-test-1"].service_config[0].available_cpu == "1"
    error_message = "What is not said stays as it is for all."
  }
  assert {
    condition     = google_cloudfunctions2_function.task["my-project/europe-west1/orch-test-1"].service_config[0].environment_variables.LEVEL == "debug"
    error_message = "Its environment is its own."
  }
  assert {
    condition     = google_cloudfunctions2_function.task["my-project/europe-west1/orch-test-2"].service_config[0].service_account_email == "loader@my-project.iam.gserviceaccount.com"
    error_message = "It runs as who it needs to be."
  }
}

run "each_account_that_records_results_may_do_so" {
  variables {
    functions = {
      orch-test-2 = { service_account = "loader@my-project.iam.gserviceaccount.com" }
      orch-test-3 = { service_account = "loader@my-project.iam.gserviceaccount.com" }
      # Its code does not use orchestrator.tasks.
      wordcount-init = { service_account = "reader@my-project.iam.gserviceaccount.com" }
    }
  }

  override_module {
    target = module.package
    outputs = {
      orchestrator = {}
      functions = {
        "my-project/europe-west1/orch-test-1"       = {}
        "my-project/europe-west1/orch-test-2"       = {}
        "my-project/europe-west1/orch-test-3"       = {}
        "my-project/europe-west1/wordcount-init"    = {}
        "my-project/europe-west1/wordcount-profile" = {}
        "my-project/europe-west1/wordcount-report"  = {}
      }
      hashes = {
        orchestrator                                = "0"
        "my-project/europe-west1/orch-test-1"       = "1"
        "my-project/europe-west1/orch-test-2"       = "2"
        "my-project/europe-west1/orch-test-3"       = "3"
        "my-project/europe-west1/wordcount-init"    = "4"
        "my-project/europe-west1/wordcount-profile" = "5"
        "my-project/europe-west1/wordcount-report"  = "6"
      }
      uses_package = {
        "my-project/europe-west1/orch-test-1"       = true
        "my-project/europe-west1/orch-test-2"       = true
        "my-project/europe-west1/orch-test-3"       = true
        "my-project/europe-west1/wordcount-init"    = false
        "my-project/europe-west1/wordcount-profile" = false
        "my-project/europe-west1/wordcount-report"  = false
      }
    }
  }

  assert {
    condition = { for key, right in google_storage_bucket_iam_member.functions_results : key => right.member } == {
      functions                                   = "serviceAccount:somebody@my-project.iam.gserviceaccount.com"
      "loader@my-project.iam.gserviceaccount.com" = "serviceAccount:loader@my-project.iam.gserviceaccount.com"
    }
    error_message = "Who records results: ${join(", ", keys(google_storage_bucket_iam_member.functions_results))}."
  }
  assert {
    condition     = alltrue([for right in google_storage_bucket_iam_member.functions_results : endswith(right.condition[0].expression, "/objects/results/\")")])
    error_message = "They see nothing else of the bucket."
  }
}

run "a_call_is_made_once_and_a_bucket_is_nobody_elses" {
  assert {
    condition     = google_cloud_tasks_queue.launches.retry_config[0].max_attempts == 1
    error_message = "Attempts are the orchestrator's."
  }
  assert {
    condition     = google_storage_bucket.state.uniform_bucket_level_access && google_storage_bucket.state.public_access_prevention == "enforced" && google_storage_bucket.state.versioning[0].enabled
    error_message = "The state bucket is private and versioned."
  }
  assert {
    condition     = google_storage_bucket.state.force_destroy
    error_message = "Unless asked otherwise, nothing is left behind."
  }
}

run "the_state_bucket_is_kept_if_asked" {
  variables {
    keep_state_bucket = true
    keep_runs_days    = 400
  }

  assert {
    condition     = !google_storage_bucket.state.force_destroy
    error_message = "A bucket with runs in it is not destroyed."
  }
  assert {
    condition     = length(google_storage_bucket.state.lifecycle_rule) == 2
    error_message = "Runs have an age now."
  }
}

run "rights_are_those_of_the_target_types_that_are_used" {
  variables {
    job_service_accounts = { spark = "spark@my-project.iam.gserviceaccount.com" }
    starters             = { team = "group:data@example.com" }
  }

  assert {
    condition     = toset(keys(google_project_iam_member.orchestrator)) == toset(["my-project/roles/dataflow.developer", "my-project/roles/logging.viewer"])
    error_message = "The samples have functions and a Dataflow job."
  }
  assert {
    condition     = toset(keys(google_service_account_iam_member.orchestrator_acts_as)) == toset(["invoker", "dataflow", "job spark"])
    error_message = "It acts as these and as no other."
  }
  assert {
    condition     = toset(keys(google_pubsub_topic_iam_member.events)) == toset(["orchestrator", "invoker", "starter team"])
    error_message = "Who publishes events."
  }
}

run "topics_that_are_told_of_runs_may_be_published_to" {
  variables {
    settings = { NOTIFY = "[{\"on\": [\"failed\"], \"topic\": \"projects/other-project/topics/alerts\"}]" }
  }

  assert {
    condition     = keys(google_pubsub_topic_iam_member.notified) == ["projects/other-project/topics/alerts"]
    error_message = "The samples tell nobody, the setting tells one: ${join(", ", keys(google_pubsub_topic_iam_member.notified))}."
  }
  assert {
    condition = alltrue([for right in google_pubsub_topic_iam_member.notified :
    right.project == "other-project" && right.topic == "alerts" && right.role == "roles/pubsub.publisher"])
    error_message = "The topic may be in another project."
  }
  assert {
    condition     = length(google_secret_manager_secret_iam_member.given_to_steps) == 0
    error_message = "The samples ask for no secret."
  }
}

run "nobody_else_may_publish_and_nothing_is_subscribed_to_without_triggers" {
  assert {
    condition     = length(google_pubsub_topic_iam_member.buckets) == 0 && length(google_storage_notification.triggers) == 0
    error_message = "The samples are triggered by no bucket."
  }
  assert {
    condition     = length(google_pubsub_subscription.triggers) == 0
    error_message = "Nor by a topic."
  }
}

run "the_outputs_are_commands" {
  assert {
    condition     = output.start_commands["sample"] == "gcloud pubsub topics publish projects/my-project/topics/orchestrator-events --message='{\"dag\":\"sample\",\"input\":{},\"resource\":{\"type\":\"start\"}}'"
    error_message = output.start_commands["sample"]
  }
  assert {
    condition     = strcontains(output.start_commands["wordcount"], "\"input\":{\"output\":\"") && strcontains(output.start_commands["wordcount"], "\"text\":\"")
    error_message = output.start_commands["wordcount"]
  }
  assert {
    condition     = startswith(output.flex_template_commands["wordcount"], "gcloud dataflow flex-template build gs://my-project-orchestrator-dataflow/templates/wordcount.json --project=my-project --image-gcr-path=europe-west1-docker.pkg.dev/my-project/orchestrator-templates/wordcount:latest ")
    error_message = output.flex_template_commands["wordcount"]
  }
  assert {
    condition     = endswith(output.flex_template_commands["wordcount"], " --env=FLEX_TEMPLATE_PYTHON_REQUIREMENTS_FILE=requirements.txt")
    error_message = "The template has Apache Beam: ${output.flex_template_commands["wordcount"]}."
  }
}

run "a_setting_that_follows_from_the_deployment_is_refused" {
  command = plan

  variables {
    settings = { STATUS_BUCKET = "gs://another" }
  }

  expect_failures = [google_cloudfunctions2_function.orchestrator]
}

run "the_key_is_no_setting" {
  command = plan

  variables {
    settings = { DEPLOYMENT_KEY = "mine" }
  }

  expect_failures = [var.settings]
}

run "a_size_of_a_function_that_there_is_not_is_refused" {
  command = plan

  variables {
    functions = { orch-tset-1 = { memory = "2Gi" } }
  }

  expect_failures = [output.existing_functions]
}

run "wrong_variables_are_refused_all_at_once" {
  command = plan

  variables {
    project_id             = "My Project"
    region                 = "europe-west1-b"
    name                   = "x"
    orchestrator           = { concurrency = 2000, max_instances = 0 }
    function_defaults      = { timeout_seconds = 9000 }
    starters               = { all = "allUsers" }
    alert_emails           = { team = "nobody" }
    job_service_accounts   = { me = "me@example.com" }
    noncurrent_days        = 0
    keep_runs_days         = 7
    deployment_key_version = 0
    settings               = { "default timeout" = "1h" }
  }

  expect_failures = [
    var.project_id, var.region, var.name, var.orchestrator, var.function_defaults, var.starters, var.alert_emails,
    var.job_service_accounts, var.noncurrent_days, var.keep_runs_days, var.deployment_key_version, var.settings,
  ]
}
