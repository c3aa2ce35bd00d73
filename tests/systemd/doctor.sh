# Each check of `keelson doctor`: the machine is broken so, the check names it, its own command is run, and it is gone.
# Sourced by run, with machine `one` up: a control plane of units of its own.

say "doctor"
# What doctor prints of a check that is not good: the line and the one with what to do.
named() { { machine one keelson doctor 2>/dev/null || true; } | grep -A 1 -E "^[✗!] $1: "; }
unnamed() { ! named "$1"; }
# ails CHECK WORDS BREAK…: the check says WORDS after BREAK was run.
ails() {
    local name=$1 words=$2 said mend
    shift 2
    "$@"
    until_ok 10 named "$name" >/dev/null || { echo "it was not named"; return 1; }
    said=$(named "$name")
    case $said in *"$words"*) ;; *) echo "it said: $said"; return 1 ;; esac
    mend=$(echo "$said" | sed -n 2p | sed -nE 's/^[^`]*`([^`]*)`.*/\1/p')
    [ -n "$mend" ] || { echo "no command is printed: $said"; return 1; }
    machine one sh -c "$mend" || { echo "the printed command failed: $mend"; return 1; }
    until_ok 40 unnamed "$name" || { echo "after \`$mend\` it is still there"; return 1; }
}
inside() { machine one sh -c "$1"; }
# doctor_finds CHECK WORDS SCRIPT
doctor_finds() { check "doctor: $1: $2" ails "$1" "$2" inside "$3"; }

cp "$(command -v kubectl)" "$MACHINES/one/root/usr/local/bin/kubectl"
check "it finds nothing wrong with a good machine" machine one keelson doctor
check "and says so in JSON" sh -c 'test "$1" -ge 25' - "$(machine one keelson doctor --output json | grep -c '"state": "good"')"
as_nobody() { { machine one setpriv --reuid 65534 --clear-groups keelson doctor || true; } | grep "✗ root: a node needs root"; }
check "it says when it is not root" as_nobody

doctor_finds configuration 'unknown key "nodes"' "printf 'apiVersion: keelson/v1\nnodes: {}\n' >/etc/keelson/config.yaml.d/95-x.yaml"
doctor_finds ranges 10.244.99.1 'ip address add 10.244.99.1/32 dev lo'
doctor_finds "host name" "calls itself other" 'hostname other'
doctor_finds "machine id" "holds no identity" ': >/etc/machine-id'
doctor_finds "runtime at boot" "does not start at boot" 'systemctl disable --quiet containerd'
doctor_finds runtime "container runtime" 'systemctl stop containerd'
doctor_finds runtime "CRI plugin is off" "sed -i '1i disabled_plugins = [\"io.containerd.grpc.v1.cri\"]' /etc/containerd/config.toml && systemctl restart containerd"
doctor_finds "sandbox image" "which nobody brings" 'rm /etc/containerd/conf.d/keelson.toml && systemctl restart containerd'
doctor_finds "pause image" "is not there" 'ctr -n k8s.io images rm keelson.dev/pause:1 >/dev/null'
doctor_finds "unit files" "has not read it" "mkdir -p /etc/systemd/system/keelson-proxy.service.d && printf '[Service]\nNice=0\n' >/etc/systemd/system/keelson-proxy.service.d/x.conf"
inside 'rm -r /etc/systemd/system/keelson-proxy.service.d && systemctl daemon-reload'
doctor_finds "units at boot" "keelson-proxy.service does not start at boot" 'systemctl disable --quiet keelson-proxy.service'
for unit in keelson-proxy keelson-kubelet keelson-control-plane; do
    doctor_finds units "$unit.service does not run" "systemctl stop $unit.service"
done
doctor_finds ports "which the kubelet needs" 'systemctl stop keelson-kubelet.service
    setsid systemd-socket-activate --listen=10250 /bin/cat >/dev/null 2>&1 </dev/null &
    for _ in $(seq 100); do grep -q ":280A .* 0A " /proc/net/tcp /proc/net/tcp6 && break; sleep 0.05; done'
inside 'systemctl start keelson-kubelet.service'
doctor_finds "state folder" "others may write" 'chmod 777 /var/lib/keelson'
doctor_finds "key files" "others may read" 'chmod 644 /var/lib/keelson/pki/ca.key'
doctor_finds owners "is keelson's" 'chown root /var/lib/keelson/pki/sa.key'
doctor_finds admin.conf "does not lead to" 'rm /var/lib/keelson/admin.conf'
doctor_finds certificates "apiserver.crt is damaged" 'echo junk >/var/lib/keelson/pki/apiserver.crt'
inside 'systemctl restart keelson-control-plane.service'
doctor_finds "static pods" "cannot be read" 'mkdir -p /var/lib/keelson/manifests && echo "kind: [" >/var/lib/keelson/manifests/x.yaml'
doctor_finds "CNI plugin" "is no program" 'rm -f /opt/cni/bin/keelson-cni /usr/lib/cni/keelson-cni'
doctor_finds "CNI configuration" "no pod gets a network" 'rm /etc/cni/net.d/10-keelson.conflist'
doctor_finds "other CNI configurations" "comes before ours" 'cp /etc/cni/net.d/10-keelson.conflist /etc/cni/net.d/05-other.conflist'
inside 'rm /etc/cni/net.d/05-other.conflist.disabled'
doctor_finds forwarding "is 0" 'sysctl -q -w net.ipv4.ip_forward=0'
without_rules() { nsenter -t "$(cat "$MACHINES/one/leader.pid")" -n nft delete table inet keelson-services; }
check "doctor: rules: the nft table is gone" ails rules "is gone" without_rules
doctor_finds "cluster DNS" 10.96.0.10 'ip link del "$(ip -o address show to 10.96.0.10 | cut -d " " -f 2)"'
doctor_finds "API server" "does not answer" 'systemctl stop keelson-control-plane.service'
until_ok 20 kubectl get --raw /readyz >/dev/null
doctor_finds node "takes no new pods" 'kubectl --kubeconfig /var/lib/keelson/admin.conf cordon one >/dev/null'
ghost() { kubectl create -f - >/dev/null <<<'{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}}'; }
check "doctor: other nodes: one is not Ready" ails "other nodes" "node ghost is not Ready" ghost
doctor_finds "bootstrap tokens" "for ever" 'keelson token create --ttl 0 >/dev/null'

check "a snapshot" machine one keelson snapshot save
doctor_finds snapshots "is cut short" 'cd /var/lib/keelson/snapshots && head -c 300 "$(ls | head -n 1)" >broken.snapshot && chown keelson: broken.snapshot && chmod 600 broken.snapshot'
kubectl create configmap kept --from-literal=a=b >/dev/null
inside 'rm /var/lib/keelson/snapshots/*'
check "one with what is there" machine one keelson snapshot save
doctor_finds database "is damaged" 'systemctl stop keelson-control-plane.service
    dd if=/dev/urandom of=/var/lib/keelson/db/store.db bs=4096 seek=3 count=8 conv=notrunc status=none'
check "the cluster is there again" until_ok 20 kubectl get configmap kept
check "the journal says so loudly" machine one sh -c 'journalctl -u keelson-control-plane.service -p 3..7 | grep -q "what was written after that is lost"'
doctor_finds "damaged databases" "is lost" true
check "in the end nothing is wrong" until_ok 40 machine one keelson doctor
