# The pools that steps name: each needs its limit in POOLS, else its steps would fail when they are to start
# (orchestrator/engine/queueing.py, Launch.NoPool).

locals {
  pools = distinct(flatten([for body in local.bodies : [for step in body.steps : tostring(step.pool) if can(step.pool)]]))

  pools_without_limit = setsubtract(local.pools, [for each in split(",", replace(var.pools, "/[ ,]+/", ",")) : split("=", each)[0]])
}
