# A worker with the sample's pods on it is reset: they move to the other machine first, and nothing is left. Sourced by run.

say "a reset that moves pods"
machine_up stays 87 "$repository"
install_packages stays
machine_up goes 88 "$repository"
traces goes >"$work/goes.before"
install_packages goes
check "init" machine stays keelson init --mode units
check "join" machine goes $(machine stays keelson token create --print-join-command)
machine stays cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.87/" >"$work/stays.conf"
at_stays() { command kubectl --kubeconfig "$work/stays.conf" "$@"; }
# All of it begins on the one that goes.
at_stays cordon stays >/dev/null
sample at_stays stays goes
at_stays uncordon stays >/dev/null
on() { at_stays -n two-tier get pods --field-selector status.phase=Running -o 'jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}' | grep -cx "$1" || true; }
check "its pods run on the machine that goes" test "$(on goes)" -ge 4
check "it answers there" until_ok 20 sample_answers at_stays "$SUBNET.88"
begun=$(moment)
check "reset" sh -c '"$@" >"$0" 2>&1' "$work/goes.reset" nsenter -t "$(cat "$MACHINES/goes/leader.pid")" -a env PATH=/usr/sbin:/usr/bin:/sbin:/bin keelson reset --yes
took=$(since "$begun")
grep " s)" "$work/goes.reset"
figure reset_draining_s "$took" s 15
check "within 15 s" awk "BEGIN { exit !($took <= 15) }"
moved() { [ "$(on goes)" = 0 ] && at_stays -n two-tier rollout status deployment/web --timeout=2s && at_stays -n two-tier rollout status deployment/redis --timeout=2s; }
check "the pods run on the other machine" until_ok 60 moved
check "it answers there" until_ok 20 sample_answers at_stays "$SUBNET.87"
# Its images are the administrator's, who put them there.
machine goes sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -qq purge --yes keelson keelson-images >/dev/null; rm -rf /var/lib/keelson'
check "nothing is left" diff "$work/goes.before" <(traces goes)
begun=$(moment)
check "reset of the one that is left, with the sample on it" sh -c '"$@" >"$0" 2>&1' "$work/stays.reset" nsenter -t "$(cat "$MACHINES/stays/leader.pid")" -a env PATH=/usr/sbin:/usr/bin:/sbin:/bin keelson reset --yes --state
grep " s)" "$work/stays.reset"
took=$(since "$begun")
figure reset_sample_s "$took" s 15
check "within 15 s" awk "BEGIN { exit !($took <= 15) }"
for machine in stays goes; do machine_down "$machine"; done
