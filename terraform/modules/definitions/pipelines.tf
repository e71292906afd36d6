# The Dataflow pipelines whose source is here: what `gcloud dataflow flex-template build` makes a template of.

locals {
  dataflow_tasks = [for task in local.tasks : task if task.target_type == "Dataflow"]

  pipelines = {
    for file in fileset(var.folder, "*/pipelines/*.py") : trimsuffix(basename(file), ".py") => {
      dag    = split("/", file)[0]
      folder = dirname(file)
      file   = basename(file)
    }...
    if contains(local.dataflow_tasks[*].target_name, trimsuffix(basename(file), ".py"))
  }

  # A template's image has no more than its requirements.txt says: not even Apache Beam.
  pipelines_without_beam = distinct([
    for pipeline in flatten(values(local.pipelines)) : "${pipeline.folder}/requirements.txt"
    if !can(regex("(?mi)^apache[-_.]beam\\b", file("${var.folder}/${pipeline.folder}/requirements.txt")))
  ])

  pipelines_twice = [for name, found in local.pipelines : "${name}: ${join(" and ", found[*].folder)}" if length(found) > 1]
}
