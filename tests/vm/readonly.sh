# A root that cannot be written, with state on a /var of its own that begins all but empty. Sourced by run.

factory
with_medium
source tests/vm/sticks.sh
say "an image for a read-only root"
machine_new sealed "$GUESTS/factory.img"
rm -f "$work/var.img"
mke2fs -q -t ext4 -L state "$work/var.img" 3G
VAR=(-drive "file=$work/var.img,format=raw,if=virtio")
machine_up sealed 1 "${MEDIUM[@]}" "${VAR[@]}"
check "prepare makes it ready" machine sealed keelson first-boot prepare
check "prepare again changes nothing and ends well" machine sealed keelson first-boot prepare
check "it holds no identity" machine sealed sh -c '! ls /var/lib/keelson/pki /var/lib/keelson/ledger.jsonl 2>/dev/null'
# As whoever makes the image would: read-only, and /var from the other disk, which has the pods' images alone, and a place for
# the journal.
machine sealed sh -c 'mount LABEL=state /mnt && mkdir -p /mnt/lib/keelson/images /mnt/log/journal && cp /var/lib/keelson/images/busybox.tar /mnt/lib/keelson/images/ && umount /mnt
    printf "/dev/vda / ext4 ro 0 0\nLABEL=state /var ext4 defaults 0 0\ntmpfs /tmp tmpfs defaults 0 0\n" >/etc/fstab; : >/etc/machine-id; sync'
machine_off sealed

say "first boot on it"
stick sealed <<'YAML'
apiVersion: keelson/v1
kind: FirstBoot
hostName: sealed
init: {}
configuration:
  node: {labels: {made.at/line: "8"}}
YAML
machine_up sealed 1 "${MEDIUM[@]}" "${VAR[@]}" "${STICK[@]}"
check "nothing outside of /var can be written" machine sealed sh -c '! touch /etc/x /usr/x /opt/x 2>/dev/null && touch /var/x'
check "first boot is done, and a target tells" until_ok 240 done_and_told sealed
check "status says that all is well" until_ok 60 machine sealed keelson status
use sealed
check "its node has the name and the label of the file" until_ok 30 sh -c "command kubectl --kubeconfig $work/admin.conf get nodes -l made.at/line=8 | grep -q '^sealed .* Ready'"
kubectl apply -f tests/vm/sample.yaml >/dev/null
check "the sample answers" until_ok 240 both_answer
check "the doctor finds nothing" machine sealed keelson doctor
machine_id() { machine sealed cat /etc/machine-id; }
node_has() { [ -n "$1" ] && [ "$(kubectl get node sealed -o 'jsonpath={.status.nodeInfo.machineID}')" = "$1" ]; }
first_id=$(machine_id)
first_boot=$(machine sealed cat /proc/sys/kernel/random/boot_id | tr -d -)
check "the node has the id that systemd made up" node_has "$first_id"
check "the journal is on the disk" machine sealed sh -c 'journalctl --sync && ls "/var/log/journal/$(cat /etc/machine-id)/system.journal"'

say "and its next boots"
machine_cut sealed
machine_up sealed 1 "${MEDIUM[@]}" "${VAR[@]}"
check "the sample's pods of before answer" until_ok 240 old_pods_answer
check "a new pod runs" until_ok 120 new_pod late
check "it has kept its id" test "$(machine_id)" = "$first_id"
check "its node has" until_ok 30 node_has "$first_id"
check "its journal tells of both boots" machine sealed sh -c 'journalctl -q -b "$1" -u keelson.service | grep -q . && journalctl -q -b -u keelson.service | grep -q . && journalctl -q -b -k | grep -q "Linux version" &&
    [ "$(ls /var/log/journal)" = "$(cat /etc/machine-id)" ]' - "$first_boot"
check "it has kept its name" test "$(machine sealed hostname)" = sealed
check "status says that all is well" until_ok 60 machine sealed keelson status
check "reset takes it back" machine sealed keelson reset --yes --state
check "nothing of it runs" not machine sealed pgrep -x keelson
check "it has the image's name again" test "$(machine sealed hostname)" = guest
check "init by hand" machine sealed keelson init
machine_off sealed
machine_up sealed 1 "${MEDIUM[@]}" "${VAR[@]}"
check "starts with the machine" until_ok 240 machine sealed keelson status
check "one that was reset with its state is another machine" test "$(machine_id)" != "$first_id"
machine_down sealed

say "one that was not prepared"
machine_new unready "$GUESTS/factory.img"
machine_up unready 1 "${MEDIUM[@]}"
machine unready sh -c 'printf "/dev/vda / ext4 ro 0 0\ntmpfs /var/lib/keelson tmpfs size=2g 0 0\ntmpfs /var/lib/containerd tmpfs defaults 0 0\n" >/etc/fstab; sync'
machine_off unready
machine_up unready 1 "${MEDIUM[@]}"
check "says what to run in its image" machine unready sh -c 'said=$(keelson init 2>&1) && exit 1; echo "$said"; echo "$said" | grep -q "keelson first-boot prepare"'
machine_down unready
