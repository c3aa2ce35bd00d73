# A machine that lay in a drawer for two years: its certificates are long over when it is switched on. Sourced by run.

factory
with_medium
say "two years later"
cluster one 1
[ -f "$GUESTS/cluster.img" ] || keep_cluster one
machine_off one
# -rtc takes a date; the guest's own clock is what it has.
machine_up one 1 "${MEDIUM[@]}" -rtc base="$(date --utc --date '+2 years' +%Y-%m-%dT%H:%M:%S)"
check "its clock is two years ahead" machine one sh -c "[ \$(date +%s) -gt $(($(date +%s) + 60 * 60 * 24 * 700)) ]"
begun=$(moment)
check "it serves again by itself" until_ok 180 machine one keelson status
figure back_after_two_years_s "$(since "$begun")" s
check "the sample's pods of before answer" until_ok 120 old_pods_answer
use one
# This host's clock is not the guest's: what its kubectl would say of certificates is not what a client of the site would.
inside() { machine one env KUBECONFIG=/var/lib/keelson/admin.conf /srv/apt/kubectl --request-timeout=15s "$@"; }
machine one mount -o ro LABEL=medium /srv/apt
check "the administrator's own file is renewed on the disk" inside get nodes
check "the node is Ready" inside wait --for=condition=Ready node --all --timeout=60s
inside run late --image=test.invalid/busybox:1 --image-pull-policy=Never --command -- sleep infinity
check "a new pod runs" until_ok 120 inside wait --for=condition=Ready pod/late --timeout=5s
check "logs come by the kubelet's own certificate" inside logs deployment/web
check "no certificate is about to end" machine one sh -c 'keelson certs list && ! keelson certs list | grep -qi "expired"'
machine_down one
