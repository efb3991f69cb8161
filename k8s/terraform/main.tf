# A namespace, the Secrets that are given here, NATS unless one is given, and the chart's release. What the chart makes
# (Services, policies, certificates, tokens, monitors) is made by the chart alone.

locals {
  nats_is_ours = var.mode == "cluster" && var.nats_url == null
  nats_url     = local.nats_is_ours ? "nats://nats.${var.namespace}.svc:4222" : var.nats_url

  # The service asks each server whether it syncs before it acknowledges, and tells producers what that is worth.
  nats_monitors = join(",", [for n in range(var.nats_replicas) : "http://nats-${n}.nats-headless.${var.namespace}.svc:8222"])

  chart = coalesce(var.chart, "${path.module}/../helm/bitactor")

  image = {
    for name, value in {
      repository  = var.image.repository
      tag         = var.image.tag
      digest      = var.image.digest
      pullPolicy  = var.image.pull_policy
      pullSecrets = [for name in var.image.pull_secrets : { name = name }]
    } : name => value if value != null
  }

  app = {
    for name, value in {
      files             = var.app_files
      file              = var.app_file
      existingConfigMap = var.app_config_map
    } : name => value if value != null && value != tomap({})
  }

  nats = var.mode != "cluster" ? {} : {
    nats = {
      for name, value in {
        url         = local.nats_url
        credentials = var.nats_credentials == null ? null : { existingSecret = kubernetes_secret_v1.nats_credentials[0].metadata[0].name, key = "nats.creds" }
        ca          = var.nats_ca == null ? null : { existingSecret = kubernetes_secret_v1.nats_ca[0].metadata[0].name, key = "ca.crt" }
      } : name => value if value != null
    }
  }

  # NATS of this module speaks plain text inside its namespace, where its NetworkPolicy lets the service alone in.
  plain_nats = local.nats_is_ours ? { config = { nats = { plain_text = true, replicas = var.nats_replicas, monitor_urls = local.nats_monitors } } } : {}
}

resource "kubernetes_namespace_v1" "this" {
  count = var.create_namespace ? 1 : 0

  metadata {
    name = var.namespace
    labels = merge(var.labels, {
      "pod-security.kubernetes.io/enforce" = "restricted"
      "pod-security.kubernetes.io/audit"   = "restricted"
      "pod-security.kubernetes.io/warn"    = "restricted"
    })
    annotations = var.annotations
  }
}

resource "kubernetes_secret_v1" "nats_credentials" {
  count = var.nats_credentials == null ? 0 : 1

  metadata {
    name      = "${var.release}-nats-credentials"
    namespace = var.namespace
    labels    = var.labels
  }
  data = { "nats.creds" = var.nats_credentials }

  depends_on = [kubernetes_namespace_v1.this]
}

resource "kubernetes_secret_v1" "nats_ca" {
  count = var.nats_ca == null ? 0 : 1

  metadata {
    name      = "${var.release}-nats-ca"
    namespace = var.namespace
    labels    = var.labels
  }
  data = { "ca.crt" = var.nats_ca }

  depends_on = [kubernetes_namespace_v1.this]
}

resource "helm_release" "nats" {
  count = local.nats_is_ours ? 1 : 0

  name       = "nats"
  namespace  = var.namespace
  repository = var.nats_chart_repository
  chart      = var.nats_chart
  version    = var.nats_chart_version
  timeout    = var.timeout_seconds
  wait       = true

  values = [
    templatefile("${path.module}/nats-values.yaml.tftpl", {
      replicas      = var.nats_replicas
      storage_size  = var.nats_storage_size
      storage_class = var.storage_class
      release       = var.release
    }),
    yamlencode(var.nats_values),
  ]

  depends_on = [kubernetes_namespace_v1.this]
}

resource "kubernetes_network_policy_v1" "nats" {
  count = local.nats_is_ours ? 1 : 0

  metadata {
    name      = "nats"
    namespace = var.namespace
    labels    = var.labels
  }

  spec {
    pod_selector {
      match_labels = { "app.kubernetes.io/name" = "nats", "app.kubernetes.io/instance" = "nats" }
    }
    policy_types = ["Ingress", "Egress"]

    ingress {
      from {
        pod_selector {
          match_labels = { "app.kubernetes.io/name" = "bitactor", "app.kubernetes.io/instance" = var.release }
        }
      }
      ports {
        protocol = "TCP"
        port     = "4222"
      }
      ports {
        protocol = "TCP"
        port     = "8222"
      }
    }
    ingress {
      from {
        pod_selector {
          match_labels = { "app.kubernetes.io/name" = "nats", "app.kubernetes.io/instance" = "nats" }
        }
      }
      ports {
        protocol = "TCP"
        port     = "6222"
      }
    }

    egress {
      to {
        pod_selector {
          match_labels = { "app.kubernetes.io/name" = "nats", "app.kubernetes.io/instance" = "nats" }
        }
      }
      ports {
        protocol = "TCP"
        port     = "6222"
      }
    }
    egress {
      to {
        namespace_selector {
          match_labels = { "kubernetes.io/metadata.name" = "kube-system" }
        }
        pod_selector {
          match_labels = { "k8s-app" = "kube-dns" }
        }
      }
      ports {
        protocol = "UDP"
        port     = "53"
      }
      ports {
        protocol = "TCP"
        port     = "53"
      }
    }
  }

  depends_on = [kubernetes_namespace_v1.this]
}

resource "helm_release" "bitactor" {
  name             = var.release
  namespace        = var.namespace
  create_namespace = false
  repository       = var.chart_repository
  chart            = local.chart
  version          = var.chart_version
  timeout          = var.timeout_seconds
  wait             = true
  atomic           = var.atomic

  values = concat([
    yamlencode(merge(
      { mode = var.mode, image = local.image, commonLabels = var.labels },
      length(local.app) == 0 ? {} : { app = local.app },
      local.nats,
      local.plain_nats,
      var.storage_class == null || var.mode != "standalone" ? {} : { persistence = { storageClass = var.storage_class, size = var.storage_size } },
    )),
  ], [for one in var.values : yamlencode(one)])

  depends_on = [kubernetes_namespace_v1.this, helm_release.nats]
}
