# An account for each that acts, so that each can be given what it needs and no more.

resource "google_service_account" "acting" {
  for_each = {
    for who, account in module.definitions.service_accounts : who => account
    if who != "dataflow" || module.definitions.uses_dataflow
  }

  project      = var.project_id
  account_id   = each.value.id
  display_name = "${var.name}: ${each.value.does}"

  depends_on = [google_project_service.enabled]
}

locals {
  member = { for who, account in google_service_account.acting : who => "serviceAccount:${account.email}" }
}
