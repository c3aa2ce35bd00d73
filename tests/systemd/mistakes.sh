# What is wrong in the configuration, the ranges or the disk is refused with what to do, and the machine is as it was. (Wrong
# tokens, hashes, addresses and names of nodes: workers.sh; bundles: bundle.sh; snapshots: snapshot.sh and cli/tests; a damaged database: doctor.sh.) Sourced by run.

say "mistakes leave the machine as it was"
machine_up wrong 62 "$repository"
install_packages wrong
traces wrong >"$work/wrong.before"
wrong_file=/etc/keelson/config.yaml.d/50-wrong.yaml
# with TEXT WORDS: a drop-in of this text is refused so.
with() {
    printf '%b' "$1" | machine wrong sh -c "cat >$wrong_file"
    refuses "$2" machine wrong keelson init --mode units
    local code=$?
    machine wrong rm "$wrong_file"
    return $code
}
check "an unknown key, and which one was meant" with 'apiVersion: keelson/v1\nnetwork: {podCIDR: 10.1.0.0/16}\n' 'did you mean "network.podCidr"'
check "a file that is written half" with 'apiVersion: keelson/v1\nnetwork: {podCidr: 10.1.0' '50-wrong.yaml is no valid YAML'
check "a file without its version" with 'network: {}\n' 'apiVersion must be "keelson/v1"'
check "ranges that overlap" refuses "overlaps network.serviceCidr" machine wrong keelson init --mode units --pod-network-cidr 10.96.0.0/16
check "a range that holds the machine's own address" refuses "Choose another range with --service-cidr" machine wrong keelson init --mode units --service-cidr "${SUBNET%.*}.0.0/16"
check "an address of another machine" refuses "with --node-ip or --apiserver-advertise-address" machine wrong keelson init --mode units --apiserver-advertise-address 192.0.2.1
# full COMMAND…: with 64 MiB for the state folder. The mount is this command's alone.
full() { machine wrong unshare --mount sh -c 'mkdir -p /var/lib/keelson && mount -t tmpfs -o size=64m none /var/lib/keelson && "$@"; code=$?; umount /var/lib/keelson; rmdir /var/lib/keelson; exit $code' - "$@"; }
check "a disk that is full" refuses "1 GiB is needed" full keelson init --mode units
head -c 100000000 /dev/zero >"$MACHINES/wrong/containerd/large.bundle"
: >"$MACHINES/wrong/root/root/key.pub"
check "a bundle larger than the disk" refuses "MiB free, the bundle needs 96" full keelson bundle install /var/lib/containerd/large.bundle --public-key /root/key.pub
rm "$MACHINES/wrong/containerd/large.bundle"
check "a snapshot that is none" refuses "is no snapshot" machine wrong keelson snapshot restore /etc/hostname
# The same program with another version in its text stands for another version of it, as far as the API server tells (where the
# compiler made numbers of the text, it is the old one).
machine_up newer 57 "$repository"
install_packages newer
versioned() { sed -i "s/v1\.$1\.0/v1.$2.0/g" "$MACHINES/newer/root/usr/bin/keelson"; }
versioned 35 39
check "a cluster of Kubernetes 1.39" machine newer sh -c 'keelson init --mode units >/dev/null && curl -sk https://127.0.0.1:6443/version | grep v1.39.0'
join=$(machine newer keelson token create --print-join-command)
check "a node that is four minor versions older" refuses "a node may be 3 minor versions older at most. Install the package of 1.39 here first" machine wrong ${join:?}
machine newer systemctl stop keelson-control-plane.service
versioned 39 34
machine newer systemctl start keelson-control-plane.service
check "and one that is newer than the API server" refuses "this machine has Kubernetes 1.35, the cluster's API server is 1.34: a node may not be newer" machine wrong ${join:?}
machine_down newer
check "after all of it the machine is as it was" diff "$work/wrong.before" <(traces wrong)
check "and becomes a cluster" machine wrong keelson init --mode units
machine_down wrong
