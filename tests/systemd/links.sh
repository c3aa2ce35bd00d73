# Two nodes that share no link: this host routes between their networks. Sourced by run.

say "nodes on two links"
other_net="${SUBNET%.*}.$((${SUBNET##*.} + 40))"
machine_up here 17 "$repository"
SUBNET=$other_net machine_up there 18 "$repository"
ip address replace "$other_net.1/24" dev "$BRIDGE"
# Of this bridge alone, and gone with it.
sysctl -q "net.ipv4.conf.$BRIDGE.forwarding=1" "net.ipv4.conf.$BRIDGE.send_redirects=0"
check "they share no link" machine there sh -c "ip route get $SUBNET.17 | grep -q via"
for machine in here there; do install_packages "$machine"; done
check "init" machine here keelson init --mode units
check "join" machine there $(machine here keelson token create --print-join-command)
machine here cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.17/" >"$work/here.conf"
at_here() { command kubectl --kubeconfig "$work/here.conf" "$@"; }
for machine in here there; do import "$machine" "$image"; done
sed 's/nodeName: one/nodeName: here/' tests/systemd/pods.yaml | at_here apply -f - >/dev/null
sed 's/nodeName: two/nodeName: there/' tests/systemd/worker.yaml | at_here apply -f - >/dev/null
check "pods run on both" at_here wait --for=condition=Ready pod/web pod/client-one pod/client-two --timeout=40s
pod_ip() { at_here get pod "$1" -o 'jsonpath={.status.podIP}'; }
check "a pod reaches one behind the other link" until_ok 20 at_here exec client-two -- sh -c "nc -w 2 $(pod_ip web) 8080 </dev/null | grep hello"
check "the other way round" until_ok 20 at_here exec client-one -- sh -c "nc -w 2 $(pod_ip client-two) 80 </dev/null | grep second"
check "names and Services too" until_ok 20 at_here exec client-two -- sh -c 'nslookup web.default.svc.cluster.local && nc -w 2 web.default.svc.cluster.local 80 </dev/null | grep hello'
check "and the node itself" until_ok 20 machine there bash -c "exec 3<>/dev/tcp/$(pod_ip web)/8080 && head -c 5 <&3 | grep -q hello"
at_here cordon here >/dev/null
at_here apply -f - >/dev/null <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: moves}
spec:
  selector: {matchLabels: {app: moves}}
  template:
    metadata: {labels: {app: moves}}
    spec:
      volumes: [{name: kept, hostPath: {path: /root/kept, type: DirectoryOrCreate}}]
      containers:
        - name: c
          image: test.invalid/busybox:1
          imagePullPolicy: Never
          command: [sh, -c, 'trap "sleep 1; echo ended >>/kept/words; exit 0" TERM; while :; do sleep 0.2; done']
          volumeMounts: [{name: kept, mountPath: /kept}]
YAML
check "a Deployment's pod runs there" at_here wait --for=condition=Available deployment/moves --timeout=30s
at_here uncordon here >/dev/null
check "reset" machine there keelson reset --yes
check "its pods had their grace" grep -qx ended "$MACHINES/there/root/root/kept/words"
moved() { at_here get pods -l app=moves -o 'jsonpath={range .items[?(@.status.phase=="Running")]}{.spec.nodeName}{"\n"}{end}' | grep -x here; }
check "and moved to the other node" until_ok 15 moved
check "the tunnel is gone" machine there sh -c '! ip -o link show type vxlan | grep .'
for machine in there here; do machine_down "$machine"; done
