# What things are called, and the orchestrator's environment: the names of orchestrator/runtime/settings.py.

locals {
  names = {
    topic             = "${var.name}-events"
    dead_letter_topic = "${var.name}-dead-letters"
    push_subscription = "${var.name}-push"
    queue             = "${var.name}-launches"
    state_bucket      = "${var.project_id}-${var.name}-state"
    source_bucket     = "${var.project_id}-${var.name}-source"
    dataflow_bucket   = "${var.project_id}-${var.name}-dataflow"
    secret            = "${var.name}-deployment-key"
    template_registry = "${var.name}-templates"
    orchestrator      = var.name
  }

  # Account ids have 30 characters at most; `name` has 18.
  service_accounts = {
    orchestrator = { id = var.name, does = "runs the orchestrator" }
    invoker      = { id = "${var.name}-invoker", does = "calls functions, and publishes what was delayed" }
    push         = { id = "${var.name}-push", does = "delivers events to the orchestrator" }
    functions    = { id = "${var.name}-functions", does = "runs the functions of dag_definitions/" }
    dataflow     = { id = "${var.name}-dataflow", does = "runs the workers of Dataflow jobs" }
    build        = { id = "${var.name}-build", does = "builds the functions" }
  }

  emails = { for key, account in local.service_accounts : key => "${account.id}@${var.project_id}.iam.gserviceaccount.com" }

  topic = "projects/${var.project_id}/topics/${local.names.topic}"
  queue = "projects/${var.project_id}/locations/${var.region}/queues/${local.names.queue}"

  uses_dataflow = contains(local.target_types, "Dataflow")

  environment = merge(
    {
      STATUS_BUCKET           = "gs://${local.names.state_bucket}"
      DAG_DEFINITIONS         = "dag_definitions"
      EVENTS_TOPIC            = local.topic
      TASKS_QUEUE             = local.queue
      INVOKER_SERVICE_ACCOUNT = local.emails.invoker
      GOOGLE_CLOUD_PROJECT    = var.project_id
      FUNCTION_REGION         = var.region
    },
    var.default_dag == "" ? {} : { DEFAULT_DAG = var.default_dag },
    local.uses_dataflow ? {
      DATAFLOW_TEMPLATES       = "gs://${local.names.dataflow_bucket}/templates"
      DATAFLOW_TEMP_LOCATION   = "gs://${local.names.dataflow_bucket}/temp"
      DATAFLOW_SERVICE_ACCOUNT = local.emails.dataflow
    } : {},
  )
}
