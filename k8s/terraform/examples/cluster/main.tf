# Replicas over a NATS that is there already, state of Terraform kept in the cluster:
#   terraform init && terraform apply -var nats_url=tls://nats.example.com:4222 -var nats_credentials_file=nats.creds
terraform {
  required_version = ">= 1.7"

  backend "kubernetes" {
    secret_suffix = "bitactor"
    namespace     = "terraform-state"
  }
}

variable "nats_url" {
  description = "NATS with JetStream."
  type        = string
}

variable "nats_credentials_file" {
  description = "The .creds file of its account."
  type        = string
}

module "bitactor" {
  source = "../.."

  nats_url         = var.nats_url
  nats_credentials = file(var.nats_credentials_file)
  image            = { repository = "registry.example.com/bitactor", tag = "0.1.0", pull_secrets = ["registry"] }
  values = [{
    autoscaling = { maxReplicas = 6 }
    monitoring  = { labels = { release = "prometheus" } }
  }]
}

output "monitoring" {
  description = "For a Prometheus elsewhere."
  value       = module.bitactor.monitoring
}
