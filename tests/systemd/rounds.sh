# Writers, a watcher and compare-and-swap clients on the worker while each control plane is killed, stopped and cut off in
# turn. Sourced by planes.sh, or by run after it has left p1, p2, p3 and worker up. KEELSON_ROUNDS: how many rounds of all nine (the issue's ten
# take 40 minutes).

kubectl_at() { local at=$1; shift; command kubectl --kubeconfig "$work/$at.conf" "$@"; }
rounds=${KEELSON_ROUNDS:-1}
say "each control plane killed, stopped and cut off, $rounds rounds"
strip -o "$MACHINES/worker/root/usr/local/bin/keelson-rounds" target/debug/keelson-rounds
machine p1 cat /var/lib/keelson/admin.conf | sed 's/127.0.0.1:6443/127.0.0.1:6444/' |
    machine worker sh -c 'umask 077; cat >/root/rounds.conf; rm -f /root/rounds.stop'
machine worker keelson-rounds --kubeconfig /root/rounds.conf --stop /root/rounds.stop >"$work/rounds.log" 2>&1 &
rounds_pid=$!
check "it runs" until_ok 20 grep -q running "$work/rounds.log"
running() { kill -0 "$rounds_pid"; }
serves() { machine "$1" sh -c 'curl -sf --max-time 3 --cacert /var/lib/keelson/pki/ca.crt https://127.0.0.1:6443/readyz' && kubectl_at "$1" get --raw /readyz; }
# Both processes of a control plane, as they would be on a machine that crashes or hangs.
signal() { machine "$1" systemctl kill --kill-whom=main --signal="$2" keelson-etcd.service keelson-control-plane.service; }
cut_off() { nsenter -t "$(cat "$MACHINES/$1/leader.pid")" -n ip link set host0 "$2"; }
for round in $(seq "$rounds"); do
    echo "round $round begins at $(date -u +%T), load $(cut -d ' ' -f 1 /proc/loadavg)"
    for one in p1 p2 p3; do
        signal "$one" KILL
        check "round $round: $one was killed and serves again" until_ok 60 serves "$one"
        signal "$one" STOP
        sleep 12
        signal "$one" CONT
        check "round $round: $one was stopped and serves again" until_ok 60 serves "$one"
        cut_off "$one" down
        sleep 12
        cut_off "$one" up
        # Its network's manager gives it its address back in a moment.
        until_ok 20 machine "$one" ip route replace default via "$SUBNET.1" || true
        check "round $round: $one was cut off and serves again" until_ok 60 serves "$one"
        check "round $round: the writers, the watcher and the swappers go on" running
    done
done
machine worker touch /root/rounds.stop
wait "$rounds_pid" && ended=0 || ended=$?
rounds_pid=
cat "$work/rounds.log"
check "no acknowledged write was lost, no event missed, every history is linearizable" test "$ended" = 0
gap=$(awk '$1 == "longest_write_gap_s" {print $2}' "$work/rounds.log")
figure longest_write_gap_s "${gap:-none}" s 10
check "the longest gap between two writes is at most 10 s" awk "BEGIN { exit !(${gap:-99} <= 10) }"
