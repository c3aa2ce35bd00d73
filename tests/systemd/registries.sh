# Images that come from a mirror, with an authority that the machine does not know. Sourced by run.

say "images from a mirror with an authority of its own"
mirrors="$work/mirrors"
mkdir -p "$mirrors"
openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=mirrors -keyout "$mirrors/ca.key" -out "$mirrors/ca.crt" 2>/dev/null ||
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=mirrors -keyout "$mirrors/ca.key" -out "$mirrors/ca.crt" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mirror -keyout "$mirrors/mirror.key" -out "$mirrors/mirror.csr" 2>/dev/null
openssl x509 -req -in "$mirrors/mirror.csr" -CA "$mirrors/ca.crt" -CAkey "$mirrors/ca.key" -CAcreateserial -days 2 \
    -extfile <(echo "subjectAltName=IP:$SUBNET.1") -out "$mirrors/mirror.crt" 2>/dev/null
machine_up mirrored 60 "$repository"
install_packages mirrored
traces mirrored >"$work/mirrored.before"
python3 tests/systemd/registry.py "$image" "$SUBNET.1" 5443 "$mirrors/mirror.crt" "$mirrors/mirror.key" "$mirrors/log" &
mirror_pid=$!
cp "$mirrors/ca.crt" "$MACHINES/mirrored/root/root/mirrors.crt"
echo junk >"$MACHINES/mirrored/root/root/junk.crt"
mirror=(--registry-mirror "docker.io=https://$SUBNET.1:5443")
check "an authority that is none is refused" refuses "holds no PEM certificate" machine mirrored keelson init --mode units "${mirror[@]}" --registry-ca-file /root/junk.crt
check "a mirror that is no address too" refuses "must be https://host:port" machine mirrored keelson init --mode units --registry-mirror docker.io=mirror
check "and nothing was changed" diff "$work/mirrored.before" <(traces mirrored)
check "init" machine mirrored keelson init --mode units "${mirror[@]}" --registry-ca-file /root/mirrors.crt
machine mirrored cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.60/" >"$work/mirrored.conf"
at_mirrored() { command kubectl --kubeconfig "$work/mirrored.conf" "$@"; }
at_mirrored run far --image=docker.io/library/far:1 --image-pull-policy=IfNotPresent --restart=Always -- sleep 1000 >/dev/null
check "a pod runs with an image that only the mirror has" at_mirrored wait --for=condition=Ready pod/far --timeout=30s
check "which was asked for it" grep -q "/v2/library/far/manifests/1" "$mirrors/log"
pulling="$MACHINES/mirrored/root/var/lib/keelson/kubelet/pulling.json"
check "once it is flushed nothing is noted of it" until_ok 20 grep -q '"images":\[\]' "$pulling"
# A power cut between the pull and the flush: the next boot finds the note.
machine_off mirrored
sed -i 's|"images":\[\]|"images":["docker.io/library/far:1"]|' "$pulling"
: >"$mirrors/log"
machine_up mirrored 60 "$repository"
# Asked for by its digest, which a broken one would have too: what it is made of is fetched again.
check "what a power cut may have broken is fetched anew" until_ok 40 grep -q "/v2/library/far/blobs/" "$mirrors/log"
check "and the pod runs with it" until_ok 40 at_mirrored wait --for=condition=Ready pod/far --timeout=2s
check "which the journal tells" machine mirrored sh -c 'journalctl -b -u keelson-kubelet.service --no-pager | grep "before an image was on the disk"'
check "init again changes nothing" machine mirrored sh -c 'before=$(stat -c %Y /etc/containerd/certs.d/docker.io/hosts.toml) && keelson init --mode units "$@" >/dev/null && [ "$(stat -c %Y /etc/containerd/certs.d/docker.io/hosts.toml)" = "$before" ]' - "${mirror[@]}" --registry-ca-file /root/mirrors.crt
check "reset" machine mirrored keelson reset --yes --state
check "takes the mirrors away" machine mirrored sh -c '! ls -d /etc/containerd/certs.d 2>/dev/null && ! grep -q certs.d /etc/containerd/config.toml'
kill "$mirror_pid"
machine_down mirrored
