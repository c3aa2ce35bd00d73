# Machines whose disk image holds the packages and no identity, and which become a cluster or join one from a file. Sourced
# by run.

say "first boot from a file"
# image NAME OCTET [FILE]: a machine as it comes from the factory, off.
image() {
    machine_up "$1" "$2" "$repository"
    install_packages "$1"
    machine "$1" systemctl enable --quiet keelson-first-boot.service
    machine_off "$1"
}
said_first_boot() { { machine "$1" keelson first-boot status || true; } | grep -q "$2"; }
first_boot_done() { machine "$1" keelson first-boot status && machine "$1" systemctl is-active keelson-first-boot.target; }
file_of() { cat >"$MACHINES/$1/root/etc/keelson/first-boot.yaml"; }
image first 31
machine_up first 31 "$repository"
check "without a file nothing begins" said_first_boot first "no file was found"
check "and nothing is made" machine first sh -c '! ls -d /var/lib/keelson/pki 2>/dev/null'
echo 'apiVersion: keelson/v1' | file_of first
check "a file that cannot be used is told" until_ok 20 said_first_boot first "first-boot.yaml cannot be used"
file_of first <<YAML
apiVersion: keelson/v1
kind: FirstBoot
init: {mode: units, extraSans: [factory.test]}
configuration:
  node: {labels: {made.at/line: "7"}}
YAML
check "one that can be is acted on, without a boot" until_ok 60 first_boot_done first
machine first cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.31/" >"$work/first.conf"
at_first() { command kubectl --kubeconfig "$work/first.conf" "$@"; }
labelled_first() { at_first get nodes -l made.at/line=7 | grep -q ' Ready'; }
check "its node has what the file says" until_ok 20 labelled_first
authority() { machine "$1" sha256sum /var/lib/keelson/pki/ca.crt; }
before=$(authority first)
machine_off first
machine_up first 31 "$repository"
check "another boot changes nothing" until_ok 40 first_boot_done first
check "the cluster is the same" test "$(authority first)" = "$before"
check "and serves" until_ok 40 at_first get nodes

say "first boots whose power is cut"
image joins 32
join=$(machine first keelson token create --print-join-command)
file_of joins <<YAML
apiVersion: keelson/v1
kind: FirstBoot
join:
  endpoint: $SUBNET.31:6443
  token: $(echo "$join" | sed -nE 's/.*--token ([^ ]+).*/\1/p')
  caCertHashes: ["${join##* }"]
YAML
for moment in 0.2 0.7 1.5 3; do
    machine_up joins 32 "$repository" || true
    sleep "$moment"
    machine_cut joins
done
machine_up joins 32 "$repository"
check "after four cuts it has joined" until_ok 60 first_boot_done joins
joined() { at_first get node joins | grep -q ' Ready'; }
check "and is Ready" until_ok 30 joined
for machine in joins first; do machine_down "$machine"; done
