# The disks that parts begin with, and the sample. Sourced by run.
#
# factory.img: a machine as it comes from the factory: the packages, no identity. cluster.img: one that `keelson init` made a
# cluster of, with the sample; powered off as it should be. $work/plain_boot_s: how long a machine of the first kind takes.

# What a guest installs from, and the images of the test's own pods, on a disk of its own.
medium() {
    local folder="$work/medium"
    [ ! -f "$work/medium.img" ] || return 0
    mkdir -p "$folder"
    cp -r "$dist_folder/apt/." "$folder/"
    cp "$CACHE/busybox.tar" tests/vm/sample.yaml "$folder/"
    cp -L "$(type -P kubectl)" "$folder/kubectl"
    [ ! -d "$dist_folder-next" ] || cp "$dist_folder-next"/keelson_*.deb "$folder/next.deb"
    mke2fs -q -t ext4 -L medium -d "$folder" "$work/medium.img" 512M
    rm -rf "$folder"
}
MEDIUM=()
with_medium() { medium; MEDIUM=(-drive "file=$work/medium.img,format=raw,if=virtio,readonly=on"); }

factory() {
    [ ! -f "$GUESTS/factory.img" ] || return 0
    say "a disk with the packages, as it leaves the factory"
    with_medium
    machine_new factory
    machine_up factory 9 "${MEDIUM[@]}"
    machine factory mount -o ro LABEL=medium /srv/apt
    check "apt installs the packages from their repository" install_packages factory
    check "nothing runs before init" not machine factory pgrep -x keelson
    check "nothing of them fails" machine factory sh -c '[ -z "$(systemctl --failed --no-legend)" ]'
    # What whoever makes an image does.
    machine factory sh -c 'mkdir -p /var/lib/keelson/images; cp /srv/apt/busybox.tar /var/lib/keelson/images/; umount /srv/apt
        systemctl stop systemd-random-seed.service; rm -f /var/lib/systemd/random-seed /var/lib/dbus/machine-id; : >/etc/machine-id; sync'
    machine_off factory
    mv "$GUESTS/factory/disk.img" "$GUESTS/factory.img"
    machine_down factory
}

# cluster NAME NUMBER: a cluster with the sample, running, on machine NAME.
cluster() {
    local begun
    if [ -f "$GUESTS/cluster.img" ]; then
        cp "$work/pods.cluster" "$work/pods"
        machine_new "$1" "$GUESTS/cluster.img"
        machine_up "$1" "$2" "${MEDIUM[@]}"
        use "$1"
        check "the cluster comes back after a shutdown" until_ok 300 sample_answers
        return
    fi
    factory
    say "a cluster, made by init"
    machine_new "$1" "$GUESTS/factory.img"
    begun=$(moment)
    machine_up "$1" "$2" "${MEDIUM[@]}"
    machine "$1" sh -c 'until systemctl is-active --quiet multi-user.target; do sleep 0.5; done'
    since "$begun" >"$work/plain_boot_s"
    figure plain_boot_s "$(cat "$work/plain_boot_s")" s
    begun=$(moment)
    check "init makes the cluster" machine "$1" keelson init
    figure init_s "$(since "$begun")" s
    since "$begun" >"$work/init_s"
    use "$1"
    check "status says that all is well" until_ok 60 machine "$1" keelson status
    kubectl apply -f tests/vm/sample.yaml >/dev/null
    check "the sample answers through its Service" until_ok 300 sample_answers
    check "by both of its pods" until_ok 60 both_answer
}
# keep_cluster NAME: its disk is what later parts begin with.
keep_cluster() {
    machine_off "$1"
    cp --sparse=always "$GUESTS/$1/disk.img" "$GUESTS/cluster.img"
    cp "$work/pods" "$work/pods.cluster"
}

# networked NAME [CARDS]: the administrator who types a command again does so on a machine that is up.
networked() { machine "$1" sh -c 'until [ "$(ip -4 -o address show scope global | wc -l)" -ge "$1" ]; do sleep 1; done' - "${2:-1}"; }
# use NAME: kubectl and the sample's checks go to this machine.
use() {
    used=$1
    machine "$1" cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1:6443/127.0.0.1:$(api_port "$1")/" >"$work/admin.conf"
}
kubectl() { command kubectl --kubeconfig "$work/admin.conf" --request-timeout=15s "$@"; }
# What answers at the sample's node port, once: a pod's name.
ask() {
    local port
    port=$(service_port "$used")
    timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && head -n 1 <&3" | grep '^web-'
}
sample_answers() { ask; }
sample_pods() { kubectl get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}' | sort; }
# Each of the sample's pods answers, and they are as many as they should be.
both_answer() {
    local seen
    seen=$(for _ in 1 2 3 4 5 6 7 8 9 10; do ask || true; done | sort -u)
    [ "$(wc -w <<<"$seen")" = 2 ] && [ "$seen" = "$(sample_pods)" ] && echo "$seen" >"$work/pods"
}
# The pods that answered before are those that answer. What gives no answer is not asked eight times: where nothing listens yet,
# each takes seconds, which would count as the machine's.
old_pods_answer() {
    local seen
    seen=$(failed=0; for _ in 1 2 3 4 5 6 7 8; do ask || failed=$((failed + 1)); [ $failed -lt 3 ] || break; done | sort -u)
    [ "$seen" = "$(cat "$work/pods")" ]
}
# A pod that was not there runs.
new_pod() {
    cat <<YAML | kubectl apply -f - >/dev/null && kubectl wait --for=condition=Ready "pod/$1" --timeout=10s
apiVersion: v1
kind: Pod
metadata: {name: $1, labels: {made: late}}
spec:
  terminationGracePeriodSeconds: 1
  ${2:+nodeName: $2}
  containers:
    - {name: c, image: "test.invalid/busybox:1", imagePullPolicy: Never, command: [sleep, infinity]}
YAML
}
none_terminating() { [ -z "$(kubectl get pods -A -o 'jsonpath={.items[?(@.metadata.deletionTimestamp)].metadata.name}')" ]; }
