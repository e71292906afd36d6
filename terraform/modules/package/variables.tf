variable "root" {
  description = "Root of the repository."
  type        = string
}

variable "functions" {
  description = "Key -> folder, relative to dag_definitions/, of a function that is to be packed."
  type        = map(string)
  default     = {}
}
