variable "project_id" {
  description = "The Google Cloud project to deploy to."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id: is a project's id, not its name or number: 6 to 30 small letters, digits and -."
  }
}

variable "region" {
  description = "The region of everything, and of the steps that name none."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region: is a region such as europe-west1, not a zone and not a continent."
  }
}

variable "name" {
  description = "Name of the deployment: of its function, and what the names of all else begin with. Another name is another environment in the same project."
  type        = string
  default     = "orchestrator"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,16}[a-z0-9]$", var.name))
    error_message = "name: has 6 to 18 small letters, digits and -; the first is a letter, the last no -."
  }
}

variable "default_dag" {
  description = "The DAG of a start message that names none; empty: there has to be but one then."
  type        = string
  default     = ""
}

variable "skip_functions_of" {
  description = "DAGs whose functions somebody else deploys, though their source lies in the DAG's folder."
  type        = set(string)
  default     = []
}

variable "first_generation_functions" {
  description = "Names of functions that steps call, that exist already and that are of the 1st generation."
  type        = set(string)
  default     = []
}

variable "orchestrator" {
  description = "Size of the orchestrator's function. Many requests at once in few instances share the saves of a run."
  type = object({
    memory        = optional(string, "512Mi")
    cpu           = optional(string, "1")
    concurrency   = optional(number, 200)
    max_instances = optional(number, 3)
    min_instances = optional(number, 0)
  })
  default = {}

  validation {
    condition     = var.orchestrator.concurrency >= 1 && var.orchestrator.concurrency <= 1000
    error_message = "orchestrator.concurrency: is 1 to 1000."
  }
  validation {
    condition     = var.orchestrator.max_instances >= 1 && var.orchestrator.min_instances <= var.orchestrator.max_instances
    error_message = "orchestrator.max_instances: is 1 or more, and not below min_instances."
  }
}

variable "settings" {
  description = "Further settings of the orchestrator (README.md has the table), such as DEFAULT_TIMEOUT; not those that follow from the deployment itself."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "settings: are environment variables, such as DEFAULT_TIMEOUT."
  }
  validation {
    condition     = !contains(keys(var.settings), "DEPLOYMENT_KEY")
    error_message = "settings: DEPLOYMENT_KEY comes from Secret Manager; raise deployment_key_version for a new one."
  }
}

variable "function_defaults" {
  description = "Size of the functions that are deployed from dag_definitions/*/functions/. 1800 s is as long as Cloud Tasks waits for a call."
  type = object({
    memory          = optional(string, "512Mi")
    cpu             = optional(string, "1")
    concurrency     = optional(number, 1)
    max_instances   = optional(number, 100)
    timeout_seconds = optional(number, 1800)
  })
  default = {}

  validation {
    condition     = var.function_defaults.timeout_seconds >= 1 && var.function_defaults.timeout_seconds <= 3600
    error_message = "function_defaults.timeout_seconds: is 1 to 3600."
  }
}

variable "functions" {
  description = "Function name -> what is different for it: size, service account, environment."
  type = map(object({
    memory          = optional(string)
    cpu             = optional(string)
    concurrency     = optional(number)
    max_instances   = optional(number)
    timeout_seconds = optional(number)
    service_account = optional(string)
    environment     = optional(map(string), {})
  }))
  default = {}

  validation {
    condition     = alltrue([for function in values(var.functions) : function.timeout_seconds == null ? true : function.timeout_seconds >= 1 && function.timeout_seconds <= 3600])
    error_message = "functions.*.timeout_seconds: is 1 to 3600."
  }
}

variable "job_service_accounts" {
  description = "Service accounts, by a name for people, that jobs of Batch, Dataproc and Vertex AI run as: the orchestrator may launch jobs as these, and as no other."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for email in values(var.job_service_accounts) : can(regex("^[^@/ ]+@[^@/ ]+\\.gserviceaccount\\.com$", email))])
    error_message = "job_service_accounts: are e-mail addresses of service accounts."
  }
}

variable "starters" {
  description = "Who may start and cancel runs, by a name for people: IAM members such as group:data@example.com."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for member in values(var.starters) : can(regex("^(user|group|serviceAccount|principal|principalSet):.+", member))])
    error_message = "starters: are IAM members, such as user:ada@example.com; never allUsers."
  }
}

variable "alert_emails" {
  description = "Addresses that are told of failed runs, dead letters and sinks that cannot deliver, by a name for people."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for address in values(var.alert_emails) : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "alert_emails: are e-mail addresses."
  }
}

variable "notification_channels" {
  description = "Notification channels that exist already and are told too: projects/P/notificationChannels/N."
  type        = set(string)
  default     = []
}

variable "keep_state_bucket" {
  description = "Whether `terraform destroy` leaves the bucket with all runs. It then ends by saying that the bucket is not empty, which is meant; see docs/deploy.md."
  type        = bool
  default     = false
}

variable "noncurrent_days" {
  description = "How many days an overwritten version of a run's document is kept. Each transition of a run overwrites one."
  type        = number
  default     = 7

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "noncurrent_days: is 1 or more."
  }
}

variable "keep_runs_days" {
  description = "How many days runs, their results and dead letters are kept; null: for ever. It has to be longer than any run lasts."
  type        = number
  default     = null

  validation {
    condition     = var.keep_runs_days == null ? true : var.keep_runs_days >= 31
    error_message = "keep_runs_days: is null or 31 and more; a step may last 30 days."
  }
}

variable "deployment_key_version" {
  description = "Raise it to have a new deployment key made. Launches that are under way keep the traces that they have."
  type        = number
  default     = 1

  validation {
    condition     = var.deployment_key_version >= 1 && floor(var.deployment_key_version) == var.deployment_key_version
    error_message = "deployment_key_version: is a whole number from 1 on."
  }
}

variable "labels" {
  description = "Labels of everything that takes labels."
  type        = map(string)
  default     = {}
}
