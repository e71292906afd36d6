output "orchestrator" {
  description = "Path in the orchestrator's zip -> file."
  value       = local.orchestrator
}

output "functions" {
  description = "Key of a function -> path in its zip -> file."
  value       = local.functions
}

output "uses_package" {
  description = "Key of a function -> whether it uses orchestrator.tasks, and so has the package in its zip."
  value       = local.uses_package
}

output "hashes" {
  description = "Key of a function, or \"orchestrator\" -> hash of what its zip holds."
  value       = local.hashes
}
