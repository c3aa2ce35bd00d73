# An init that a power cut fell into just as the runtime had unpacked the images: its files are empty, and its books say that they
# are there. Made by hand here, because a cut seldom comes then. Sourced by run.

factory
with_medium
say "images that are there by name alone"
machine_new half "$GUESTS/factory.img"
machine_up half 1 "${MEDIUM[@]}"
check "the images are unpacked, and CRI has names of its own for them" machine half sh -c 'for archive in /usr/share/keelson/images/pause.tar /var/lib/keelson/images/busybox.tar; do ctr -n k8s.io images import "$archive" || exit 1; done
    ctr -n k8s.io leases create --id held; for i in $(seq 60); do [ "$(ctr -n k8s.io images list -q | grep -c ^sha256:)" = 2 ] && exit; sleep 0.5; done; exit 1'
machine half sh -c 'printf "[\"keelson.dev/pause:1\"]" >/var/lib/keelson/importing-init.json; printf "[\"test.invalid/busybox:1\"]" >/var/lib/keelson/importing-images.json
    find /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots -type f -exec truncate -s 0 {} +; sync'
machine_cut half
machine_up half 1 "${MEDIUM[@]}"
networked half
check "init makes the cluster" machine half keelson init
use half
kubectl apply -f tests/vm/sample.yaml >/dev/null
check "the sample answers" until_ok 240 both_answer
check "nothing is empty any more" machine half sh -c '[ -z "$(find /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots -path "*/bin/busybox" -size 0 -o -path "*/fs/pause" -size 0)" ]'
machine_down half
