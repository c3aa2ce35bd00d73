# Machines that leave the factory alike and become clusters by themselves, from a file on a stick: one whose clock begins in
# 1970 and that has no default route, one without any network card. Sourced by run.

factory
with_medium
source tests/vm/sticks.sh
ready_inside() { machine "$1" keelson status; }
no_route() { echo "-nic user,model=virtio-net-pci,mac=$NO_ROUTE,restrict=on,hostfwd=tcp:127.0.0.1:$((${PORTS:-26440} + $1))-:6443,hostfwd=tcp:127.0.0.1:$((${PORTS:-26440} + 10 + $1))-:30080"; }

say "a clock at 1970, no default route"
machine_new left "$GUESTS/factory.img"
stick left <<'YAML'
apiVersion: keelson/v1
kind: FirstBoot
hostName: left
init: {}
configuration:
  node: {labels: {made.at/line: "7"}}
YAML
begun=$(moment)
# systemd begins no earlier than it was built: what the clock of a board without a battery says comes after that.
nic=$(no_route 1) machine_up left 1 "${STICK[@]}" "${MEDIUM[@]}" -rtc base=1970-01-01T00:00:00
check "its clock begins anew" machine left sh -c 'date --set @3600 && systemctl start --no-block keelson-first-boot.service && [ "$(date +%Y)" = 1970 ]'
check "no route leaves it" machine left sh -c '[ -z "$(ip route show default)" ]'
check "first boot is done, and a target tells" until_ok 240 done_and_told left
figure first_boot_s "$(since "$begun")" s
check "the node is Ready" until_ok 60 ready_inside left
use left
check "it has what the file says" until_ok 30 sh -c "command kubectl --kubeconfig $work/admin.conf get nodes -l made.at/line=7 | grep -q '^left '"
kubectl apply -f tests/vm/sample.yaml >/dev/null
check "the sample answers" until_ok 240 both_answer
check "it is 1970 all the time" machine left sh -c '[ "$(date +%Y)" = 1970 ]'
check "the clock is put right" machine left date --set "@$(date +%s)"
check "the sample still answers" both_answer
check "a new pod runs" until_ok 120 new_pod after-clock
check "all is well" until_ok 60 ready_inside left
before=$(machine left sha256sum /var/lib/keelson/pki/ca.crt /etc/machine-id)
machine_off left
kernel=$FIRST_BOOT nic=$(no_route 1) machine_up left 1 "${MEDIUM[@]}"
check "a boot without the stick changes nothing" until_ok 120 done_and_told left
check "and the clock is years ahead of the first" machine left sh -c '[ "$(date +%s)" -gt 1767225600 ]'
check "the sample answers again" until_ok 240 both_answer
check "the cluster and the machine are the same" test "$(machine left sha256sum /var/lib/keelson/pki/ca.crt /etc/machine-id)" = "$before"
machine_down left

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
check "the node is Ready" until_ok 60 ready_inside alone
inside() { machine alone env KUBECONFIG=/var/lib/keelson/admin.conf /srv/apt/kubectl "$@"; }
machine alone sh -c 'mount -o ro LABEL=medium /srv/apt'
inside apply -f /srv/apt/sample.yaml
check "the sample runs" until_ok 240 inside rollout status deployment/web --timeout=5s
check "a pod resolves the Service's name and reaches it" until_ok 120 inside exec deployment/web -- sh -c 'nslookup web.default.svc.cluster.local >/dev/null && nc -w 5 web.default.svc.cluster.local 80 </dev/null | grep web-'
check "each of the two differs" sh -c '[ "$1" != "$3" ] && [ "$2" != "$4" ]' - $(cut -c1-64 <<<"$before") $(machine alone sha256sum /var/lib/keelson/pki/ca.crt /etc/machine-id | cut -c1-64)
machine_off alone
kernel=$FIRST_BOOT nic="-nic none" machine_up alone 2 "${MEDIUM[@]}"
machine alone sh -c 'mount -o ro LABEL=medium /srv/apt'
check "it comes back" until_ok 240 inside exec deployment/web -- sh -c 'nc -w 5 web 80 </dev/null | grep web-'
machine_down alone
