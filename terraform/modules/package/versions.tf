# No provider: which files a zip holds is computed and tested without a project and without a network.
terraform {
  required_version = ">= 1.11"
}
