# What follows from dag_definitions/: without a provider, so that it is tested offline.

locals {
  root = "${path.module}/.."

  deployed = { for key, function in module.definitions.functions : key => function if function.is_deployed }
}

module "definitions" {
  source = "./modules/definitions"

  folder            = "${local.root}/dag_definitions"
  name              = var.name
  project_id        = var.project_id
  region            = var.region
  default_dag       = var.default_dag
  notify            = lookup(var.settings, "NOTIFY", "")
  pools             = lookup(var.settings, "POOLS", "")
  skip_functions_of = var.skip_functions_of
}

module "package" {
  source = "./modules/package"

  root      = local.root
  functions = { for key, function in local.deployed : key => function.folder }
}
