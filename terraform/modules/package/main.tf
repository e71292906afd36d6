# What the zips hold: path in the zip -> file on disk. Text only, for archive_file packs text; a binary file in a
# function's folder is an error of the plan, not a file that is missing later.

locals {
  package = [for file in fileset(var.root, "orchestrator/**/*.py") : file if !strcontains(file, "__pycache__/")]

  # Of dag_definitions/ the orchestrator needs the definitions and what its Function steps import or read. What runs
  # elsewhere (functions/, pipelines/), and data, is not in the zip: a change there is no new version of the orchestrator.
  definitions = [
    for file in fileset(var.root, "dag_definitions/**/*.{py,json,yaml,yml,toml,sql,txt}") : file
    if !can(regex("^dag_definitions/[^/]+/(functions|pipelines|data)/", file)) && !strcontains(file, "__pycache__/")
  ]

  orchestrator = {
    for file in concat(["main.py", "requirements.txt"], local.package, local.definitions) : file => "${var.root}/${file}"
  }

  own_files = {
    for key, folder in var.functions : key => {
      for file in fileset("${var.root}/dag_definitions/${folder}", "**") : file => "${var.root}/dag_definitions/${folder}/${file}"
      if !can(regex("(^|/)(__pycache__|\\.[^/]*)(/|$)|\\.pyc$", file))
    }
  }

  # A function that uses orchestrator.tasks has the package in its zip: it is on no index that pip could take it from.
  uses_package = {
    for key, files in local.own_files : key => anytrue([
      for file, path in files : can(regex("(?m)^[ \\t]*(from|import)[ \\t]+orchestrator([. \\t,]|$)", file(path))) if endswith(file, ".py")
    ])
  }

  functions = {
    for key, files in local.own_files : key => merge(
      local.uses_package[key] ? { for file in local.package : file => "${var.root}/${file}" } : {},
      files,
    )
  }

  # The same on every machine and in every year, as a zip's own hash need not be.
  hashes = {
    for key, files in merge(local.functions, { orchestrator = local.orchestrator }) :
    key => substr(sha256(join("\n", [for file, path in files : "${file} ${filesha256(path)}"])), 0, 16)
  }
}
