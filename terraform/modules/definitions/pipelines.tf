# The Dataflow pipelines whose source is here: what `gcloud dataflow flex-template build` makes a template of.

locals {
  dataflow_tasks = [for task in local.tasks : task if task.target_type == "Dataflow"]

  pipelines = {
    for file in fileset(var.folder, "*/pipelines/*.py") : trimsuffix(basename(file), ".py") => {
      dag              = split("/", file)[0]
      folder           = dirname(file)
      file             = basename(file)
      has_requirements = length(fileset(var.folder, "${dirname(file)}/requirements.txt")) > 0
    }...
    if contains(local.dataflow_tasks[*].target_name, trimsuffix(basename(file), ".py"))
  }

  pipelines_twice = [for name, found in local.pipelines : "${name}: ${join(" and ", found[*].folder)}" if length(found) > 1]
}
