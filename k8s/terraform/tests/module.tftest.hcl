# The module with providers that answer by themselves: what it makes for each mode, and what it refuses.
# `terraform test`; against a cluster `make k8s-e2e` applies it.
mock_provider "helm" {}
mock_provider "kubernetes" {}

variables {
  nats_url = "tls://nats.nats.svc:4222"
}

run "cluster_over_a_given_nats" {
  command = plan

  assert {
    condition     = length(helm_release.nats) == 0 && length(kubernetes_network_policy_v1.nats) == 0
    error_message = "A NATS was given, and another one is made."
  }
  assert {
    condition     = kubernetes_namespace_v1.this[0].metadata[0].labels["pod-security.kubernetes.io/enforce"] == "restricted"
    error_message = "The namespace does not enforce the restricted standard."
  }
  assert {
    condition     = yamldecode(helm_release.bitactor.values[0]).nats.url == "tls://nats.nats.svc:4222"
    error_message = "The release is not told of the NATS."
  }
  assert {
    condition     = helm_release.bitactor.name == "bitactor" && helm_release.bitactor.namespace == "bitactor"
    error_message = "The names are not the documented ones."
  }
  assert {
    condition     = output.endpoints.signals == "bitactor-bitactor.bitactor.svc:9090"
    error_message = "The endpoint is not the chart's."
  }
  assert {
    condition     = length(kubernetes_secret_v1.nats_credentials) == 0 && length(kubernetes_secret_v1.nats_ca) == 0
    error_message = "Secrets are made of nothing."
  }
}

run "cluster_with_a_nats_of_its_own" {
  command = plan

  variables {
    nats_url      = null
    storage_class = "fast"
  }

  assert {
    condition     = length(helm_release.nats) == 1 && length(kubernetes_network_policy_v1.nats) == 1
    error_message = "No NATS is made."
  }
  assert {
    condition     = yamldecode(helm_release.nats[0].values[0]).config.jetstream.merge.sync_interval == "always"
    error_message = "NATS acknowledges before it syncs."
  }
  assert {
    condition     = yamldecode(helm_release.nats[0].values[0]).config.jetstream.fileStore.pvc.storageClassName == "fast"
    error_message = "NATS' volumes are of another class."
  }
  assert {
    condition     = output.nats_url == "nats://nats.bitactor.svc:4222"
    error_message = "The output does not name the NATS."
  }
}

run "standalone" {
  command = plan

  variables {
    mode      = "standalone"
    nats_url  = null
    app_files = { "market.py" = "import bitactor as ba\n" }
    values    = [{ persistence = { size = "1Gi" } }]
  }

  assert {
    condition     = length(helm_release.nats) == 0 && output.nats_url == null
    error_message = "Standalone has no NATS."
  }
  assert {
    condition     = !can(yamldecode(helm_release.bitactor.values[0]).nats)
    error_message = "Standalone is told of a NATS."
  }
  assert {
    condition     = yamldecode(helm_release.bitactor.values[0]).app.files["market.py"] == "import bitactor as ba\n"
    error_message = "The app is not handed over."
  }
  assert {
    condition     = yamldecode(helm_release.bitactor.values[1]).persistence.size == "1Gi"
    error_message = "Own values do not come last."
  }
}

run "credentials_and_ca_become_secrets" {
  command = plan

  variables {
    nats_credentials = "the-seed"
    nats_ca          = "-----BEGIN CERTIFICATE-----\n"
  }

  assert {
    condition     = kubernetes_secret_v1.nats_credentials[0].data["nats.creds"] == "the-seed"
    error_message = "The credentials are not in their Secret."
  }
  assert {
    condition     = yamldecode(helm_release.bitactor.values[0]).nats.credentials.existingSecret == "bitactor-nats-credentials"
    error_message = "The release does not name the Secret."
  }
  assert {
    condition     = !strcontains(helm_release.bitactor.values[0], "the-seed")
    error_message = "The credentials are among the values."
  }
}

run "a_namespace_that_is_there_is_left_alone" {
  command = plan

  variables {
    create_namespace = false
  }

  assert {
    condition     = length(kubernetes_namespace_v1.this) == 0
    error_message = "The namespace is made."
  }
}

run "refuses_latest" {
  command = plan

  variables {
    image = { tag = "latest" }
  }
  expect_failures = [var.image]
}

run "refuses_another_mode" {
  command = plan

  variables {
    mode = "single"
  }
  expect_failures = [var.mode]
}

run "refuses_a_user_in_the_url" {
  command = plan

  variables {
    nats_url = "nats://user:secret@nats:4222"
  }
  expect_failures = [var.nats_url]
}

run "refuses_a_namespace_that_is_none" {
  command = plan

  variables {
    namespace = "Bit_Actor"
  }
  expect_failures = [var.namespace]
}

run "refuses_two_servers" {
  command = plan

  variables {
    nats_replicas = 2
  }
  expect_failures = [var.nats_replicas]
}
