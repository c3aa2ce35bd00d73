# Each check of `keelson doctor`: the machine is broken so, the check names it, its own command is run, and it is gone.
# Sourced by run, with machine `one` up: a control plane of units of its own.

say "doctor"
# What doctor prints of a check that is not good: the line and the one with what to do. $view is what it sees in place of
# the machine: a script run before it, whose mounts nobody else has.
view=:
named() { { machine one unshare --mount sh -c "$view; exec keelson doctor" 2>/dev/null || true; } | grep -A 1 -E "^[✗!] $1: "; }
unnamed() { ! named "$1"; }
says() {
    local said
    until_ok 40 named "$1" >/dev/null || { echo "it was not named"; return 1; }
    said=$(named "$1")
    echo "$said"
    case $said in *"$2"*) ;; *) return 1 ;; esac
}
# by_hand CHECK WORDS VIEW BREAK UNDO: no command alone can mend it. One that is printed runs.
by_hand() {
    local name=$1 words=$2 said mend
    view=$3
    inside "$4"
    said=$(says "$name" "$words") || { view=:; inside "$5"; echo "$said"; return 1; }
    view=:
    mend=$(echo "$said" | sed -n 2p | sed -nE 's/^[^`]*`([^`]*)`.*/\1/p')
    [ -z "$mend" ] || machine one sh -c "$mend" >/dev/null || { echo "the printed command failed: $mend"; return 1; }
    inside "$5"
    until_ok 60 unnamed "$name" || { echo "it is still there"; return 1; }
}
doctor_sees() { check "doctor: $1: $2" by_hand "$@"; }
# ails CHECK WORDS BREAK…: the check says WORDS after BREAK was run.
ails() {
    local name=$1 words=$2 said mend
    shift 2
    "$@"
    said=$(says "$name" "$words") || { echo "$said"; return 1; }
    mend=$(echo "$said" | sed -n 2p | sed -nE 's/^[^`]*`([^`]*)`.*/\1/p')
    [ -n "$mend" ] || { echo "no command is printed: $said"; return 1; }
    machine one sh -c "$mend" || { echo "the printed command failed: $mend"; return 1; }
    until_ok 40 unnamed "$name" || { echo "after \`$mend\` it is still there"; return 1; }
}
inside() { machine one sh -c "$1"; }
# doctor_finds CHECK WORDS SCRIPT
doctor_finds() { check "doctor: $1: $2" ails "$1" "$2" inside "$3"; }

cp "$(type -P kubectl)" "$MACHINES/one/root/usr/local/bin/kubectl"
check "it finds nothing wrong with a good machine" machine one keelson doctor
check "and says so in JSON" sh -c 'test "$1" -ge 25' - "$(machine one keelson doctor --output json | grep -c '"state": "good"')"

as_user='exec setpriv --reuid 65534 --clear-groups --inh-caps=-all keelson doctor'
doctor_sees root "a node needs root" "$as_user" : :
doctor_sees kernel "Linux 4.19.0-1 is older than 5.10" 'echo 4.19.0-1 >/run/osrelease; mount --bind /run/osrelease /proc/sys/kernel/osrelease' : :
doctor_sees cgroups "lacks cpu, memory, pids" 'mount -t tmpfs none /sys/fs/cgroup' : :
small='cp -a /var/lib/keelson /tmp/small.from; rm -rf /tmp/small.from/kubelet/pods /tmp/small.from/snapshots/*
    mkdir -p /tmp/small; mount -t tmpfs -o size=64m,nr_inodes=3000 none /tmp/small; cp -a /tmp/small.from/. /tmp/small; rm -rf /tmp/small.from
    mount --bind /tmp/small /var/lib/keelson'
doctor_sees disk "1 GiB is needed" "$small" : :
doctor_sees disk "more files can be made" "$small" : :
doctor_finds swap "is on" 'dd if=/dev/zero of=/var/lib/containerd/swap bs=1M count=16 status=none && chmod 600 /var/lib/containerd/swap && mkswap -q /var/lib/containerd/swap && swapon /var/lib/containerd/swap'
inside 'rm /var/lib/containerd/swap'
clock='export LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME="1970-01-02 00:00:00" FAKETIME_DONT_FAKE_MONOTONIC=1'
doctor_sees time "the clock says 1970" "$clock" : :
moved() { inside "ip address flush dev host0 && ip address add $1/24 dev host0 && ip route replace default via $SUBNET.1"; }
check "doctor: address: it is another now" ails address "$SUBNET.11 is no address of this machine" moved "$SUBNET.77"
check "the node says its new address" until_ok 20 inside "kubectl --kubeconfig /var/lib/keelson/admin.conf get node one -o wide | grep -q $SUBNET.77"
check "others reach it there" until_ok 10 command kubectl --kubeconfig "$work/admin.conf" --server "https://$SUBNET.77:6443" get nodes
check "doctor: address: and back" ails address "$SUBNET.77 is no address of this machine" moved "$SUBNET.11"
doctor_finds configuration 'unknown key "nodes"' "printf 'apiVersion: keelson/v1\nnodes: {}\n' >/etc/keelson/config.yaml.d/95-x.yaml"
doctor_finds ranges 10.244.99.1 'ip address add 10.244.99.1/32 dev lo'
doctor_finds "host name" "calls itself other" 'hostname other'
doctor_finds "machine id" "holds no identity" ': >/etc/machine-id'
doctor_finds "runtime at boot" "does not start at boot" 'systemctl disable --quiet containerd'
doctor_finds runtime "container runtime" 'systemctl stop containerd'
doctor_finds runtime "CRI plugin is off" "sed -i '1i disabled_plugins = [\"io.containerd.grpc.v1.cri\"]' /etc/containerd/config.toml && systemctl restart containerd"
doctor_finds runtime "kubelet.cgroupDriver says systemd" "printf 'apiVersion: keelson/v1\nkubelet: {cgroupDriver: systemd}\n' >/etc/keelson/config.yaml.d/95-x.yaml"
inside 'rm /etc/keelson/config.yaml.d/95-x.yaml'
doctor_finds "sandbox image" "which nobody brings" 'rm /etc/containerd/conf.d/keelson.toml && systemctl restart containerd'
doctor_finds "pause image" "is not there" 'ctr -n k8s.io images rm keelson.dev/pause:1 >/dev/null'
# (systemd notices files that changed, not folders of drop-ins that are new.)
doctor_finds "unit files" "has not read it" "echo '# changed' >>/lib/systemd/system/keelson-proxy.service"
inside "sed -i '/^# changed/d' /lib/systemd/system/keelson-proxy.service && systemctl daemon-reload"
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
check "the control plane takes the new ones" inside 'systemctl restart keelson-control-plane.service'
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
doctor_sees node "is not Ready" : 'systemctl stop containerd' 'systemctl start containerd'
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
