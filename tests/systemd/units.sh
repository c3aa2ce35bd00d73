# What systemd does with the units when their processes hang or cannot start, and what the package brings for people: manual
# pages and completion. Sourced by run.

say "processes that hang"
machine_up hangs 86 "$repository"
install_packages hangs
check "init" machine hangs keelson init --mode units
machine hangs cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.86/" >"$work/hangs.conf"
at_hangs() { command kubectl --kubeconfig "$work/hangs.conf" --request-timeout 5s "$@"; }
import hangs "$image"
sed 's/nodeName: one/nodeName: hangs/' tests/systemd/pods.yaml | at_hangs apply -f - >/dev/null
check "pods run" at_hangs wait --for=condition=Ready pod/web pod/client-one --timeout=40s
pods_before=$(pods_of at_hangs)
property() { machine hangs systemctl show --property "$2" --value "$1"; }
for unit in control-plane kubelet proxy; do
    check "the $unit has a watchdog of a minute" test "$(property "keelson-$unit.service" WatchdogUSec)" = 1min
done
# The same, shorter.
for unit in control-plane kubelet proxy; do
    mkdir -p "$MACHINES/hangs/root/etc/systemd/system/keelson-$unit.service.d"
    printf '[Service]\nWatchdogSec=6\n' >"$MACHINES/hangs/root/etc/systemd/system/keelson-$unit.service.d/short.conf"
done
machine hangs sh -c 'systemctl daemon-reload; systemctl restart keelson-control-plane keelson-kubelet keelson-proxy'
replaced() { [ "$(property "$1" MainPID)" != "$2" ] && [ "$(property "$1" ActiveState)" = active ]; }
for unit in keelson-control-plane.service keelson-kubelet.service keelson-proxy.service; do
    pid=$(property "$unit" MainPID)
    sleep 9
    check "$unit is fed, and nobody ends it" test "$(property "$unit" MainPID)" = "$pid"
    machine hangs systemctl kill --kill-whom=main --signal=STOP "$unit"
    begun=$(moment)
    check "$unit that hangs is ended and comes back" until_ok 30 replaced "$unit" "$pid"
    figure "watchdog_${unit:8:5}_s" "$(since "$begun")" s
    check "by the watchdog" machine hangs sh -c 'journalctl -u "$1" --no-pager | grep -q "Watchdog timeout"' - "$unit"
done
check "the API serves again" until_ok 20 at_hangs get --raw /readyz
check "all is well" until_ok 30 machine hangs keelson status
check "the pods were not disturbed" test "$(pods_of at_hangs)" = "$pods_before"
check "and reach each other" until_ok 20 at_hangs exec client-one -- sh -c 'nc -w 2 web.default.svc.cluster.local 80 </dev/null | grep hello'

say "processes that cannot start"
restarts() { property "$1" NRestarts; }
for unit in keelson-control-plane.service keelson-kubelet.service keelson-proxy.service; do machine hangs systemctl reset-failed "$unit" 2>/dev/null || true; done
printf 'apiVersion: keelson/v1\nnodes: {}\n' | machine hangs sh -c 'cat >/etc/keelson/config.yaml.d/95-broken.yaml'
machine hangs systemctl restart --no-block keelson-control-plane.service keelson-kubelet.service keelson-proxy.service
sleep 40
for unit in keelson-control-plane.service keelson-kubelet.service keelson-proxy.service; do
    count=$(restarts "$unit")
    check "$unit was begun anew with pauses that grow, $count times in 40 s" test "$count" -ge 4 -a "$count" -le 8
    check "and is not given up" test "$(property "$unit" ActiveState)" != failed
    check "its journal says why, and what to do" machine hangs sh -c 'journalctl -u "$1" --no-pager -n 20 | grep -q "unknown key \"nodes\""' - "$unit"
done
check "the pods run on" sh -c 'nsenter -t "$1" -m -p -n ctr -n k8s.io tasks ls | grep -c RUNNING | grep -qx 4' - "$(cat "$MACHINES/hangs/leader.pid")"
machine hangs rm /etc/keelson/config.yaml.d/95-broken.yaml
begun=$(moment)
check "when it is mended they come by themselves" until_ok 60 machine hangs keelson status
figure comes_back_s "$(since "$begun")" s
check "with the pods" test "$(pods_of at_hangs)" = "$pods_before"
printf 'apiVersion: keelson/v1\nnodes: {}\n' | machine hangs sh -c 'cat >/etc/keelson/config.yaml.d/95-broken.yaml'
machine hangs systemctl restart --no-block keelson-control-plane.service
sleep 12
machine hangs rm /etc/keelson/config.yaml.d/95-broken.yaml
begun=$(moment)
check "who does not want to wait starts it at once" machine hangs timeout 10 systemctl restart keelson-control-plane.service
check "which takes no pause" awk "BEGIN { exit !($(since "$begun") < 5) }"
machine hangs systemctl kill --kill-whom=main --signal=KILL keelson-control-plane.service
begun=$(moment)
check "one that was well and is killed is there again" until_ok 15 at_hangs get --raw /readyz
check "after no pause of seconds" awk "BEGIN { exit !($(since "$begun") < 6) }"

say "a process that is killed again and again"
unit=keelson-proxy.service
for _ in 1 2 3; do
    pid=$(property "$unit" MainPID)
    machine hangs systemctl kill --kill-whom=main --signal=KILL "$unit"
    check "another is there" until_ok 10 replaced "$unit" "$pid"
done
machine hangs systemctl kill --kill-whom=main --signal=KILL "$unit"
waits() { property "$unit" StatusText | grep "(3 in a row)"; }
check "the next one waits before it begins, and says so" until_ok 3 waits
serves() { [ "$(property "$unit" ActiveState)" = active ]; }
check "then it is there" until_ok 15 serves
check "and is well" until_ok 20 machine hangs test ! -e /run/keelson-proxy/ended-in-a-row

say "manual pages and completion"
pages() {
    local below missing=0
    for below in $(machine hangs keelson "$@" --help | sed -n '/^Commands:/,/^$/p' | awk '/^  [a-z]/ && $1 != "help" {print $1}'); do
        echo "$below" >>"$work/commands"
        page=/usr/share/man/man8/keelson$(printf -- '-%s' "$@" "$below").8.gz
        for option in $(machine hangs keelson "$@" "$below" --help | grep -oE '^ +(-[a-z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+'); do
            machine hangs zcat "$page" | sed 's/\\-/-/g' | grep -q -- "$option" || { echo "$page says nothing of $option"; missing=1; }
        done
        pages "$@" "$below" || missing=1
    done
    return $missing
}
rm -f "$work/commands"
check "each command has its page, with each of its options" pages
check "there are many" test "$(wc -l <"$work/commands")" -ge 40
completes() {
    local said
    said=$(machine hangs bash -c 'source /usr/share/bash-completion/completions/keelson && complete -p keelson >/dev/null || exit 1
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        "$(complete -p keelson | sed -nE "s/.*-F ([^ ]+).*/\1/p")" keelson "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}"' - "${@:2}")
    [ "$said" = "$1" ] || { echo "it offered: $said"; return 1; }
}
check "keelson in<TAB>" completes init keelson in
check "keelson snapshot re<TAB>" completes restore keelson snapshot re
check "keelson init --extra<TAB>" completes --extra-sans keelson init --extra
check "keelson init --mode <TAB>" completes "all-in-one units" keelson init --mode ""
check "nothing hidden is offered" completes "" keelson doc-
machine_down hangs
