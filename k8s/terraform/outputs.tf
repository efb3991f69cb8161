output "namespace" {
  description = "Namespace of everything."
  value       = var.namespace
}

output "release" {
  description = "Name, revision and status of the release."
  value = {
    name     = helm_release.bitactor.name
    revision = helm_release.bitactor.metadata.revision
    version  = helm_release.bitactor.metadata.version
    status   = helm_release.bitactor.status
  }
}

output "endpoints" {
  description = "Where signals go, and where HTTP is, inside the cluster."
  value = {
    signals = "${var.release}-bitactor.${var.namespace}.svc:9090"
    admin   = "http://${var.release}-bitactor-admin.${var.namespace}.svc:8080"
  }
}

output "client_label" {
  description = "Label that pods of the namespace carry to be let in to the signals' port."
  value       = { "${var.release}-bitactor-client" = "true" }
}

output "secrets" {
  description = "Names of the Secrets that clients need; their contents are not in the state of this module."
  value = {
    ca           = "${var.release}-bitactor-tls"
    client_token = "${var.release}-bitactor-token-client"
    admin_token  = "${var.release}-bitactor-token-admin"
  }
}

output "monitoring" {
  description = "What a Prometheus outside this module needs: targets, path and token, and names of monitor and rules."
  value = {
    scrape_targets   = ["${var.release}-bitactor-admin.${var.namespace}.svc:8080"]
    metrics_path     = "/metrics"
    token_secret     = "${var.release}-bitactor-token-monitoring"
    service_monitor  = "${var.release}-bitactor"
    prometheus_rule  = "${var.release}-bitactor"
    pod_selector     = "app.kubernetes.io/name=bitactor,app.kubernetes.io/instance=${var.release}"
    dashboard_label  = "grafana_dashboard=1"
    runbooks_in_repo = "docs/runbooks"
  }
}

output "nats_url" {
  description = "The NATS that holds the log; null in mode standalone."
  value       = var.mode == "cluster" ? local.nats_url : null
}
