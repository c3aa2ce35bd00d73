# One file for a machine that has no network, no container runtime and no keelson. Sourced by run.

say "a bundle, made here"
debs="$MACHINE_CACHE/debs"
mkdir -p "$debs" "$work/manifests" "$work/images"
[ -n "$(ls "$debs"/containerd_*.deb "$debs"/runc_*.deb 2>/dev/null)" ] || (cd "$debs" && apt-get download containerd runc >/dev/null)
rm -rf "$work/unpacked"
dpkg-deb -x "$dist_folder"/keelson_*.deb "$work/unpacked"
here="$work/unpacked/usr/bin/keelson"
cat >"$work/manifests/pod.yaml" <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: carried}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: c, image: test.invalid/busybox:1, command: [sleep, infinity]}
YAML
rm -f "$work"/bundle.key*
check "a key" "$here" bundle key "$work/bundle.key"
# lacks WORDS OPTION…
lacks() {
    local words=$1 said
    shift
    said=$("$here" bundle create "$work/b.bundle" --key "$work/bundle.key" "$@" 2>&1) && { echo "it was made"; return 1; }
    echo "$said"
    case $said in *"$words"*) ;; *) return 1 ;; esac
    [ ! -e "$work/b.bundle" ]
}
ours=("$dist_folder"/keelson_*.deb "$dist_folder"/keelson-images_*.deb)
check "without runc it is not made" lacks "containerd needs runc" --packages "${ours[@]}" "$debs"/containerd_*.deb
check "without an image that a manifest names neither" lacks "the image test.invalid/busybox:1" --packages "${ours[@]}" "$debs" --manifests "$work/manifests"
cp "$image" "$work/images/busybox.tar"
create() { "$here" bundle create "$1" --key "$work/bundle.key" --packages "${ours[@]}" "$debs" --manifests "$work/manifests" --images "$work/images"; }
check "with all of it it is" create "$work/b.bundle"
check "and verified" "$here" bundle verify "$work/b.bundle" --public-key "$work/bundle.key.pub"
create "$work/again.bundle" >/dev/null 2>&1
check "made again it is the same byte for byte" cmp "$work/b.bundle" "$work/again.bundle"
head -c 3000000 "$work/b.bundle" >"$work/cut.bundle"
check "a cut one is refused" refuses "cut short" "$here" bundle verify "$work/cut.bundle" --public-key "$work/bundle.key.pub"
{ head -c 3000000 "$work/b.bundle"; printf x; tail -c +3000002 "$work/b.bundle"; } >"$work/altered.bundle"
check "an altered one too" refuses "was altered" "$here" bundle verify "$work/altered.bundle" --public-key "$work/bundle.key.pub"
"$here" bundle key "$work/other.key" >/dev/null 2>&1 || true
check "and one of somebody else's key" refuses "cannot be believed" "$here" bundle verify "$work/b.bundle" --public-key "$work/other.key.pub"

say "and installed where there is nothing"
machine_up bare 16
machine bare sh -c 'dpkg --remove containerd runc >/dev/null 2>&1; rm -f /etc/resolv.conf
    ip link set host0 down; ip link add only type dummy; ip address add 192.0.2.1/24 dev only; ip link set only up'
check "no network is there" not machine bare ping -c 1 -W 1 "$SUBNET.1"
check "nor a runtime" not machine bare containerd --version
for file in b.bundle altered.bundle bundle.key.pub; do cp "$work/$file" "$MACHINES/bare/root/root/"; done
cp "$here" "$MACHINES/bare/root/root/keelson"
check "an altered one changes nothing" machine bare sh -c '! /root/keelson bundle install /root/altered.bundle --public-key /root/bundle.key.pub 2>/tmp/said &&
    grep -q "was altered" /tmp/said && ! ls /usr/bin/keelson /var/lib/keelson/bundle /var/lib/keelson/images 2>/dev/null'
begun=$(moment)
check "install" machine bare /root/keelson bundle install /root/b.bundle --public-key /root/bundle.key.pub
figure bundle_install_s "$(since "$begun")" s
check "install again changes nothing and ends well" machine bare /root/keelson bundle install /root/b.bundle --public-key /root/bundle.key.pub
check "init" machine bare keelson init
bare() { machine bare env KUBECONFIG=/var/lib/keelson/admin.conf /usr/local/bin/kubectl "$@"; }
cp "$(type -P kubectl)" "$MACHINES/bare/root/usr/local/bin/kubectl"
check "its pod runs" until_ok 40 bare wait --for=condition=Ready pod/carried --timeout=2s
check "its images are pinned" machine bare sh -c 'ctr -n k8s.io images ls | grep "^test.invalid/busybox:1 " | grep -q pinned=pinned'
check "status" until_ok 20 machine bare keelson status
machine_down bare
