# The topics that the orchestrator tells of the events of runs: `notify` of the definitions, and the setting NOTIFY.

locals {
  told = distinct(concat(
    flatten([for definition in local.definitions : [for told in try(definition.notify, []) : try(tostring(told.topic), "")]]),
    # those that a Callback tells its token
    flatten([for body in local.bodies : [for step in body.steps : try(tostring(step.topic), "")]]),
    try([for told in jsondecode(var.notify) : try(tostring(told.topic), "")], []),
  ))

  # Not the topic of events, if one names it: the orchestrator publishes there already, and one right of two owners would go
  # with the first of them.
  notified_topics = {
    for topic in local.told : topic => { project = split("/", topic)[1], name = split("/", topic)[3] }
    if can(regex("^projects/[^/]+/topics/[^/]+$", topic)) && topic != local.topic
  }
}
