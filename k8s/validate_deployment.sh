#!/bin/sh
# Looks at an installed BitActor as its operator would, and says of each thing whether it is so.
#
#   validate_deployment.sh [-n NAMESPACE] [-r RELEASE] [-o REPORT.json] [--rate N] [--seconds N]
#                          [--kind K --actor A --counter F] [--latency-us-max N] [--load] [--kill]
#
# Needs kubectl and POSIX tools, and the right to make pods, a ConfigMap and executions in the namespace. It makes pods
# out of the service's own image (validate-*), and removes them when it ends. --load drives the autoscaler, --kill deletes
# a pod under load; both change what runs. Without --kind it sends what the chart's example app counts.
#
# Exit status: 0 everything passed, 1 something failed, 2 nothing failed but there are warnings or skipped checks,
# 3 it could not begin.
set -u

namespace=bitactor release=bitactor report="" rate=10000 seconds=45 load="" kill=""
kind=reading actor=readings counter=count latency_us_max=${LATENCY_US_MAX:-1000}
here=$(cd "$(dirname "$0")" && pwd)
while [ $# -gt 0 ]; do
  case $1 in
  -n | --namespace) namespace=$2 && shift ;;
  -r | --release) release=$2 && shift ;;
  -o | --output) report=$2 && shift ;;
  --rate) rate=$2 && shift ;;
  --seconds) seconds=$2 && shift ;;
  --kind) kind=$2 && shift ;;
  --actor) actor=$2 && shift ;;
  --counter) counter=$2 && shift ;;
  --latency-us-max) latency_us_max=$2 && shift ;;
  --load) load=yes ;;
  --kill) kill=yes ;;
  *)
    sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" >&2
    exit 3
    ;;
  esac
  shift
done
report=${report:-validation-$release.json}
name=$release-bitactor
python=/opt/bitactor/bin/python
selector=app.kubernetes.io/name=bitactor,app.kubernetes.io/instance=$release
signals=$name.$namespace.svc:9090 admin=http://$name-admin.$namespace.svc:8080
work=$(mktemp -d) || exit 3
lines=$work/lines
: >"$lines"

k() { kubectl -n "$namespace" "$@"; }

# note RESULT CHECK DETAIL: one line for people, one for the report.
note() {
  printf '%-5s %-22s %s\n' "$1" "$2" "$3"
  detail=$(printf '%s' "$3" | tr '\n\t' '  ' | sed 's/\\/\\\\/g; s/"/\\"/g')
  printf '{"result": "%s", "check": "%s", "detail": "%s"}\n' "$1" "$2" "$detail" >>"$lines"
}
pass() { note ok "$@"; }
warn() { note WARN "$@"; }
fail() { note FAIL "$@"; }
skip() { note skip "$@"; }

finish() {
  trap - EXIT INT TERM
  k delete pod,configmap -l bitactor-validation=true --ignore-not-found --wait=false >/dev/null 2>&1
  count() { grep -c "\"result\": \"$1\"" "$lines"; }
  ok=$(count ok) warned=$(count WARN) failed=$(count FAIL) skipped=$(count skip)
  {
    printf '{"namespace": "%s", "release": "%s", "at": "%s",\n' "$namespace" "$release" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    printf ' "passed": %s, "warnings": %s, "failed": %s, "skipped": %s,\n "checks": [\n' "$ok" "$warned" "$failed" "$skipped"
    sed '$!s/$/,/; s/^/  /' "$lines"
    printf ' ]}\n'
  } >"$report"
  rm -rf "$work"
  printf '%s passed, %s warnings, %s failed, %s skipped; report in %s\n' "$ok" "$warned" "$failed" "$skipped" "$report"
  [ "$failed" = 0 ] || exit 1
  [ "$warned$skipped" = 00 ] || exit 2
  exit 0
}
trap finish EXIT
trap 'exit 1' INT TERM

# figure NAME: of the JSON line in $said.
figure() { printf '%s\n' "$said" | sed -n "s/.*\"$1\": \"\{0,1\}\([^,\"}]*\).*/\1/p" | tail -n 1; }

# probe POD WHAT [ARGUMENT...]: what a probe says is in $said; its status is the probe's.
probe() {
  pod=$1
  shift
  said=$(k exec "$pod" -c main -- $python -I /probe/probe.py "$@" 2>"$work/error")
  status=$?
  [ -n "$said" ] || said=$(tail -n 1 "$work/error")
  return $status
}

pods() { k get pods -l "$selector" -o "jsonpath={range .items[?(@.status.phase=='Running')]}{.metadata.name}{'\n'}{end}"; }

# seconds_of TIME: Unix time of an RFC 3339 time in UTC.
seconds_of() {
  echo "$1" | awk -F '[-T:Z]' '{ y = $1; m = $2; if (m <= 2) { y--; m += 12 }
    days = 365 * y + int(y / 4) - int(y / 100) + int(y / 400) + int((153 * (m - 3) + 2) / 5) + $3 - 719469
    print days * 86400 + $4 * 3600 + $5 * 60 + $6 }'
}

# milli CPU or mebibytes out of a quantity of Kubernetes.
millicores() { echo "$1" | awk '/n$/ { print $0 / 1e6; next } /u$/ { print $0 / 1e3; next } /m$/ { print $0 + 0; next } { print $0 * 1000 }'; }
mebibytes() { echo "$1" | awk '/Ki$/ { print $0 / 1024; next } /Mi$/ { print $0 + 0; next } /Gi$/ { print $0 * 1024; next } { print $0 / 1048576 }'; }

# --- what it takes to begin ---

command -v kubectl >/dev/null || {
  echo "kubectl is not on the PATH" >&2
  exit 3
}
version=$(kubectl version -o json 2>/dev/null | tr -d ' \n' | sed -n 's/.*"serverVersion":{[^}]*"minor":"\([0-9]*\).*/\1/p')
if [ -z "$version" ]; then
  fail prerequisites "no cluster answers: $(kubectl version 2>&1 | tail -n 1)"
  exit 1
elif [ "$version" -lt 28 ]; then
  fail prerequisites "Kubernetes 1.$version; 1.28 is the oldest that the chart is for"
  exit 1
fi
missing=""
for right in "create pods" "create configmaps" "create pods/exec" "get pods" "get deployments.apps" "list networkpolicies.networking.k8s.io"; do
  # shellcheck disable=SC2086  # verb and resource
  k auth can-i $right >/dev/null 2>&1 || missing="$missing, $right"
done
if [ -n "$missing" ]; then
  fail prerequisites "you may not: ${missing#, }"
  exit 1
fi
pass prerequisites "Kubernetes 1.$version, and you may do what this needs"

level=$(kubectl get namespace "$namespace" -o "jsonpath={.metadata.labels['pod-security\.kubernetes\.io/enforce']}" 2>/dev/null) || {
  fail namespace "there is no namespace $namespace"
  exit 1
}
if [ "$level" = restricted ]; then
  pass namespace "$namespace enforces the restricted Pod Security Standard"
else
  warn namespace "$namespace enforces ${level:-no Pod Security Standard}; restricted would suit it"
fi

# --- what runs ---

if k get deployment "$name" >/dev/null 2>&1; then
  workload=deployment
elif k get statefulset "$name" >/dev/null 2>&1; then
  workload=statefulset
else
  fail rollout "neither deployment/$name nor statefulset/$name is in $namespace"
  exit 1
fi
if said=$(k rollout status "$workload/$name" --timeout=180s 2>&1); then
  pass rollout "$(printf '%s' "$said" | tail -n 1)"
else
  fail rollout "$said"
fi

listed=$(k get pods -l "$selector" -o "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}{'\n'}{end}")
wanted=$(k get "$workload" "$name" -o 'jsonpath={.spec.replicas}')
ready=$(printf '%s\n' "$listed" | awk '$2 == "true"' | grep -c .)
restarts=$(printf '%s\n' "$listed" | awk '{ n += $3 } END { print n + 0 }')
if [ "$ready" -lt "$wanted" ] || [ "$ready" = 0 ]; then
  fail pods "$ready of $wanted are ready"
elif [ "$restarts" -gt 0 ]; then
  warn pods "$ready of $wanted are ready; they have restarted $restarts times"
else
  pass pods "$ready of $wanted are ready, none has restarted"
fi

for service in "$name" "$name-admin"; do
  addresses=$(k get endpointslices -l "kubernetes.io/service-name=$service" \
    -o "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{'\n'}{end}" 2>/dev/null | sort -u | grep -c .)
  if [ "$addresses" -ge "$wanted" ]; then
    pass "endpoints" "$service has $addresses ready"
  else
    fail "endpoints" "$service has $addresses ready, of $wanted pods"
  fi
done

if [ $workload = deployment ]; then
  if k get hpa "$name" >/dev/null 2>&1; then
    tries=0
    while :; do # metrics of new pods take a minute to come
      active=$(k get hpa "$name" -o "jsonpath={.status.conditions[?(@.type=='ScalingActive')].status}")
      current=$(k get hpa "$name" -o 'jsonpath={.status.currentMetrics[0]}')
      tries=$((tries + 1))
      { [ "$active" = True ] && [ -n "$current" ]; } || [ $tries -ge 30 ] && break
      sleep 4
    done
    if [ "$active" = True ] && [ -n "$current" ]; then
      pass autoscaler "reads its metrics: $current"
    else
      fail autoscaler "$(k get hpa "$name" -o "jsonpath={.status.conditions[?(@.type=='ScalingActive')].message}")"
    fi
  else
    pass autoscaler "none: replicas are fixed at $wanted"
  fi
  said=$(k get pdb "$name" -o 'jsonpath={.status.expectedPods} {.status.currentHealthy} {.status.desiredHealthy} {.status.disruptionsAllowed}' 2>/dev/null)
  # shellcheck disable=SC2086  # four numbers
  set -- $said
  if [ $# -ne 4 ]; then
    fail disruptions "there is no PodDisruptionBudget $name"
  elif [ "$3" -gt 0 ] && [ "$4" -gt 0 ] && [ "$2" -ge "$3" ]; then
    pass disruptions "$4 of $1 pods may be evicted at once; $3 have to stay"
  else
    fail disruptions "of $1 pods $2 are healthy, $3 have to stay, $4 may be evicted"
  fi
else
  pass autoscaler "standalone: one pod, nothing to scale"
  pass disruptions "standalone: one pod, no budget, so that its node can be drained"
fi

# --- from inside ---

image=$(k get "$workload" "$name" -o 'jsonpath={.spec.template.spec.containers[0].image}')
pull=$(k get "$workload" "$name" -o 'jsonpath={.spec.template.spec.containers[0].imagePullPolicy}')
secrets=$(k get "$workload" "$name" -o "jsonpath={range .spec.template.spec.volumes[*]}{.name}={.secret.secretName}{'\n'}{end}")
tls_secret=$(printf '%s\n' "$secrets" | sed -n 's/^tls=//p')
admin_secret=$(printf '%s\n' "$secrets" | sed -n 's/^admin-token=//p')
token_secret=${TOKEN_SECRET:-$name-token-client}

# run_pod NAME ROLE ARGUMENTS: a pod of the image with the probes; role client may connect, stranger may not.
run_pod() {
  labels="bitactor-validation: \"true\""
  [ "$2" = stranger ] || labels="$labels
    $name-client: \"true\"
    $name-admin: \"true\""
  k apply -f - >/dev/null <<EOF
apiVersion: v1
kind: Pod
metadata:
  name: $1
  labels:
    $labels
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: "$image"
      imagePullPolicy: $pull
      command: [$python, -I, $3]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {cpu: "2", memory: 512Mi}}
      volumeMounts:
        - {name: probe, mountPath: /probe, readOnly: true}
        - {name: secrets, mountPath: /secrets, readOnly: true}
        - {name: scratch, mountPath: /tmp}
  volumes:
    - {name: probe, configMap: {name: validate-probe}}
    - {name: scratch, emptyDir: {sizeLimit: 256Mi}}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          - secret: {name: $tls_secret, items: [{key: ca.crt, path: ca.crt}]}
          - secret: {name: $token_secret, items: [{key: token, path: token}]}
          - secret: {name: $admin_secret, items: [{key: token, path: admin}]}
EOF
}

k delete pod,configmap -l bitactor-validation=true --ignore-not-found >/dev/null 2>&1
if ! {
  k create configmap validate-probe --from-file="$here/validation/probe.py" --from-file="$here/validation/serve_none.py" >/dev/null &&
    k label configmap validate-probe bitactor-validation=true >/dev/null &&
    run_pod validate-client client '-c, "import time; time.sleep(7200)"' &&
    run_pod validate-stranger stranger '/probe/probe.py, listen, "9999"' &&
    run_pod validate-server client '/probe/serve_none.py'
}; then
  fail probes "the pods that look from inside could not be made"
  exit 1
fi
if ! said=$(k wait --for=condition=Ready pod -l bitactor-validation=true --timeout=120s 2>&1); then
  fail probes "the pods that look from inside did not start: $said"
  exit 1
fi
sleep 2 # for policies to know the pods

if k get networkpolicy -o "jsonpath={range .items[*]}{.metadata.name} {.spec.policyTypes}{'\n'}{end}" | grep -q "^$name .*Ingress.*Egress"; then
  pass networkpolicy "$name is for both directions"
else
  fail networkpolicy "there is no NetworkPolicy $name for both directions"
fi
for port in "$signals" "${admin#http://}"; do
  probe validate-client reach "$port"
  allowed=$(figure reached)
  probe validate-stranger reach "$port"
  case $allowed$(figure reached) in
  truefalse) pass "network in" "${port##*:} lets the labelled pod in and refuses one without the label" ;;
  truetrue) fail "network in" "${port##*:} lets a pod in that has no label: is there a network plugin that enforces policies?" ;;
  *) fail "network in" "${port##*:} cannot be reached by the labelled pod: $said" ;;
  esac
done
stranger=$(k get pod validate-stranger -o 'jsonpath={.status.podIP}')
probe validate-client reach "$stranger:9999"
allowed=$(figure reached)
first=$(pods | head -n 1)
said=$(k exec "$first" -c bitactor -- $python -I -c "
import socket
try: socket.create_connection(('$stranger', 9999), 3); print('reached')
except OSError as error: print(type(error).__name__)" 2>&1)
case $allowed-$said in
true-reached) fail "network out" "the service reached a pod that is not named in its policy" ;;
true-*) pass "network out" "the service cannot reach a pod that others can ($said)" ;;
*) fail "network out" "the pod to be tried does not listen: $said" ;;
esac

account=$(k get "$workload" "$name" -o 'jsonpath={.spec.template.spec.serviceAccountName}')
may=""
set -f # a right may be * on *
for right in "get secrets" "list pods" "create pods" "get configmaps" "create pods/exec" "patch deployments.apps" "get endpoints" "create leases.coordination.k8s.io" "* *"; do
  # shellcheck disable=SC2086  # verb and resource
  [ "$(k auth can-i $right --as="system:serviceaccount:$namespace:$account" 2>/dev/null)" = no ] || may="$may, $right"
done
set +f
if [ -z "$may" ]; then
  pass rights "$account may do nothing: the service asks the API for nothing"
else
  fail rights "$account may${may#,}"
fi

for pod in $(pods); do
  said=$(k exec -i "$pod" -c bitactor -- $python -I - running <"$here/validation/probe.py" 2>"$work/error")
  status=$?
  [ -n "$said" ] || said=$(tail -n 1 "$work/error")
  if [ $status = 0 ]; then
    pass "security context" "$pod: user $(figure uid), no capabilities, seccomp, read-only root, no shell, no token"
  else
    fail "security context" "$pod: $said"
  fi
  scheduled=$(seconds_of "$(k get pod "$pod" -o "jsonpath={.status.conditions[?(@.type=='PodScheduled')].lastTransitionTime}")")
  took=$(echo "$(figure ready_at) $scheduled" | awk 'NF == 2 { printf "%.1f", $1 - $2 }')
  if [ -z "$took" ]; then
    fail "start time" "$pod does not say when it was ready"
  elif [ "$(echo "$took" | awk '{ print ($1 < 10) }')" = 1 ]; then
    pass "start time" "$pod took signals $took s after it was scheduled"
  else
    fail "start time" "$pod took $took s from being scheduled to taking signals; 10 s are allowed"
  fi
done

if probe validate-client tls "$signals"; then
  days=$(figure days)
  if [ "$days" -lt 14 ]; then
    warn tls "$(figure version), the certificate ends in $days days"
  else
    pass tls "$(figure version), verified by name, $days days left; 1.2 and plain text are refused"
  fi
else
  fail tls "$said"
fi
if probe validate-client health "$admin"; then
  pass health "livez, readyz, startupz; $(figure families) families of metrics, with a token only"
else
  fail health "$said"
fi
if probe validate-client roundtrip "$signals" "$admin" "$kind" "$actor" "$counter" 1000; then
  pass "round trip" "sent $(figure sent), acknowledged $(figure acknowledged) at durability $(figure durability), counted $(figure counted)"
else
  fail "round trip" "$said"
fi

server=$(k get pod validate-server -o 'jsonpath={.status.podIP}')
k exec validate-server -c main -- $python -I -c 'print(open("/tmp/ca.pem").read(), end="")' >"$work/ca.pem" 2>"$work/error" &&
  k exec validate-server -c main -- $python -I -c 'print(open("/tmp/token").read(), end="")' >"$work/token" 2>>"$work/error" &&
  k exec -i validate-client -c main -- $python -I -c 'import sys; open("/tmp/ca.crt", "w").write(sys.stdin.read())' <"$work/ca.pem" &&
  k exec -i validate-client -c main -- $python -I -c 'import sys; open("/tmp/token", "w").write(sys.stdin.read())' <"$work/token"
best="" all=""
for round in 1 2 3; do # neighbours on a node disturb one or the other
  probe validate-client latency "$server:9090" reading 5000 /tmp
  p99=$(figure p99_ms) all="$all, round $round: p50 $(figure p50_ms) ms, p99 ${p99:-$said} ms"
  best=$(printf '%s\n%s\n' "$best" "$p99" | grep . | sort -n | head -n 1)
  [ "$(echo "${p99:-9999} $latency_us_max" | awk '{ print ($1 * 1000 < $2) }')" = 0 ] || break
done
if [ "$(echo "${best:-9999} $latency_us_max" | awk '{ print ($1 * 1000 < $2) }')" = 1 ]; then
  pass "one signal" "pod to pod, without durability, 5000 requests a round${all}"
else
  fail "one signal" "pod to pod, without durability, $latency_us_max us are allowed${all}"
fi

# --- under load ---

if probe validate-client steady "$signals" "$admin" "$kind" "$actor" "$counter" "$rate" "$seconds"; then
  exact="sent $(figure sent), counted $(figure counted), $(figure per_second) a second"
  used=$(kubectl get --raw "/apis/metrics.k8s.io/v1beta1/namespaces/$namespace/pods?labelSelector=$(echo "$selector" | sed 's/=/%3D/g; s/,/%2C/g; s#/#%2F#g')" 2>/dev/null |
    tr -d ' \n' | sed 's/"name":"bitactor"/\n&/g' | sed -n 's/.*"cpu":"\([^"]*\)","memory":"\([^"]*\)".*/\1 \2/p')
  requested=$(k get "$workload" "$name" -o 'jsonpath={.spec.template.spec.containers[0].resources.requests.cpu} {.spec.template.spec.containers[0].resources.requests.memory}')
  # shellcheck disable=SC2086  # CPU and memory
  set -- $requested
  cpu_request=$(millicores "$1") memory_request=$(mebibytes "$2")
  if [ -z "$used" ]; then
    skip usage "$exact; the metrics API is not there, so what it took is not known"
  else
    worst=$(printf '%s\n' "$used" | while read -r cpu memory; do echo "$(millicores "$cpu") $(mebibytes "$memory")"; done |
      awk '{ if ($1 > c) c = $1; if ($2 > m) m = $2 } END { printf "%.0f %.0f", c, m }')
    # shellcheck disable=SC2086
    set -- $worst
    if [ "$(echo "$1 $cpu_request $2 $memory_request" | awk '{ print ($1 <= $2 && $3 <= $4) }')" = 1 ]; then
      pass usage "$exact; at most ${1}m of ${cpu_request}m CPU and $2 of $memory_request Mi memory a pod"
    else
      fail usage "$exact; ${1}m of ${cpu_request}m CPU and $2 of $memory_request Mi memory: more than requested"
    fi
  fi
else
  fail usage "$said"
fi

if [ -n "$kill" ]; then
  (sleep 5 && k delete pod "$(pods | head -n 1)" --wait=false >/dev/null 2>&1) &
  if probe validate-client steady "$signals" "$admin" "$kind" "$actor" "$counter" "$rate" 40; then
    pass "pod deleted" "sent $(figure sent), counted $(figure counted), longest gap in acks $(figure gap_ms_max) ms"
  else
    fail "pod deleted" "$said"
  fi
  k rollout status "$workload/$name" --timeout=180s >/dev/null 2>&1
fi

if [ -n "$load" ] && [ $workload = deployment ]; then
  had=$(k get deployment "$name" -o 'jsonpath={.status.readyReplicas}')
  target=$(k get hpa "$name" -o 'jsonpath={.spec.metrics[0].containerResource.target.averageUtilization}')
  rm -f "$work/done"
  (
    probe validate-client steady "$signals" "$admin" "$kind" "$actor" "$counter" "${LOAD_RATE:-3000000}" "${LOAD_SECONDS:-100}"
    echo "$status $said" >"$work/done"
  ) &
  crossed="" grown="" tries=0
  while [ ! -f "$work/done" ] && [ $tries -lt 200 ] && [ -z "$grown" ]; do
    now=$(date +%s) tries=$((tries + 1))
    use=$(k get hpa "$name" -o 'jsonpath={.status.currentMetrics[0].containerResource.current.averageUtilization}')
    [ -n "$crossed" ] || [ "${use:-0}" -le "${target:-70}" ] || crossed=$now
    [ "$(k get deployment "$name" -o 'jsonpath={.status.readyReplicas}')" -le "$had" ] || grown=$now
    sleep 1
  done
  wait
  if [ -z "$grown" ]; then
    fail autoscale "no pod was added: CPU use was ${use:-unknown} % of ${target:-70} %"
  elif [ $((grown - ${crossed:-$grown})) -le 30 ]; then
    pass autoscale "a pod more was ready $((grown - ${crossed:-$grown})) s after the target was crossed; $(cut -d ' ' -f 2- "$work/done")"
  else
    fail autoscale "the pod more was ready $((grown - crossed)) s after the target was crossed; 30 s are allowed"
  fi
fi
