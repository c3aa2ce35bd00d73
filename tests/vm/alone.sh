# A machine without any network card, which becomes a cluster from a stick. Sourced by run.

factory
with_medium
source tests/vm/sticks.sh
say "no network card"
machine_new alone "$GUESTS/factory.img"
stick alone <<'YAML'
apiVersion: keelson/v1
kind: FirstBoot
init: {}
YAML
kernel=$FIRST_BOOT nic="-nic none" machine_up alone 2 "${STICK[@]}" "${MEDIUM[@]}"
check "nothing but loopback is there" machine alone sh -c '[ "$(ls /sys/class/net | grep -cv "^\(keelson.*\|kl.*\)$")" = 1 ]'
check "first boot is done" until_ok 240 done_and_told alone
check "the node is Ready" until_ok 60 machine alone keelson status
inside() { machine alone env KUBECONFIG=/var/lib/keelson/admin.conf /srv/apt/kubectl "$@"; }
machine alone sh -c 'mount -o ro LABEL=medium /srv/apt'
inside apply -f /srv/apt/sample.yaml
check "the sample runs" until_ok 240 inside rollout status deployment/web --timeout=5s
check "a pod resolves the Service's name and reaches it" until_ok 120 inside exec deployment/web -- sh -c 'nslookup web.default.svc.cluster.local >/dev/null && nc -w 5 web.default.svc.cluster.local 80 </dev/null | grep web-'
# What stick.sh left of the machine that it made of the same image.
[ ! -f "$work/identity" ] || check "authority and identity are not those of the other machine of this image" sh -c '[ "$1" != "$3" ] && [ "$2" != "$4" ]' - $(cut -c1-64 "$work/identity") $(machine alone sha256sum /var/lib/keelson/pki/ca.crt /etc/machine-id | cut -c1-64)
machine_off alone
kernel=$FIRST_BOOT nic="-nic none" machine_up alone 2 "${MEDIUM[@]}"
machine alone sh -c 'mount -o ro LABEL=medium /srv/apt'
check "it comes back" until_ok 240 inside exec deployment/web -- sh -c 'nc -w 5 web 80 </dev/null | grep web-'
machine_down alone
