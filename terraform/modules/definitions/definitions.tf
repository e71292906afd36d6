# The definitions, as orchestrator/runtime/catalog.py reads them, and their tasks, at whatever depth they stand.

locals {
  json_files = fileset(var.folder, "*/dag.json")
  yaml_files = fileset(var.folder, "*/dag.yaml")
  yml_files  = fileset(var.folder, "*/dag.yml")

  # The first of dag.json, dag.yaml and dag.yml that there is.
  definitions = merge(
    { for file in local.yml_files : dirname(file) => yamldecode(file("${var.folder}/${file}")) },
    { for file in local.yaml_files : dirname(file) => yamldecode(file("${var.folder}/${file}")) },
    { for file in local.json_files : dirname(file) => jsondecode(file("${var.folder}/${file}")) },
  )

  # What a start is given: what the author keeps to try it with, and a place for each input that a step asks for.
  inputs = {
    for dag, definition in local.definitions : dag => merge(
      { for name in distinct(flatten(regexall("\\$\\{run\\.input\\.([A-Za-z_][A-Za-z0-9_]*)", jsonencode(definition)))) : name => "…" },
      try(jsondecode(file("${var.folder}/${dag}/input.json")), {}),
    )
  }

  # Terraform has no recursion: one line a level of Parallels. The check in outputs.tf says when there are more.
  # What runs at a run's end (`finally`) is one more body at the top.
  level_0 = concat(
    [for dag, definition in local.definitions : { dag = dag, steps = definition.steps }],
    [for dag, definition in local.definitions : { dag = dag, steps = definition.finally.steps } if can(definition.finally.steps)],
  )
  level_1 = flatten([for body in local.level_0 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])
  level_2 = flatten([for body in local.level_1 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])
  level_3 = flatten([for body in local.level_2 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])
  level_4 = flatten([for body in local.level_3 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])
  level_5 = flatten([for body in local.level_4 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])
  level_6 = flatten([for body in local.level_5 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])
  level_7 = flatten([for body in local.level_6 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])
  level_8 = flatten([for body in local.level_7 : [for step in body.steps : [for branch in concat(try(step.branches, []), try([step.iterator], [])) : { dag = body.dag, steps = branch.steps }]]])

  bodies = concat(
    local.level_0, local.level_1, local.level_2, local.level_3, local.level_4,
    local.level_5, local.level_6, local.level_7, local.level_8,
  )

  too_deep = distinct([for body in local.level_8 : body.dag if anytrue([for step in body.steps : can(step.branches) || can(step.iterator)])])

  tasks = flatten([
    for body in local.bodies : [
      for name, step in body.steps : {
        dag         = body.dag
        step        = name
        target_type = tostring(step.target_type)
        target_name = tostring(try(step.target_name, ""))
        project     = tostring(try(step.project_id, var.project_id))
        region      = tostring(try(step.region, var.region))
        invocation  = tostring(try(step.invocation, "async"))
        function    = tostring(try(step.function, "main"))
        # What the keys of its launches begin with: orchestrator/model/ids.py, key_of.
        key = "orch-${coalesce(substr(trim(replace(lower(name), "/[^a-z0-9]+/", "-"), "-"), 0, 20), "task")}"
      } if step.type == "Task"
    ]
  ])

  target_types = toset(local.tasks[*].target_type)
}
