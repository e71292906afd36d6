# No provider: what follows from the definitions is computed, tested and planned without a project and without a network.
terraform {
  required_version = ">= 1.11"
}
