# The secrets that the orchestrator reads from Secret Manager: `${secret.NAME}` in the parameters of Tasks, where alone it
# can stand (orchestrator/model/expressions.py), in the deployment's own project (orchestrator/secrets/secret_manager.py).

locals {
  # In JSON, where a quote of ${secret["NAME"]} has a backslash before it. What follows a $ is text: $${secret.NAME}.
  secret_names = distinct(flatten([
    for body in local.bodies : [
      for step in body.steps : regexall(
        "[^$]\\$\\{(?: |\\\\[tnr])*secret(?:\\.|\\['|\\[\\\\\")([A-Za-z0-9_-]{1,255})",
        jsonencode(try(step.parameters, {})),
      ) if step.type == "Task"
    ]
  ]))

  # Not the deployment's key, if one names it: the orchestrator has it already, and one right of two owners would go with the
  # first of them.
  secrets = {
    for name in local.secret_names : name => { project = var.project_id, name = name } if name != local.names.secret
  }
}
