# What init and join are told beside the addresses: more names for the certificate, a file in place of a token's discovery,
# labels, taints and roles; and machines whose clock is off. Sourced by run.

say "a certificate with more names"
machine_up named 72 "$repository"
install_packages named
machine_up joiner 73 "$repository"
install_packages joiner
check "init" machine named keelson init --mode units --extra-sans api.factory.test,192.0.2.72
machine named cat /var/lib/keelson/pki/ca.crt >"$work/named.ca"
machine named cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.72/" >"$work/named.conf"
at_named() { command kubectl --kubeconfig "$work/named.conf" "$@"; }
# by NAME: what a client that knows the API server by this name is answered.
by() { curl -sf --noproxy '*' --max-time 3 --cacert "$work/named.ca" --connect-to "$1:6443:$SUBNET.72:6443" "https://$1:6443/version" | grep gitVersion; }
check "a client knows it by the name" by api.factory.test
check "and by the address" by 192.0.2.72
check "and by no other" not by other.factory.test
check "by what every cluster's has too" by kubernetes.default.svc
check "init again keeps them" machine named keelson init --mode units --extra-sans api.factory.test,192.0.2.72
check "certificates made anew have them" machine named sh -c 'keelson certs renew >/dev/null && systemctl restart keelson-control-plane.service && openssl x509 -in /var/lib/keelson/pki/apiserver.crt -noout -ext subjectAltName | grep -q "DNS:api.factory.test.*IP Address:192.0.2.72"'
check "the client goes on" until_ok 20 by api.factory.test
machine named cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.72/" >"$work/named.conf"
role_of() { [ "$(at_named get node "$1" --no-headers | awk '{print $3}')" = "$2" ]; }
check "its role is shown" role_of named control-plane

say "joins with a file that names the cluster"
token=$(machine named keelson token create)
at_named -n kube-public get configmap cluster-info -o 'jsonpath={.data.kubeconfig}' >"$work/cluster.conf"
put_file() { cat >"$MACHINES/joiner/root/root/$1"; }
put_file cluster.conf <"$work/cluster.conf"
traces joiner >"$work/joiner.before"
check "a file that is not there" refuses "cannot be read" machine joiner keelson join --discovery-file /root/none.conf --tls-bootstrap-token "$token"
echo 'a: [' | put_file broken.conf
check "one that is none" refuses "it is no kubeconfig" machine joiner keelson join --discovery-file /root/broken.conf --tls-bootstrap-token "$token"
check "no token to ask for a certificate with" refuses "keelson token create --print-join-command" machine joiner keelson join --discovery-file /root/cluster.conf
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=somebody -keyout "$work/other.ca.key" -out "$work/other.ca" 2>/dev/null
sed "s#certificate-authority-data:.*#certificate-authority-data: $(base64 -w 0 "$work/other.ca")#" "$work/cluster.conf" | put_file other.conf
check "another cluster's authority" refuses "that /root/other.conf does not vouch for" machine joiner keelson join --discovery-file /root/other.conf --tls-bootstrap-token "$token"
sed "s#$SUBNET.72:6443#$SUBNET.72:6444#" "$work/cluster.conf" | put_file away.conf
check "nobody there" refuses "cannot be reached" machine joiner keelson join --discovery-file /root/away.conf --tls-bootstrap-token "$token"
check "an unknown token" refuses "keelson token create --print-join-command" machine joiner keelson join --discovery-file /root/cluster.conf --tls-bootstrap-token aaaaaa.0123456789abcdef
check "an effect that is none" refuses "must be NoSchedule, PreferNoSchedule or NoExecute" machine joiner keelson join --discovery-file /root/cluster.conf --tls-bootstrap-token "$token" --node-taints dedicated=edge:Never
check "a label that is none" refuses "node.labels" machine joiner keelson join --discovery-file /root/cluster.conf --tls-bootstrap-token "$token" --node-labels "a b=c"
check "a role that a machine gives itself" refuses "kubectl label node NAME node-role.kubernetes.io/edge=" machine joiner keelson join --discovery-file /root/cluster.conf --tls-bootstrap-token "$token" --node-labels node-role.kubernetes.io/edge=

say "joins by a clock that is off"
# off TIME OPTION…: the machine's clock says another time. Its programs' clock is moved, as machines here share this host's.
off() {
    local time=$1
    shift
    machine joiner env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 "FAKETIME=$time" FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DISABLE_SHM=1 "$@"
}
by_token=("$SUBNET.72:6443" --token "$token" --discovery-token-ca-cert-hash "$(machine named keelson token create --print-join-command | awk '{print $NF}')")
by_file=(--discovery-file /root/cluster.conf --tls-bootstrap-token "$token")
for time in +2y -20y +40m; do
    check "$time, by token" refuses "Set it with \`timedatectl set-time" off "$time" keelson join "${by_token[@]}"
    check "$time, by file" refuses "Set it with \`timedatectl set-time" off "$time" keelson join "${by_file[@]}"
done
check "the time it names is the right one" sh -c 'case $1 in *"$2"*) ;; *) echo "$1"; exit 1 ;; esac' - "$(off +2y keelson join "${by_token[@]}" 2>&1)" "timedatectl set-time '$(date -u +%Y-%m-%d)"
check "after all of it the machine is as it was" diff "$work/joiner.before" <(traces joiner)

say "a worker with labels, taints and a role, by a file of several clusters"
# As administrators have them: the one in use is not the first, and its authority is a file beside it.
cp "$work/named.ca" "$MACHINES/joiner/root/root/factory.crt"
put_file several.conf <<YAML
apiVersion: v1
kind: Config
current-context: factory
clusters:
- name: away
  cluster: {server: "https://192.0.2.9:6443", certificate-authority-data: $(base64 -w 0 "$work/other.ca")}
- name: factory
  cluster: {server: "https://api.factory.test:6443", certificate-authority: factory.crt}
contexts:
- {name: away, context: {cluster: away}}
- {name: factory, context: {cluster: factory}}
YAML
echo "$SUBNET.72 api.factory.test" >>"$MACHINES/joiner/root/etc/hosts"
check "join" machine joiner keelson join --discovery-file /root/several.conf --tls-bootstrap-token "$token" \
    --node-labels rank=third,topology.kubernetes.io/zone=z1 --node-taints dedicated=edge:NoSchedule,slow:PreferNoSchedule
has() { [ "$(at_named get node joiner -o "jsonpath=$1")" = "$2" ] || { at_named get node joiner -o yaml; return 1; }; }
check "its labels" has '{.metadata.labels.rank} {.metadata.labels.topology\.kubernetes\.io/zone}' "third z1"
check "its taints" has '{range .spec.taints[*]}{.key}={.value}:{.effect} {end}' "dedicated=edge:NoSchedule slow=:PreferNoSchedule "
check "a role that the administrator gives" at_named label node joiner node-role.kubernetes.io/edge=
check "is shown" role_of joiner edge
import joiner "$image"
import named "$image"
spread() { at_named get pods -l "app=$1" -o 'jsonpath={range .items[?(@.status.phase=="Running")]}{.spec.nodeName}{"\n"}{end}' | sort | uniq -c | awk '{printf "%s=%s ", $2, $1}'; }
for app in plain tolerant; do
    at_named apply -f - >/dev/null <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: {name: $app}
spec:
  replicas: 4
  selector: {matchLabels: {app: $app}}
  template:
    metadata: {labels: {app: $app}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [$([ $app = plain ] || echo '{key: dedicated, value: edge}, {key: slow, operator: Exists}')]
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: $app}}}]
      containers: [{name: c, image: test.invalid/busybox:1, imagePullPolicy: Never, command: [sleep, infinity]}]
YAML
done
spread_is() { [ "$(spread "$1")" = "$2" ] || { spread "$1"; return 1; }; }
check "pods that do not tolerate the taint run elsewhere" until_ok 40 spread_is plain "named=4 "
check "pods that do run there too" until_ok 40 spread_is tolerant "joiner=2 named=2 "
check "a restart of its kubelet" machine joiner systemctl restart keelson-kubelet.service
check "keeps what the administrator gave" role_of joiner edge
for machine in joiner named; do machine_down "$machine"; done
