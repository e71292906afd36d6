# What starts runs from outside: `triggers` of the definitions.

locals {
  triggers = flatten([
    for dag, definition in local.definitions : [
      for trigger in try(definition.triggers, []) : {
        dag    = dag
        bucket = tostring(try(trigger.object.bucket, ""))
        prefix = tostring(try(trigger.object.prefix, ""))
        topic  = tostring(try(trigger.topic, ""))
      }
    ]
  ])

  prefixes_by_bucket = { for trigger in local.triggers : trigger.bucket => trigger.prefix... if trigger.bucket != "" }

  # A notification each: a bucket takes ten of one kind, and two of which one has the other's prefix would tell of an object
  # twice. So it is told of all objects, unless all triggers of the bucket look at one prefix.
  trigger_buckets = {
    for bucket, prefixes in local.prefixes_by_bucket : bucket => length(distinct(prefixes)) == 1 ? prefixes[0] : ""
  }

  # A subscription each. Its name has the topic's in it, as far as that goes, and a hash of all of it.
  trigger_topics = {
    for topic in distinct([for trigger in local.triggers : trigger.topic if trigger.topic != ""]) : topic => {
      project      = try(split("/", topic)[1], "")
      name         = try(split("/", topic)[3], "")
      subscription = "${var.name}-trigger-${substr(replace(try(split("/", topic)[3], ""), "/[^A-Za-z0-9-]+/", "-"), 0, 100)}-${substr(sha256(topic), 0, 8)}"
    }
  }

  # Every save of a run writes there.
  own_bucket = distinct([for trigger in local.triggers : trigger.dag if trigger.bucket == local.names.state_bucket])

  # What is not taken for what it says that it is would be an event of ours.
  own_topics = distinct([
    for trigger in local.triggers : "${trigger.dag}: ${trigger.topic}"
    if contains([local.topic, "projects/${var.project_id}/topics/${local.names.dead_letter_topic}"], trigger.topic)
  ])
}
