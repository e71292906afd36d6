# The HTTP functions that steps call.

locals {
  function_tasks = [for task in local.tasks : task if task.target_type == "CloudFunction"]

  tasks_of_function = {
    for task in local.function_tasks : "${task.project}/${task.region}/${task.target_name}" => task...
  }

  # Whose source is here: it is deployed, under the name that its folder has, into the deployment's own project.
  sources = {
    for file in fileset(var.folder, "*/functions/*/main.py") : dirname(file) => {
      dag  = split("/", file)[0]
      name = basename(dirname(file))
    }
  }

  folders_of_function = {
    for key, tasks in local.tasks_of_function : key => sort(distinct([
      for folder, source in local.sources : folder
      if source.name == tasks[0].target_name && tasks[0].project == var.project_id
      && contains(tasks[*].dag, source.dag) && !contains(var.skip_functions_of, source.dag)
    ]))
  }

  functions = {
    for key, tasks in local.tasks_of_function : key => {
      name    = tasks[0].target_name
      project = tasks[0].project
      region  = tasks[0].region
      # A function of the 2nd generation is a Cloud Run service, whose name has dashes only.
      service     = replace(lower(tasks[0].target_name), "_", "-")
      entry_point = sort(distinct(tasks[*].function))[0]
      dags        = sort(distinct(tasks[*].dag))
      # By way of the queue it is called in the invoker's name, directly in the orchestrator's own.
      callers     = sort(distinct([for task in tasks : task.invocation == "sync" ? "orchestrator" : "invoker"]))
      folder      = try(local.folders_of_function[key][0], "")
      is_deployed = length(local.folders_of_function[key]) > 0
    }
  }

  sources_twice = [for key, folders in local.folders_of_function : "${key}: ${join(" and ", folders)}" if length(folders) > 1]

  entry_points_twice = [
    for key, tasks in local.tasks_of_function : "${key}: ${join(" and ", sort(distinct(tasks[*].function)))}"
    if length(local.folders_of_function[key]) > 0 && length(distinct(tasks[*].function)) > 1
  ]

  named_like_us = [for key, function in local.functions : key if function.service == var.name && function.project == var.project_id]

  bad_names = [
    for key, function in local.functions : key
    if function.is_deployed && !can(regex("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", function.name))
  ]
}
