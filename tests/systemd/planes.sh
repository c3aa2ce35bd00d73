# Three control planes on an etcd cluster that the administrator runs, and a worker that reaches whichever lives. Sourced
# by run.

say "three control planes on etcd"
etcd="$work/etcd"
mkdir -p "$etcd"
key() { openssl ecparam -genkey -name prime256v1 -noout -out "$etcd/$1.key"; }
# certificate NAME SUBJECT EXTENSIONS
certificate() {
    key "$1"
    openssl req -new -key "$etcd/$1.key" -subj "/CN=$2" -out "$etcd/$1.csr"
    openssl x509 -req -in "$etcd/$1.csr" -CA "$etcd/ca.crt" -CAkey "$etcd/ca.key" -CAcreateserial -days 2 -extfile <(echo "$3") \
        -out "$etcd/$1.crt" 2>/dev/null
}
key ca
openssl req -x509 -new -key "$etcd/ca.key" -days 2 -subj /CN=etcd -out "$etcd/ca.crt"
certificate server etcd "subjectAltName=IP:$SUBNET.1
extendedKeyUsage=serverAuth,clientAuth"
certificate client keelson extendedKeyUsage=clientAuth
program=target/packages/etcd-server/usr/bin/etcd
[ -x "$program" ] || program=$(command -v etcd)
machines_bridge
"$program" --name one --data-dir "$etcd/data" --listen-client-urls "https://$SUBNET.1:2379" \
    --advertise-client-urls "https://$SUBNET.1:2379" --listen-peer-urls http://127.0.0.1:12380 \
    --initial-advertise-peer-urls http://127.0.0.1:12380 --initial-cluster one=http://127.0.0.1:12380 \
    --cert-file "$etcd/server.crt" --key-file "$etcd/server.key" --trusted-ca-file "$etcd/ca.crt" --client-cert-auth \
    >"$etcd/log" 2>&1 &
etcd_pid=$!
octet=20
for machine in p1 p2 p3 worker; do
    octet=$((octet + 1))
    machine_up "$machine" "$octet" "$repository"
    install_packages "$machine"
done
for file in ca.crt client.crt client.key; do
    machine p1 sh -c "umask 077; cat >/root/$file" <"$etcd/$file"
done
check "init on etcd" machine p1 keelson init --mode units --etcd-endpoints "https://$SUBNET.1:2379" \
    --etcd-ca-file /root/ca.crt --etcd-cert-file /root/client.crt --etcd-key-file /root/client.key
machine p1 sh -c 'rm /root/*.crt /root/*.key'
check "a control plane cannot join with a key that is not the one" refuses "does not open it" machine p2 \
    $(machine p1 keelson token create --control-plane --print-join-command | sed -E 's/[0-9a-f]{64}$/'"$(printf '0%.0s' $(seq 64))"'/')
check "nothing of it stays" machine p2 sh -c '! ls /var/lib/keelson/pki /etc/keelson/config.yaml.d/05-cluster.yaml 2>/dev/null'
join=$(machine p1 keelson token create --control-plane --print-join-command)
check "the second control plane joins" machine p2 $join
check "the third, with the same command" machine p3 $join
check "a worker joins" machine worker $(machine p2 keelson token create --print-join-command)
machine p3 cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.23/" >"$work/p3.conf"
third() { command kubectl --kubeconfig "$work/p3.conf" "$@"; }
check "all are Ready" third wait --for=condition=Ready node --all --timeout=30s
serving() { [ "$(third get endpoints kubernetes -o 'jsonpath={.subsets[0].addresses[*].ip}')" = "$1" ]; }
check "all three serve" until_ok 20 serving "$SUBNET.21 $SUBNET.22 $SUBNET.23"
known() { [ "$(machine worker cat /var/lib/keelson/cni/api-servers | tr '\n' ' ')" = "$1" ]; }
check "the worker knows them" until_ok 20 known "$SUBNET.21:6443 $SUBNET.22:6443 $SUBNET.23:6443 "
check "its kubelet goes through the balancer" machine worker grep -q https://127.0.0.1:6444 /var/lib/keelson/kubelet.conf

# The one that the worker uses stops answering without letting go of its connections.
used() { nsenter -t "$(cat "$MACHINES/worker/leader.pid")" -n ss -Htn state established dport = :6443 | awk '{print $4}' | grep -o '\.2[123]:' | tr -d .: | sort | uniq -c | sort -rn | awk 'NR == 1 {print "p" $2 - 20}'; }
first=$(used)
machine "$first" systemctl kill --signal=STOP keelson-control-plane.service
begun=$SECONDS
check "the worker reaches another when its server hangs" until_ok 15 machine worker keelson status
figure balancer_gap_s "$((SECONDS - begun))" s "bound 10"
other=$([ "$first" = p3 ] && echo 22 || echo 23)
machine "p$((other - 20))" cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.$other/" >"$work/other.conf"
living() { command kubectl --kubeconfig "$work/other.conf" "$@"; }
import worker "$image"
sed 's/: two/: worker/' tests/systemd/worker.yaml | living apply -f - >/dev/null
check "a pod still starts there" living wait --for=condition=Ready pod/client-two --timeout=60s
machine "$first" systemctl kill --signal=CONT keelson-control-plane.service
check "it comes back" until_ok 30 machine "$first" keelson status

check "a control plane leaves" machine p3 sh -c 'keelson reset --yes --state'
second() { machine p2 keelson "$@"; }
check "its node is removed" second node leave p3 --timeout 30s
for machine in worker p3 p2 p1; do machine_down "$machine"; done
kill "$etcd_pid"
wait "$etcd_pid" 2>/dev/null || true
