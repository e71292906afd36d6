variable "folder" {
  description = "Folder of the DAGs, one folder each with its dag.json, dag.yaml or dag.yml: dag_definitions/."
  type        = string
}

variable "name" {
  description = "Name of the deployment: of the orchestrator's function, and what the names of all else begin with."
  type        = string
}

variable "project_id" {
  description = "Project of the deployment, and of the steps that name none."
  type        = string
}

variable "region" {
  description = "Region of the deployment, and of the steps that name none."
  type        = string
}

variable "default_dag" {
  description = "The DAG of a start message that names none; empty: only where there is but one."
  type        = string
  default     = ""
}

variable "notify" {
  description = "The setting NOTIFY: who is told of the events of all runs, as a JSON list; empty: nobody."
  type        = string
  default     = ""
}

variable "pools" {
  description = "The setting POOLS: how many Tasks of each pool run at once, as in bigquery=5,api=2."
  type        = string
  default     = ""
}

variable "skip_functions_of" {
  description = "DAGs whose functions are deployed by somebody else, though their source lies in the DAG's folder."
  type        = set(string)
  default     = []
}
