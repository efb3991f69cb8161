variable "namespace" {
  description = "Namespace of everything."
  type        = string
  default     = "bitactor"

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A namespace is a DNS label: small letters, digits and -, at most 63."
  }
}

variable "create_namespace" {
  description = "Make the namespace, with the labels of the restricted Pod Security Standard."
  type        = bool
  default     = true
}

variable "release" {
  description = "Name of the Helm release; names of resources begin with it."
  type        = string
  default     = "bitactor"

  validation {
    condition     = can(regex("^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$", var.release))
    error_message = "A release is small letters, digits and -, at most 40, and begins with a letter."
  }
}

variable "mode" {
  description = "cluster: replicas over NATS JetStream. standalone: one pod with a volume."
  type        = string
  default     = "cluster"

  validation {
    condition     = contains(["cluster", "standalone"], var.mode)
    error_message = "mode is cluster or standalone."
  }
}

variable "image" {
  description = "The image; what is null is the chart's default."
  type = object({
    repository   = optional(string)
    tag          = optional(string)
    digest       = optional(string)
    pull_policy  = optional(string)
    pull_secrets = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = var.image.tag != "latest"
    error_message = "latest is not a version: give a tag or a digest."
  }

  validation {
    condition     = var.image.digest == null || can(regex("^sha256:[0-9a-f]{64}$", var.image.digest))
    error_message = "A digest is sha256: and 64 hexadecimal digits."
  }
}

variable "app_files" {
  description = "Files of the app, name to content; empty: the chart's example, or app_config_map."
  type        = map(string)
  default     = {}
}

variable "app_file" {
  description = "The file that is served, or file:name; null: the only one."
  type        = string
  default     = null
}

variable "app_config_map" {
  description = "A ConfigMap with the app's files, instead of app_files."
  type        = string
  default     = null
}

variable "values" {
  description = "Values of the chart, each over the one before; k8s/helm/bitactor/README.md lists them."
  type        = any
  default     = []

  validation {
    condition     = can([for one in var.values : keys(one)])
    error_message = "values is a list of objects."
  }
}

variable "labels" {
  description = "Labels of every resource."
  type        = map(string)
  default     = {}
}

variable "annotations" {
  description = "Annotations of the namespace."
  type        = map(string)
  default     = {}
}

variable "chart" {
  description = "The chart: a path, or a name in chart_repository; null: the one beside this module."
  type        = string
  default     = null
}

variable "chart_repository" {
  description = "Repository of the chart; null for a path."
  type        = string
  default     = null
}

variable "chart_version" {
  description = "Version of the chart; null: the newest, or what lies at the path."
  type        = string
  default     = null
}

variable "nats_url" {
  description = "NATS with JetStream that is there already, for mode cluster; null: this module installs one."
  type        = string
  default     = null

  validation {
    condition     = var.nats_url == null || can(regex("^(nats|tls)://[^@[:space:]]+$", var.nats_url))
    error_message = "nats_url is nats://host:port or tls://host:port, without a user: credentials are nats_credentials."
  }
}

variable "nats_credentials" {
  description = "Content of a .creds file, for a NATS with accounts."
  type        = string
  default     = null
  sensitive   = true
}

variable "nats_ca" {
  description = "CA of the NATS' certificate, PEM, when it is not a public one."
  type        = string
  default     = null

  validation {
    condition     = var.nats_ca == null || can(regex("^-----BEGIN CERTIFICATE-----", var.nats_ca))
    error_message = "nats_ca is a certificate in PEM."
  }
}

variable "nats_replicas" {
  description = "Servers of the NATS that is installed, and copies of each stream."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5], var.nats_replicas)
    error_message = "nats_replicas is 1, 3 or 5."
  }
}

variable "nats_storage_size" {
  description = "Volume of each NATS server."
  type        = string
  default     = "50Gi"
}

variable "nats_chart" {
  description = "The NATS chart: a name in nats_chart_repository, or a path when that is null."
  type        = string
  default     = "nats"
}

variable "nats_chart_repository" {
  description = "Repository of NATS' official chart; null for a path."
  type        = string
  default     = "https://nats-io.github.io/k8s/helm/charts/"
}

variable "nats_chart_version" {
  description = "Version of NATS' chart."
  type        = string
  default     = "2.14.2"
}

variable "nats_values" {
  description = "Values of NATS' chart, over those of this module."
  type        = any
  default     = {}
}

variable "storage_class" {
  description = "Storage class of volumes; null: the cluster's default."
  type        = string
  default     = null
}

variable "storage_size" {
  description = "Volume of mode standalone, with storage_class."
  type        = string
  default     = "20Gi"
}

variable "timeout_seconds" {
  description = "How long a release may take to be ready."
  type        = number
  default     = 300

  validation {
    condition     = var.timeout_seconds >= 30
    error_message = "Pods need at least 30 seconds."
  }
}

variable "atomic" {
  description = "Go back to the former release when a new one does not become ready."
  type        = bool
  default     = true
}
