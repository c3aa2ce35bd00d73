# Machines whose firewall is left on, as Debian has it: firewalld with its public zone, ufw with what comes in and what goes
# through denied. Sourced by run.

machines_base firewalls firewalld,ufw
# wall KIND MACHINE on|reload|said: what an administrator does with it, and all that it was told.
wall() {
    case "$1 $3" in
    "firewalld on") machine "$2" systemctl enable --quiet --now firewalld.service ;;
    "firewalld reload") machine "$2" systemctl restart firewalld.service ;;
    "firewalld said") machine "$2" sh -c 'firewall-cmd --get-zones; firewall-cmd --get-policies; firewall-cmd --get-services
        firewall-cmd --list-all-zones; find /etc/firewalld -type f | sort | xargs -r sha256sum' ;;
    "ufw on") machine "$2" sh -c 'ufw allow 10250/tcp >/dev/null && ufw --force enable >/dev/null' ;;
    "ufw reload") machine "$2" ufw reload ;;
    "ufw said") machine "$2" ufw show added ;;
    esac
}
# Somebody takes out one thing that the cluster needs.
breaks() {
    case $1 in
    firewalld) machine "$2" sh -c 'rm /etc/firewalld/policies/keelson-pods.xml && firewall-cmd --quiet --reload' ;;
    ufw) machine "$2" ufw delete allow 8472/udp ;;
    esac
}
reaches() { machine "$1" timeout 3 bash -c "exec 3<>/dev/tcp/$2/$3"; }

octet=65
for kind in firewalld ufw; do
    say "two machines with $kind left on"
    a=$kind-a b=$kind-b
    at_a=$SUBNET.$((octet += 1)) at_b=$SUBNET.$((octet += 1))
    for machine in "$a" "$b"; do
        TREE=firewalls machine_up "$machine" "$((octet - $([ "$machine" = "$a" ] && echo 1 || echo 0)))" "$repository"
        install_packages "$machine"
        check "$kind is on" wall "$kind" "$machine" on
        wall "$kind" "$machine" said >"$work/$machine.before"
    done
    check "init can leave it as it is, and says what it must let through" machine "$a" sh -c 'keelson init --mode units --leave-firewall >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }
        grep -q "firewall: .* is left as it is (node.firewall); it must let through 6443/tcp" /tmp/said'
    check "nothing was added to it" diff "$work/$a.before" <(wall "$kind" "$a" said)
    check "then another machine does not reach the API server" not reaches "$b" "$at_a" 6443
    check "doctor says which commands do it" sh -c 'case $1 in *6443/tcp*) ;; *) echo "$1"; exit 1 ;; esac' - "$(machine "$a" keelson doctor | grep -A 1 '^! firewall:' | tail -n 1)"
    check "init tells it" machine "$a" keelson init --mode units
    check "and then it does" reaches "$b" "$at_a" 6443
    check "join" machine "$b" $(machine "$a" keelson token create --print-join-command)
    machine "$a" cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$at_a/" >"$work/$kind.conf"
    walled() { command kubectl --kubeconfig "$work/$kind.conf" "$@"; }
    for machine in "$a" "$b"; do import "$machine" "$image"; done
    sed "s/nodeName: one/nodeName: $a/; s/  ports: \[{port: 80,/  type: NodePort\n  ports: [{nodePort: 30080, port: 80,/" tests/systemd/pods.yaml | walled apply -f - >/dev/null
    sed "s/nodeName: two/nodeName: $b/" tests/systemd/worker.yaml | walled apply -f - >/dev/null
    check "pods run on both" walled wait --for=condition=Ready pod/web pod/client-one pod/client-two --timeout=40s
    pod_ip() { walled get pod "$1" -o 'jsonpath={.status.podIP}'; }
    hello() { walled exec "$1" -- sh -c "nc -w 2 $2 $3 </dev/null | grep hello"; }
    passes() {
        check "$1: from the other machine's pod to a pod" until_ok 20 hello client-two "$(pod_ip web)" 8080
        check "$1: the other way round" until_ok 20 walled exec client-one -- sh -c "nc -w 2 $(pod_ip client-two) 80 </dev/null | grep second"
        check "$1: by a Service's name" until_ok 20 hello client-two web.default.svc.cluster.local 80
        check "$1: from the other machine to a pod" until_ok 20 machine "$b" bash -c "exec 3<>/dev/tcp/$(pod_ip web)/8080 && head -c 5 <&3 | grep -q hello"
    }
    passes routes
    for address in "$at_a" "$at_b"; do
        check "a node port of $address from outside" until_ok 20 timeout 3 bash -c "exec 3<>/dev/tcp/$address/30080 && head -c 5 <&3 | grep -q hello"
    done
    for client in client-one client-two; do
        check "$client reaches the API server's Service" until_ok 20 walled exec "$client" -- sh -c 'nc -w 2 kubernetes.default.svc.cluster.local 443 </dev/null'
        check "and its logs are read" walled logs "$client"
    done
    for machine in "$a" "$b"; do
        check "doctor is content on $machine" until_ok 20 machine "$machine" sh -c 'keelson doctor | grep "^✓ firewall: "'
        check "a reload" wall "$kind" "$machine" reload
    done
    passes "after a reload"
    for machine in "$a" "$b"; do
        printf 'apiVersion: keelson/v1\nnetwork: {tunnel: always}\n' | machine "$machine" sh -c 'cat >/etc/keelson/config.yaml.d/60-tunnel.yaml; systemctl restart keelson-proxy.service'
    done
    passes tunnels
    check "somebody takes a rule away" breaks "$kind" "$b"
    check "doctor names it" machine "$b" sh -c '! keelson doctor >/tmp/said 2>&1; cat /tmp/said; grep -A 1 "^✗ firewall: " /tmp/said | grep -q "\`keelson firewall\`"'
    check "its command mends it" machine "$b" sh -c 'keelson firewall && keelson doctor | grep "^✓ firewall: "'
    check "reset of the worker" machine "$b" keelson reset --yes
    check "reset of the control plane" machine "$a" keelson reset --yes --state
    for machine in "$a" "$b"; do
        check "$kind is as it was on $machine" diff "$work/$machine.before" <(wall "$kind" "$machine" said)
        machine_down "$machine"
    done
done
