# One pod with a volume and an app of your own: terraform init && terraform apply
terraform {
  required_version = ">= 1.7"
}

module "bitactor" {
  source = "../.."

  mode      = "standalone"
  app_files = { "market.py" = file("${path.module}/market.py") }
  values    = [{ test = { kind = "trade", actor = "volume", counter = "trades" } }]
}

output "signals" {
  description = "Where signals go, inside the cluster."
  value       = module.bitactor.endpoints.signals
}
