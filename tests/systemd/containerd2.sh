# A machine whose runtime is containerd 2, with Debian 12's runc: its configuration has another form, and so has what init adds
# to it. Sourced by run. Its programs are those of `make test-containerd2`.

say "a machine with containerd 2"
programs="$MACHINE_CACHE/containerd2"
upper="$MACHINES/modern/upper"
mkdir -p "$upper/usr/bin" "$upper/etc/containerd"
cp "$programs"/{containerd,containerd-shim-runc-v2,ctr} "$upper/usr/bin/"
# Form 3, with folders of its own for CNI: of several, the runtime takes the first that has a plugin.
cat >"$upper/etc/containerd/config.toml" <<'TOML'
version = 3
disabled_plugins = ['io.containerd.grpc.v1.cri']
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/srv/cni/bin', '/opt/cni/bin']
  conf_dir = '/srv/cni/net.d'
TOML
machine_up modern 71 "$repository"
install_packages modern
effective() { machine modern containerd config dump; }
says_effective() { case $(effective) in *"$1"*) ;; *) effective | grep -E "${1%% =*} =|_plugins"; return 1 ;; esac; }
check "it runs one" machine modern sh -c 'ctr version | sed -n "/Server/,\$p" | grep -q "Version: *v*2\."'
check "its own form is 3" says_effective "version = 3"
traces modern >"$work/modern.off"
check "a CRI plugin that is off is told" refuses "containerd's CRI plugin is off" machine modern keelson init --mode units
check "and nothing was changed" diff "$work/modern.off" <(traces modern)
check "the printed command mends it" machine modern sh -c 'mend=$(keelson init --mode units 2>&1 | sed -nE "s/.*CRI plugin is off[^\`]*\`([^\`]*)\`.*/\1/p"); [ -n "$mend" ] && sh -c "$mend"'
traces modern >"$work/modern.before"
folders_before=$(machine modern sh -c 'find /srv -mindepth 1')
check "init" machine modern keelson init --mode units --registry-mirror "docker.io=https://$SUBNET.1:5443"
check "what it adds has form 3 too" machine modern grep -qx 'version = 3' /etc/containerd/conf.d/keelson.toml
check "the runtime makes pods with our image" says_effective "sandbox = 'keelson.dev/pause:1'"
check "and looks for mirrors" says_effective "config_path = '/etc/containerd/certs.d'"
check "what the administrator chose is still in force" says_effective "restrict_oom_score_adj = true"
check "the CNI plugin lies where this runtime looks first" machine modern test -x /srv/cni/bin/keelson-cni
check "its configuration too" machine modern test -s /srv/cni/net.d/10-keelson.conflist
check "init again changes nothing" machine modern sh -c 'before=$(systemctl show --property MainPID --value containerd) && keelson init --mode units >/dev/null && [ "$(systemctl show --property MainPID --value containerd)" = "$before" ]'
machine modern cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.71/" >"$work/modern.conf"
at_modern() { command kubectl --kubeconfig "$work/modern.conf" "$@"; }
sample at_modern modern
check "it answers" until_ok 20 sample_answers at_modern "$SUBNET.71"
check "its images are pinned" machine modern sh -c 'ctr -n k8s.io images ls | grep "^keelson.dev/sample-nginx:1 " | grep -q pinned=pinned'
check "doctor finds nothing wrong" machine modern keelson doctor
before=$(pods_of at_modern)
check "the runtime is restarted" machine modern systemctl restart containerd.service
check "the node is Ready" until_ok 30 machine modern keelson status
check "its pods are the same" test "$(pods_of at_modern)" = "$before"
check "and answer" until_ok 20 sample_answers at_modern "$SUBNET.71"
check "a pod that is made afterwards runs" until_ok 40 sh -c 'kubectl --kubeconfig "$1" -n two-tier delete pod -l app=redis --wait=false >/dev/null && kubectl --kubeconfig "$1" -n two-tier rollout status deployment/redis --timeout=20s' - "$work/modern.conf"
check "reset" machine modern keelson reset --yes --state
check "its configuration is what it was" diff "$work/modern.before" <(traces modern)
check "its folders of CNI too" test "$(machine modern sh -c 'find /srv -mindepth 1')" = "$folders_before"

say "the same with the file that Debian's package of containerd 2 brings"
# Form 2, which containerd 2 reads as form 3. (The line about scores is the test machines'.)
machine modern sh -c 'cat >/etc/containerd/config.toml && systemctl restart containerd.service' <<'TOML'
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    restrict_oom_score_adj = true
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
TOML
traces modern >"$work/modern.before"
effective >"$work/modern.effective"
check "init" machine modern keelson init --mode units
check "the runtime makes pods with our image" says_effective "sandbox = 'keelson.dev/pause:1'"
only_ours() { diff <(effective | grep -v '^imports =\|^ *sandbox =') <(grep -v '^imports =\|^ *sandbox =' "$work/modern.effective"); }
check "and all else is in force as it was" only_ours
check "the CNI plugin lies where the file says" machine modern test -x /usr/lib/cni/keelson-cni
machine modern cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.71/" >"$work/modern.conf"
import modern "$image"
sed 's/nodeName: one/nodeName: modern/' tests/systemd/pods.yaml | at_modern apply -f - >/dev/null
check "pods run" at_modern wait --for=condition=Ready pod/web pod/client-one --timeout=40s
check "and reach each other by a Service's name" until_ok 20 at_modern exec client-one -- sh -c 'nc -w 2 web.default.svc.cluster.local 80 </dev/null | grep hello'
check "reset" machine modern keelson reset --yes --state
machine modern sh -c 'ctr -n k8s.io images rm $(ctr -n k8s.io images ls -q) >/dev/null 2>&1 || true'
check "its configuration is what it was" diff "$work/modern.before" <(traces modern)
machine_down modern
