# A machine that is powered off: its containers get their signal and their grace before the runtime stops. Sourced by run.

say "a machine that goes down"
machine_up down 63 "$repository"
install_packages down
check "init" machine down keelson init --mode units
machine down cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.63/" >"$work/off.conf"
at_off() { command kubectl --kubeconfig "$work/off.conf" "$@"; }
import down "$image"
at_off apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: last-words}
spec:
  nodeName: down
  terminationGracePeriodSeconds: 10
  initContainers:
    # A sidecar: it hears of the end when the others are gone.
    - name: sidecar
      restartPolicy: Always
      image: test.invalid/busybox:1
      imagePullPolicy: Never
      command: [sh, -c, 'trap "echo sidecar >>/kept/words; exit 0" TERM; while :; do sleep 0.2; done']
      volumeMounts: [{name: kept, mountPath: /kept}]
  volumes: [{name: kept, hostPath: {path: /root/kept, type: DirectoryOrCreate}}]
  containers:
    - name: c
      image: test.invalid/busybox:1
      imagePullPolicy: Never
      command: [sh, -c, 'trap "sleep 2; echo ended >>/kept/words; exit 0" TERM; while :; do sleep 1; done']
      lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook >>/kept/words; sleep 1']}}}
      volumeMounts: [{name: kept, mountPath: /kept}]
    # Its hook asks the pod itself, by the name of a port.
    - name: asked
      image: test.invalid/busybox:1
      imagePullPolicy: Never
      command: [sh, -c, 'sleep 1000 | nc -l -p 8081 >/kept/request']
      ports: [{name: bye, containerPort: 8081}]
      lifecycle: {preStop: {httpGet: {path: /last, port: bye}}}
      volumeMounts: [{name: kept, mountPath: /kept}]
    # One that does not listen is killed after its grace, and holds nobody up for longer.
    - {name: deaf, image: test.invalid/busybox:1, imagePullPolicy: Never, command: [sh, -c, 'trap "" TERM; while :; do sleep 1; done']}
YAML
check "a pod runs" at_off wait --for=condition=Ready pod/last-words --timeout=30s
check "a restart of the kubelet" machine down systemctl restart keelson-kubelet.service
check "ends no container" not test -e "$MACHINES/down/root/root/kept/words"
begun=$(moment)
machine_off down
figure poweroff_s "$(since "$begun")" s
words() { [ "$(tr '\n' ' ' <"$MACHINES/down/root/root/kept/words")" = "$1" ] || { cat "$MACHINES/down/root/root/kept/words"; return 1; }; }
check "the container had its hook and its grace, and its sidecar came after it" words "hook ended sidecar "
check "the other's hook asked the pod" grep -q "GET /last" "$MACHINES/down/root/root/kept/request"
check "nobody had to pull the plug" awk "BEGIN { exit !($(since "$begun") < 29) }"
machine_up down 63 "$repository"
check "the pod runs again after the next boot" until_ok 40 at_off wait --for=condition=Ready pod/last-words --timeout=2s
machine_down down

say "the last control plane, whose etcd has nobody to agree with"
for machine in last gone; do
    machine_up "$machine" "$([ $machine = last ] && echo 58 || echo 59)" "$repository"
    install_packages "$machine"
done
check "init with etcd beside it" machine last keelson init --mode units --store etcd
check "a second control plane joins" machine gone $(machine last keelson token create --control-plane --print-join-command)
machine last cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.58/" >"$work/last.conf"
machine_cut gone
stands_still() { ! command kubectl --kubeconfig "$work/last.conf" --request-timeout 3s create configmap "at-$RANDOM"; }
check "without the other nothing is written" until_ok 20 stands_still
begun=$(moment)
machine_off last
figure poweroff_without_quorum_s "$(since "$begun")" s
check "it goes down by itself, and soon" awk "BEGIN { exit !($(since "$begun") < 15) }"
for machine in last gone; do machine_down "$machine"; done
