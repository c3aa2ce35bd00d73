# Three control planes, each with a member of etcd beside it, and a worker that reaches whichever lives. Sourced by run.

say "three control planes on etcd"
octet=20
for machine in p1 p2 p3 worker; do
    octet=$((octet + 1))
    machine_up "$machine" "$octet" "$repository"
    install_packages "$machine"
done
check "init with etcd beside it" machine p1 keelson init --mode units --store etcd
check "init again changes nothing and ends well" machine p1 keelson init --mode units --store etcd
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

# A member that is gone for good, and the one that takes its place.
members() { [ "$(machine p1 sh -c 'ETCDCTL_API=3 etcdctl --cacert /var/lib/keelson/pki/etcd-ca.crt --cert /var/lib/keelson/pki/etcd-client.crt --key /var/lib/keelson/pki/etcd-client.key --endpoints https://127.0.0.1:2379 member list' | grep -c started)" = "$1" ]; }
check "three members vote" members 3
machine_down p3
check "two go on" until_ok 20 machine p2 keelson token list
second() { machine p2 keelson "$@"; }
check "the lost one is taken out" second node leave p3 --timeout 60s
check "of etcd too" members 2
machine_up p3 23 "$repository"
install_packages p3
check "another joins in its place" machine p3 $(machine p2 keelson token create --control-plane --print-join-command)
check "three members vote again" members 3
check "a control plane that is reset leaves etcd" machine p3 keelson reset --yes --state
check "and two are left" members 2
for machine in worker p3 p2 p1; do machine_down "$machine"; done
