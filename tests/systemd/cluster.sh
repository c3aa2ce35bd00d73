# A cluster of units of its own on machine `one`: init, pods, restarts, certificates, hardening. Sourced by run.

say "a cluster of units of its own, on a machine that has containerd"
machine_up one 11 "$repository"
traces one >"$work/before"
begun=$(moment)
check "apt installs the packages from their repository" install_packages one
check "nothing runs before init" not machine one pgrep -x keelson
check "a dry run changes nothing" machine one sh -c 'keelson init --mode units --dry-run >/dev/null && ! ls /var/lib/keelson/ledger.jsonl 2>/dev/null'
check "init makes the cluster" machine one keelson init --mode units
figure install_to_ready_s "$(since "$begun")" s 25
machine one cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.11/" >"$work/admin.conf"
check "status says that all is well" machine one keelson status
check "init again changes nothing and ends well" machine one keelson init --mode units
check "admin.conf is for root and the control plane alone" machine one sh -c '[ "$(stat -Lc %a /var/lib/keelson/admin.conf)" = 600 ]'

say "pods, Services and names"
import one "$image"
kubectl apply -f tests/systemd/pods.yaml >/dev/null
check "a pod runs" kubectl wait --for=condition=Ready pod/web --timeout=30s
check "a pod resolves a Service's name and reaches it" until_ok 20 kubectl exec client-one -- sh -c 'nslookup web.default.svc.cluster.local && nc -w 2 web.default.svc.cluster.local 80 </dev/null | grep hello'
check "logs come through the kubelet's signed certificate" kubectl logs web

say "restarts disturb no pod"
pods() { kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name}{.status.containerStatuses[0].containerID}{.status.containerStatuses[0].restartCount}{"\n"}{end}'; }
running=$(pods)
for unit in keelson-kubelet keelson-proxy keelson-control-plane; do
    check "systemctl restart $unit" machine one systemctl restart "$unit"
done
check "the API serves again" until_ok 20 kubectl get --raw /readyz
check "the pods are the same" test "$(pods)" = "$running"
check "and reach each other" until_ok 20 kubectl exec client-one -- sh -c 'nc -w 2 web.default.svc.cluster.local 80 </dev/null | grep hello'

say "certificates made anew"
check "certs renew" machine one sh -c 'keelson certs renew && systemctl restart keelson-control-plane'
machine one cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.11/" >"$work/admin.conf"
check "the new administrator's certificate is taken" until_ok 20 kubectl get nodes
check "and the node's own still is" until_ok 20 machine one keelson status

say "what the control plane may"
exposure() { machine one systemd-analyze security --no-pager "$1" | sed -nE 's/.*Overall exposure level for [^:]*: ([0-9.]+).*/\1/p'; }
control=$(exposure keelson-control-plane.service) proxy=$(exposure keelson-proxy.service)
figure control_plane_exposure "$control" points 2.5
figure proxy_exposure "$proxy" points 7
figure kubelet_exposure "$(exposure keelson-kubelet.service)" points
check "the control plane's exposure is at most 2.5" awk "BEGIN { exit !($control <= 2.5) }"
check "the proxy's is at most 7" awk "BEGIN { exit !($proxy <= 7) }"
as_control_plane() {
    local pid
    pid=$(machine one systemctl show --property MainPID --value keelson-control-plane.service)
    machine one nsenter -t "$pid" -m setpriv --reuid keelson --regid keelson --clear-groups --bounding-set -all --inh-caps -all "$@"
}
for path in /home /run/containerd/containerd.sock /var/lib/keelson/kubelet/pki/kubelet.key /var/lib/keelson/kubelet.conf; do
    check "the control plane's user cannot open $path" not as_control_plane sh -c "ls $path/* || cat $path || nc -U $path"
done
