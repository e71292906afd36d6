# What Cloud Scheduler publishes: the Tick, and a start message for each DAG that has a schedule.

locals {
  tick = { resource = { type = "tick" } }

  schedules = {
    for dag, definition in local.definitions : dag => {
      # A job's name has letters, digits, - and _ only.
      job       = "${var.name}-start-${replace(dag, "/[^A-Za-z0-9_-]+/", "-")}"
      schedule  = definition.schedule
      time_zone = try(definition.time_zone, "Etc/UTC")
      # A job cannot say for when it fires. So the message says by which schedule it does, and the start computes
      # the rest from that and the time at which the message was published.
      message = {
        resource  = { type = "start" }
        dag       = dag
        schedule  = definition.schedule
        time_zone = try(definition.time_zone, "Etc/UTC")
      }
    } if can(definition.schedule)
  }

  jobs = merge(
    { "${var.name}-tick" = { schedule = "* * * * *", time_zone = "Etc/UTC", message = jsonencode(local.tick) } },
    {
      for job, found in { for found in values(local.schedules) : found.job => found... } : job => {
        schedule  = found[0].schedule
        time_zone = found[0].time_zone
        message   = jsonencode(found[0].message)
      }
    },
  )

  jobs_twice = [for job, dags in { for dag, found in local.schedules : found.job => dag... } : join(" and ", dags) if length(dags) > 1]
}
