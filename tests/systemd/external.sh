# An etcd that is somebody else's, with certificates of its own authority: a cluster on it, a second control plane, its restart,
# a reset that leaves its data; and a cluster that moves from SQLite to it and back. Sourced by run.

say "an etcd on another machine"
tls="$work/etcd-tls"
mkdir -p "$tls"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=etcds -keyout "$tls/ca.key" -out "$tls/ca.crt" 2>/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=somebody -keyout "$tls/other.key" -out "$tls/other.crt" 2>/dev/null
for who in server client; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" -keyout "$tls/$who.key" -out "$tls/$who.csr" 2>/dev/null
    openssl x509 -req -in "$tls/$who.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial -days 2 \
        -extfile <(echo "subjectAltName=IP:$SUBNET.81"; echo "extendedKeyUsage=serverAuth,clientAuth") -out "$tls/$who.crt" 2>/dev/null
done
machine_up store 81
machine store sh -c 'systemctl stop etcd.service; rm -rf /var/lib/etcd/default; mkdir -p /etc/etcd-tls'
cp "$tls"/{ca.crt,server.crt,server.key,client.crt,client.key} "$MACHINES/store/root/etc/etcd-tls/"
machine store sh -c 'chown -R etcd: /etc/etcd-tls; cat >/etc/default/etcd; systemctl start etcd.service' <<ENV
ETCD_NAME=store
ETCD_DATA_DIR=/var/lib/etcd/default
ETCD_LISTEN_CLIENT_URLS=https://$SUBNET.81:2379
ETCD_ADVERTISE_CLIENT_URLS=https://$SUBNET.81:2379
ETCD_CERT_FILE=/etc/etcd-tls/server.crt
ETCD_KEY_FILE=/etc/etcd-tls/server.key
ETCD_TRUSTED_CA_FILE=/etc/etcd-tls/ca.crt
ETCD_CLIENT_CERT_AUTH=true
ENV
etcdctl() { machine store env ETCDCTL_API=3 etcdctl --endpoints "https://$SUBNET.81:2379" --cacert /etc/etcd-tls/ca.crt --cert /etc/etcd-tls/client.crt --key /etc/etcd-tls/client.key "$@"; }
keys() { etcdctl get / --prefix --keys-only | grep -c ^/ || true; }
check "it answers who has a certificate" until_ok 20 etcdctl endpoint health
etcdctl put somebodys thing >/dev/null
octet=81
for machine in e1 e2; do
    octet=$((octet + 1))
    machine_up "$machine" "$octet" "$repository"
    install_packages "$machine"
    cp "$tls"/{ca.crt,client.crt,client.key,other.crt,other.key} "$MACHINES/$machine/root/root/"
done
on_etcd=(--mode units --etcd-endpoints "https://$SUBNET.81:2379" --etcd-ca-file /root/ca.crt --etcd-cert-file /root/client.crt --etcd-key-file /root/client.key)
traces e1 >"$work/e1.before"
swapped() { local from=$1 to=$2; printf '%s\n' "${on_etcd[@]}" | sed "s#$from#$to#"; }
check "an authority that is not etcd's" refuses "no etcd member answers" machine e1 keelson init $(swapped /root/ca.crt /root/other.crt)
check "a certificate that etcd does not know" refuses "no etcd member answers" machine e1 keelson init $(swapped client other)
check "nobody there" refuses "no etcd member answers" machine e1 keelson init $(swapped :2379 :2399)
check "a file that is not there" refuses "cannot read /root/none.crt" machine e1 keelson init $(swapped client.crt none.crt)
check "a dry run says which" sh -c 'case $1 in *"$2"*) ;; *) echo "$1"; exit 1 ;; esac' - "$(machine e1 keelson init "${on_etcd[@]}" --dry-run 2>&1)" "https://$SUBNET.81:2379"
check "the machine is as it was" diff "$work/e1.before" <(traces e1)
check "init" machine e1 keelson init "${on_etcd[@]}"
check "init again changes nothing and ends well" machine e1 keelson init "${on_etcd[@]}"
check "the objects are in that etcd" test "$(keys)" -gt 50
check "no SQLite file was made, and no etcd beside it" machine e1 sh -c '! ls /var/lib/keelson/db/store.db /var/lib/keelson/etcd 2>/dev/null'
check "a second control plane joins" machine e2 $(machine e1 keelson token create --control-plane --print-join-command)
for machine in e1 e2; do machine "$machine" cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.8$([ $machine = e1 ] && echo 2 || echo 3)/" >"$work/$machine.conf"; done
at_e1() { command kubectl --kubeconfig "$work/e1.conf" --request-timeout 10s "$@"; }
at_e2() { command kubectl --kubeconfig "$work/e2.conf" --request-timeout 10s "$@"; }
check "both are Ready" at_e2 wait --for=condition=Ready node/e1 node/e2 --timeout=30s
check "what one writes" at_e1 create configmap shared --from-literal=a=b
check "the other reads" at_e2 get configmap shared
serving() { [ "$(at_e2 get endpoints kubernetes -o 'jsonpath={.subsets[0].addresses[*].ip}')" = "$1" ]; }
check "both serve" until_ok 20 serving "$SUBNET.82 $SUBNET.83"
for machine in e1 e2; do check "doctor finds nothing wrong on $machine" until_ok 20 machine "$machine" keelson doctor; done
import e2 "$image"
sed 's/nodeName: two/nodeName: e2/' tests/systemd/worker.yaml | at_e1 apply -f - >/dev/null
check "a pod runs" at_e1 wait --for=condition=Ready pod/client-two --timeout=40s
before=$(pods_of at_e1)
check "a control plane is restarted" machine e1 systemctl restart keelson-control-plane.service
check "and serves what was there" until_ok 20 at_e1 get configmap shared
machine store systemctl stop etcd.service
refuses_writes() { not at_e1 --request-timeout 3s create configmap "at-$RANDOM"; }
check "without etcd nothing is written" until_ok 20 refuses_writes
machine store systemctl start etcd.service
check "with it, it is again" until_ok 40 at_e1 create configmap again
check "at the other too" until_ok 40 at_e2 get configmap again
check "the pods are the same" test "$(pods_of at_e1)" = "$before"
check "a control plane whose data is elsewhere is reset" sh -c 'echo "$1"; case $1 in *"stays as it is"*) ;; *) exit 1 ;; esac' - "$(machine e2 keelson reset --yes --state 2>&1)"
check "the other still serves" until_ok 20 at_e1 get configmap shared
check "and alone" until_ok 30 sh -c '[ "$(kubectl --kubeconfig "$1" get endpoints kubernetes -o "jsonpath={.subsets[0].addresses[*].ip}")" = "$2" ]' - "$work/e1.conf" "$SUBNET.82"
check "what reset lists names it" sh -c 'case $1 in *"https://$2:2379"*) ;; *) echo "$1"; exit 1 ;; esac' - "$(machine e1 keelson reset --state 2>&1)" "$SUBNET.81"
check "the last one is reset" machine e1 keelson reset --yes --state
check "the data is where it was" test "$(keys)" -gt 50
check "somebody's too" sh -c '[ "$1" = thing ]' - "$(etcdctl get somebodys --print-value-only)"
check "the machine is as it was" diff "$work/e1.before" <(traces e1)
check "a new cluster does not begin on what another one left" refuses "holds a cluster's objects" machine e1 keelson init "${on_etcd[@]}"
check "and the machine is as it was" diff "$work/e1.before" <(traces e1)
machine_down e2

say "from SQLite to etcd"
etcdctl del / --prefix >/dev/null
# Its history goes further than the new cluster's, and is another's.
machine store sh -c 'for number in $(seq 300); do ETCDCTL_API=3 etcdctl --endpoints "$1" --cacert /etc/etcd-tls/ca.crt --cert /etc/etcd-tls/client.crt --key /etc/etcd-tls/client.key put "/registry/configmaps/default/many-$number" "{}" >/dev/null; done' - "https://$SUBNET.81:2379"
etcdctl del / --prefix >/dev/null
check "init" machine e1 keelson init --mode units
machine e1 cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.82/" >"$work/e1.conf"
import e1 "$image"
sed 's/nodeName: one/nodeName: e1/' tests/systemd/pods.yaml | at_e1 apply -f - >/dev/null
check "pods run" at_e1 wait --for=condition=Ready pod/web pod/client-one --timeout=40s
for number in $(seq 60); do printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: many-%s, labels: {number: "%s"}}\ndata: {a: "%s"}\n---\n' "$number" "$number" "$(head -c 300 /dev/urandom | base64 -w 0)"; done | at_e1 apply -f - >/dev/null
at_e1 create secret generic hidden --from-literal=a=b >/dev/null
# All objects but what components write on their own: leases, events, what nodes say of themselves.
objects() {
    local kinds
    kinds=$(at_e1 api-resources --verbs=list -o name | grep -vE '^(events|leases\.|nodes$|componentstatuses|endpoint|podmetrics|nodemetrics)' | sort | tr '\n' , | sed 's/,$//')
    at_e1 get "$kinds" -A -o json | python3 -c 'import json, sys
items = json.load(sys.stdin)["items"]
for one in items: del one["metadata"]["resourceVersion"]
print("\n".join(sorted(json.dumps(one, sort_keys=True) for one in items)))'
}
version() { at_e1 get --raw "/api/v1/namespaces/default/configmaps?limit=1" | sed -nE 's/.*"metadata":\{"resourceVersion":"([0-9]+)".*/\1/p; s/.*"resourceVersion":"([0-9]+)","continue".*/\1/p' | head -n 1; }
moves=(migrate-store etcd --endpoints "https://$SUBNET.81:2379" --ca-file /root/ca.crt --cert-file /root/client.crt --key-file /root/client.key)
# Where they differ, field by field.
same() {
    objects >"$work/objects.now"
    python3 - "$work/objects" "$work/objects.now" <<'PY'
import json, sys
def flat(at, value, into):
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None: into.add((at, str(value)))
    else: [flat(f"{at}.{name}", part, into) for name, part in parts]
def read(path):
    all = set()
    for one in map(json.loads, open(path)):
        meta = one["metadata"]
        flat(f'{one["kind"]} {meta.get("namespace", "")}/{meta["name"]}', one, all)
    return all
before, now = map(read, sys.argv[1:])
for sign, fields in (("-", before - now), ("+", now - before)):
    for at, value in sorted(fields)[:20]: print(sign, at, value[:100])
sys.exit(before != now)
PY
}
objects >"$work/objects"
pods_before=$(pods_of at_e1) version_before=$(version)
check "there are objects" test "$(wc -l <"$work/objects")" -gt 150
check "an etcd that does not answer changes nothing" not machine e1 keelson $(printf '%s\n' "${moves[@]}" | sed 's/:2379/:2399/')
check "and the API serves" until_ok 20 same
begun=$(moment)
check "migrate" machine e1 keelson "${moves[@]}"
figure migrate_to_etcd_s "$(since "$begun")" s
check "the objects are the same" until_ok 20 same
check "and in etcd" test "$(keys)" -gt 200
check "no resourceVersion comes again" test "$(version)" -ge "$version_before"
check "the pods were not disturbed" test "$(pods_of at_e1)" = "$pods_before"
check "and reach each other" until_ok 20 at_e1 exec client-one -- sh -c 'nc -w 2 web.default.svc.cluster.local 80 </dev/null | grep hello'
old_watch() { at_e1 get --raw "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=$version_before&timeoutSeconds=2"; }
check "a watch from before is told of nothing it knows" sh -c 'echo "$1" | cut -c 1-200; case $1 in *many-*) exit 1 ;; esac' - "$(old_watch 2>&1)"
check "migrating again is refused" refuses "in etcd already" machine e1 keelson "${moves[@]}"
check "doctor finds nothing wrong" until_ok 20 machine e1 keelson doctor
at_e1 create configmap in-etcd --from-literal=a=b >/dev/null
at_e1 delete configmap many-7 >/dev/null

say "and back, after a migration that is killed again and again"
objects >"$work/objects"
version_before=$(version)
for moment in 0.1 0.4 0.8 1.5 3; do machine e1 timeout -s KILL "$moment" keelson migrate-store sqlite >/dev/null 2>&1 || true; done
back() { machine e1 keelson migrate-store sqlite || machine e1 sh -c 'systemctl start keelson-control-plane.service; keelson migrate-store sqlite 2>&1 | grep "SQLite file already"'; }
check "migrate back" back
check "the objects are the same" until_ok 20 same
check "no resourceVersion comes again" test "$(version)" -ge "$version_before"
check "the pods were not disturbed" test "$(pods_of at_e1)" = "$pods_before"
check "the database is a file" machine e1 test -s /var/lib/keelson/db/store.db
check "the configuration names no etcd" machine e1 sh -c '! ls /etc/keelson/config.yaml.d/20-store.yaml 2>/dev/null'
# A whole copy of what there is would be taken for one that only lacks its name in the configuration.
at_e1 create configmap not-in-etcd --from-literal=a=b >/dev/null
objects >"$work/objects"
check "over what etcd still holds nobody migrates" refuses "must be empty" machine e1 keelson "${moves[@]}"
check "the API serves" until_ok 20 same
etcdctl del / --prefix >/dev/null
for moment in 0.1 0.4 0.8 1.5 3; do machine e1 timeout -s KILL "$moment" keelson "${moves[@]}" >/dev/null 2>&1 || true; done
forth() { machine e1 keelson "${moves[@]}" || machine e1 sh -c 'systemctl start keelson-control-plane.service; "$@" 2>&1 | grep "in etcd already"' - keelson "${moves[@]}"; }
check "to etcd again, killed as often" forth
check "the objects are the same" until_ok 20 same
check "the pods were not disturbed" test "$(pods_of at_e1)" = "$pods_before"
check "then a second control plane can join" machine e1 keelson token create --control-plane --print-join-command
check "reset" machine e1 keelson reset --yes --state
check "the data is where it was" test "$(keys)" -gt 200
for machine in e1 store; do machine_down "$machine"; done

say "from SQLite to an etcd of its own, which a second control plane joins, and back"
for machine in m1 m2; do
    machine_up "$machine" "$([ $machine = m1 ] && echo 84 || echo 85)" "$repository"
    install_packages "$machine"
done
check "init" machine m1 keelson init --mode units
machine m1 cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.84/" >"$work/e1.conf"
at_e1 create configmap kept --from-literal=a=b >/dev/null
objects >"$work/objects"
version_before=$(version)
check "a member's certificates are not asked for without its address" refuses "--endpoints" machine m1 keelson migrate-store etcd --ca-file /root/ca.crt
check "migrate" machine m1 keelson migrate-store etcd
check "the objects are the same" until_ok 20 same
check "no resourceVersion comes again" test "$(version)" -ge "$version_before"
check "its member runs as a unit" machine m1 systemctl is-active keelson-etcd.service
machine m1 sh -c 'cp -p /var/lib/keelson/etcd/etcd.yaml /root/ && echo "[" >>/var/lib/keelson/etcd/etcd.yaml && systemctl restart --no-block keelson-etcd.service'
sleep 20
count=$(machine m1 systemctl show --property NRestarts --value keelson-etcd.service)
check "one that cannot start is begun anew with pauses that grow, $count times in 20 s" test "$count" -ge 2 -a "$count" -le 7
check "when it is mended it starts at once" machine m1 timeout 5 sh -c 'cp -p /root/etcd.yaml /var/lib/keelson/etcd/etcd.yaml && systemctl restart keelson-etcd.service'
check "and the API serves" until_ok 30 at_e1 get configmap kept
check "doctor finds nothing wrong" until_ok 20 machine m1 keelson doctor
check "a second control plane joins" machine m2 $(machine m1 keelson token create --control-plane --print-join-command)
machine m2 cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.85/" >"$work/m2.conf"
at_m2() { command kubectl --kubeconfig "$work/m2.conf" --request-timeout 5s "$@"; }
machine m1 systemctl stop keelson-control-plane.service
leases_again() { at_m2 -n kube-node-lease delete lease m1 && until_ok 30 at_m2 -n kube-node-lease get lease m1; }
check "the first one's node speaks to the second when its own is away" leases_again
machine m1 systemctl start keelson-control-plane.service
check "back is refused while it serves" sh -c 'echo "$1"; case $1 in *"still serve; stop them first"*) ;; *) exit 1 ;; esac' - "$(machine m1 keelson migrate-store sqlite 2>&1)"
check "and the API serves" until_ok 30 at_e1 get configmap kept
check "it leaves" machine m2 keelson reset --yes --state
check "the node too" at_e1 delete node m2
objects >"$work/objects"
version_before=$(version)
check "back" machine m1 keelson migrate-store sqlite
check "the objects are the same" until_ok 20 same
check "no resourceVersion comes again" test "$(version)" -ge "$version_before"
check "nothing of the member is left in force" machine m1 sh -c '! systemctl is-enabled keelson-etcd.service && ! systemctl is-active keelson-etcd.service && ! ls /var/lib/keelson/etcd /var/lib/keelson/pki/etcd-* 2>/dev/null'
check "doctor finds nothing wrong" until_ok 20 machine m1 keelson doctor
for machine in m1 m2; do machine_down "$machine"; done
