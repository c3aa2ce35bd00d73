# Three control planes, each with a member of etcd beside it, and a worker that reaches whichever lives: what joins, fails,
# leaves and is replaced. Sourced by run.

say "three control planes on etcd"
octet=20
for machine in p1 p2 p3 worker; do
    octet=$((octet + 1))
    machine_up "$machine" "$octet" "$repository"
    install_packages "$machine"
done
# joins MACHINE OPTION…: with the command that another control plane prints.
joins() {
    local machine=$1 from=$2 join
    shift 2
    join=$(machine "$from" keelson token create --print-join-command "$@") || { echo "no command: $join"; return 1; }
    machine "$machine" $join
}
as() { machine "$1" cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.$2/" >"$work/$1.conf"; }
kubectl_at() { local at=$1; shift; command kubectl --kubeconfig "$work/$at.conf" "$@"; }

check "an etcd with somebody's data stays as it is" machine p1 sh -c 'systemctl start etcd && ETCDCTL_API=3 etcdctl put a b &&
    ! keelson init --mode units --store etcd 2>/tmp/said && grep -q "holds data" /tmp/said && [ "$(ETCDCTL_API=3 etcdctl get a --print-value-only)" = b ] && ! ls /var/lib/keelson/etcd 2>/dev/null
    code=$?; systemctl stop etcd; rm -rf /var/lib/etcd/default; systemctl start etcd; exit $code'
begun=$(moment)
check "init with etcd beside it" machine p1 keelson init --mode units --store etcd
figure etcd_init_s "$(since "$begun")" s
check "init again changes nothing and ends well" machine p1 keelson init --mode units --store etcd
check "a control plane cannot join with a key that is not the one" refuses "does not open it" machine p2 \
    $(machine p1 keelson token create --control-plane --print-join-command | sed -E 's/[0-9a-f]{64}$/'"$(printf '0%.0s' $(seq 64))"'/')
check "nothing of it stays" machine p2 sh -c '! ls /var/lib/keelson/pki /etc/keelson/config.yaml.d/05-cluster.yaml 2>/dev/null'
join=$(machine p1 keelson token create --control-plane --print-join-command)
begun=$(moment)
check "the second control plane joins" machine p2 ${join:?}
figure control_plane_join_s "$(since "$begun")" s
check "the third, with the same command" machine p3 ${join:?}
check "a worker joins" joins worker p2
for octet in 1 2 3; do as "p$octet" "2$octet"; done
check "all are Ready" kubectl_at p3 wait --for=condition=Ready node --all --timeout=30s
serving() { [ "$(kubectl_at p3 get endpoints kubernetes -o 'jsonpath={.subsets[0].addresses[*].ip}')" = "$1" ]; }
check "all three serve" until_ok 20 serving "$SUBNET.21 $SUBNET.22 $SUBNET.23"
known() { [ "$(machine "$1" cat /var/lib/keelson/cni/api-servers | tr '\n' ' ')" = "$2" ]; }
for machine in worker p1 p3; do
    check "$machine knows them" until_ok 20 known "$machine" "$SUBNET.21:6443 $SUBNET.22:6443 $SUBNET.23:6443 "
    check "its kubelet goes through the balancer" machine "$machine" grep -q https://127.0.0.1:6444 /var/lib/keelson/kubelet.conf
done
for machine in p1 p2 p3 worker; do check "status on $machine" until_ok 20 machine "$machine" keelson status; done
check "doctor finds nothing wrong" machine p3 keelson doctor

say "a control plane that hangs, and one that is off"
import worker "$image"
# The one that the worker uses stops answering without letting go of its connections.
used() { nsenter -t "$(cat "$MACHINES/worker/leader.pid")" -n ss -Htn state established dport = :6443 | awk '{print $4}' | grep -o '\.2[123]:' | tr -d .: | sort | uniq -c | sort -rn | awk 'NR == 1 {print "p" $2 - 20}'; }
first=$(used)
other=$([ "$first" = p3 ] && echo p2 || echo p3)
echo "the worker uses $first"
machine "$first" systemctl kill --kill-whom=main --signal=STOP keelson-control-plane.service
begun=$(moment)
check "the worker reaches another when its server hangs" until_ok 15 machine worker keelson status
figure balancer_gap_s "$(since "$begun")" s 10
sed 's/: two/: worker/' tests/systemd/worker.yaml | kubectl_at "$other" apply -f - >/dev/null
check "a pod still starts there" kubectl_at "$other" wait --for=condition=Ready pod/client-two --timeout=60s
ready() { kubectl_at "$other" wait --for=condition=Ready "node/$1" --timeout=1s; }
sleep 45
check "the hanging one's own node is still heard of, through another" ready "$first"
machine "$first" systemctl kill --kill-whom=main --signal=CONT keelson-control-plane.service || true
check "it comes back" until_ok 30 machine "$first" keelson status
doctor_at() { { machine "$1" keelson doctor 2>/dev/null || true; } | grep -A 1 "✗ etcd: "; }
names_member() { doctor_at "$first" | grep -q "member $other does not answer"; }
names_own() { doctor_at "$other" | grep -q 'systemctl restart keelson-etcd.service'; }
names_none() { ! doctor_at "$first" && ! doctor_at "$other"; }
machine "$other" systemctl stop keelson-etcd.service
check "doctor: etcd: a member does not answer" until_ok 20 names_member
check "on its own machine too, with the command" until_ok 20 names_own
machine "$other" systemctl restart keelson-etcd.service
check "that mends it" until_ok 20 names_none

source tests/systemd/rounds.sh

say "a member that is gone for good, and the one that takes its place"
members() { [ "$(machine p1 sh -c 'ETCDCTL_API=3 etcdctl --cacert /var/lib/keelson/pki/etcd-ca.crt --cert /var/lib/keelson/pki/etcd-client.crt --key /var/lib/keelson/pki/etcd-client.key --endpoints https://127.0.0.1:2379 member list' | grep -c started)" = "$1" ]; }
check "three members vote" members 3
machine_down p3
check "two go on" until_ok 20 machine p2 keelson token list
check "the lost one is taken out" machine p2 keelson node leave p3 --timeout 60s
check "of etcd too" members 2
machine_up p3 23 "$repository"
install_packages p3
check "another joins in its place" joins p3 p2 --control-plane
check "three members vote again" members 3
check "a control plane that is reset leaves etcd" machine p3 keelson reset --yes --state
check "and two are left" members 2
for machine in worker p3 p2 p1; do machine_down "$machine"; done
