# This file is maintained automatically by "terraform init".
# Manual edits may be lost in future updates.

provider "registry.terraform.io/hashicorp/archive" {
  version     = "2.7.1"
  constraints = "~> 2.7"
  hashes = [
    "h1:RngbydJgBSE4s6WSbN6kDvSAGPEcSFtGIZeBbQaPnWU=",
  ]
}

provider "registry.terraform.io/hashicorp/google" {
  version     = "7.45.0"
  constraints = ">= 7.0.0, < 9.0.0"
  hashes = [
    "h1:ZRdXt/WTMWwXPsQeW4D97BvlSsJOhvVVyC6wa+n9lHQ=",
  ]
}

provider "registry.terraform.io/hashicorp/random" {
  version     = "3.7.2"
  constraints = "~> 3.7"
  hashes = [
    "h1:57bzX3GnS+fMZY9CNJF8MwHZ7G6kLhBMlN3sWsa9MUw=",
  ]
}

provider "registry.terraform.io/hashicorp/time" {
  version     = "0.13.1"
  constraints = "~> 0.13"
  hashes = [
    "h1:+s/xQiwrKpMYuc7nNEw1chK14TjNgkKLpDtVBNQ3AlI=",
  ]
}
