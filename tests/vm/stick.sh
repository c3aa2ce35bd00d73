# A machine that becomes a cluster by itself, from a file on a stick; its clock begins in 1970 and it has no default route.
# Sourced by run.

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
echo "$before" >"$work/identity"
machine_off left
kernel=$FIRST_BOOT nic=$(no_route 1) machine_up left 1 "${MEDIUM[@]}"
check "a boot without the stick changes nothing" until_ok 120 done_and_told left
check "and the clock is years ahead of the first" machine left sh -c '[ "$(date +%s)" -gt 1767225600 ]'
check "the sample answers again" until_ok 240 both_answer
check "the cluster and the machine are the same" test "$(machine left sha256sum /var/lib/keelson/pki/ca.crt /etc/machine-id)" = "$before"
machine_down left

