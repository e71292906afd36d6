# What a person is told of: filters over our own structured log (orchestrator/runtime/logs.py), and the sinks' errors.

locals {
  our_log = <<-EOT
    log_id("run.googleapis.com/stdout")
    AND resource.type="cloud_run_revision"
    AND resource.labels.service_name="${var.name}"
    AND jsonPayload.logger="orchestrator"
  EOT

  alerts = {
    failed-runs = {
      title  = "a run failed"
      about  = "The run's document says which step failed and why: `orchestrator status RUN_ID`."
      filter = "${trimspace(local.our_log)}\nAND jsonPayload.message=~\"^run ended: Failed\""
    }
    late-runs = {
      title  = "a run has not ended by its deadline"
      about  = "It runs on. What it waits for: `orchestrator status RUN_ID`."
      filter = "${trimspace(local.our_log)}\nAND jsonPayload.message=~\"^run late: \""
    }
    dead-letters = {
      title  = "an event was acknowledged, but not handled"
      about  = "Nothing can be done with it. It is kept in the state bucket under dead_letters/, with the reason."
      filter = "${trimspace(local.our_log)}\nAND jsonPayload.message=~\"^acknowledged, but not handled: \""
    }
    sink-errors = {
      title  = "a log sink cannot deliver"
      about  = "Ends of tasks are then found by the Tick alone, a minute or more later. Look at the topic's rights."
      filter = "log_id(\"logging.googleapis.com/sink_error\")\nAND resource.type=\"logging_sink\"\nAND resource.labels.name=~\"^${var.name}-\""
    }
  }
}
