# Another version on a running machine: forward, back, and interrupted. The other version is a build whose database has one
# more table. Sourced by run; needs machine `one` as cluster.sh left it, or makes one of its own.

say "an upgrade, and the way back"
machine_up next 15 "$repository" --bind-ro="$(realpath "$dist_folder-next"):/srv/next"
install_packages next
check "init" machine next keelson init --mode units
machine next cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.15/" >"$work/next.conf"
at_next() { command kubectl --kubeconfig "$work/next.conf" "$@"; }
import next "$image"
sed "s/nodeName: one/nodeName: next/" tests/systemd/pods.yaml | at_next apply -f - >/dev/null
check "pods run" at_next wait --for=condition=Ready pod/web pod/client-one --timeout=30s
at_next create configmap before --from-literal=a=b >/dev/null
running_next() { at_next get pods -o 'jsonpath={range .items[*]}{.metadata.name}{.status.containerStatuses[0].containerID}{.status.containerStatuses[0].restartCount}{"\n"}{end}'; }
pods_before=$(running_next)
same_pods() { [ "$(running_next)" = "$pods_before" ]; }
format() { machine next keelson upgrade plan | sed -n 's/^database: *format //p'; }
newer=$(machine next sh -c 'ls /srv/next/keelson_*.deb') older=$(machine next sh -c 'ls /srv/apt/pool/main/keelson_*.deb')
version() { machine next dpkg-query --show --showformat '${Version}' keelson; }
first=$(version)
# The longest time without an answer of the API server, seen from outside, in milliseconds.
watch_gap() {
    local last now longest=0
    last=${EPOCHREALTIME/./}
    until [ -e "$work/gap.stop" ]; do
        if curl -skf --max-time 1 "https://$SUBNET.15:6443/readyz" >/dev/null 2>&1; then
            now=${EPOCHREALTIME/./}
            [ $((now - last)) -le $longest ] || longest=$((now - last))
            last=$now
            echo "$longest" >"$work/gap"
        fi
        sleep 0.05
    done
}
gap_begin() { rm -f "$work/gap" "$work/gap.stop"; watch_gap & gap_pid=$!; }
gap_end() { touch "$work/gap.stop"; wait "$gap_pid"; awk '{printf "%.1f", $1 / 1e6}' "$work/gap"; }

check "plan says which format the database goes to" machine next sh -c "keelson upgrade plan $newer | grep -q 'from format 2 to 3'"
check "and changes nothing" test "$(version) $(format)" = "$first 2"
check "what is older is refused" refuses "keelson upgrade apply FILE" machine next keelson upgrade back "$newer"
check "what is no package too" refuses "is no .deb" machine next keelson upgrade apply /etc/hostname
gap_begin
check "apply" machine next keelson upgrade apply "$newer"
figure upgrade_api_gap_s "$(gap_end)" s 3
check "the newer one is installed" test "$(version)" != "$first"
check "its database has the newer format" test "$(format)" = 3
check "a snapshot was taken before" machine next sh -c 'ls /var/lib/keelson/snapshots/*-before-*.snapshot'
check "no pod was restarted" same_pods
check "what was written before is there" at_next get configmap before
check "nothing is left to do" machine next sh -c 'keelson upgrade plan | grep -q "nothing to do"'
at_next create configmap between --from-literal=a=b >/dev/null
check "apply with the older one is refused" refuses "keelson upgrade back FILE" machine next keelson upgrade apply "$older"
gap_begin
check "back" machine next keelson upgrade back "$older"
figure downgrade_api_gap_s "$(gap_end)" s 3
check "the older one is installed" test "$(version)" = "$first"
check "its database has the older format" test "$(format)" = 2
check "no pod was restarted" same_pods
check "what was written in between is there" at_next get configmap between
check "nothing is kept" machine next sh -c '! ls -d /var/lib/keelson/upgrade /run/keelson-upgrade 2>/dev/null'

say "upgrades that are killed in the middle"
# dpkg's own database heals by `dpkg --configure -a`, as its words say.
killed() {
    local verb=$1 package=$2 moment
    shift 2
    for moment in "$@"; do
        machine next timeout -s KILL "$moment" keelson upgrade "$verb" "$package" >/dev/null 2>&1 || true
        machine next sh -c 'dpkg --configure -a >/dev/null 2>&1; rm -f /run/keelson-upgrade'
    done
    machine next keelson upgrade "$verb" "$package"
}
check "forward" killed apply "$newer" 0.3 0.8 1.5 2.5 4
check "the newer format" test "$(format)" = 3
check "no pod was restarted" same_pods
check "back" killed back "$older" 0.3 0.8 1.5 2.5 4
check "the older format" test "$(format)" = 2
check "no pod was restarted" same_pods
check "all is there" at_next get configmap before between
# A machine that stops after the older package was put in place, before the database went back.
machine next keelson upgrade apply "$newer" >/dev/null
half_back() {
    machine next sh -c "mkdir -p /var/lib/keelson/upgrade && ln -f /usr/bin/keelson /var/lib/keelson/upgrade/keelson && printf 2 >/var/lib/keelson/upgrade/format &&
        dpkg --force-confold --install $older"
}
check "an older program that starts on the way back" half_back
check "asks the newer one, and serves" until_ok 30 machine next keelson status
check "in the older format" test "$(format)" = 2
check "back is done when it is run again" machine next keelson upgrade back "$older"
check "and nothing is kept" machine next sh -c '! ls -d /var/lib/keelson/upgrade 2>/dev/null'
check "all is there" at_next get configmap before between
# A newer database without a way back begun.
machine next keelson upgrade apply "$newer" >/dev/null
check "packages are installed whatever then runs" machine next dpkg --force-confold --install "$older"
says_what() { machine next journalctl -u keelson-control-plane.service -n 50 --no-pager | grep -q "has format 3, this version of keelson knows format 2"; }
check "an older program on a newer database says what to do" until_ok 20 says_what
machine next sh -c "dpkg --force-confold --install $newer >/dev/null 2>&1"
check "and the newer one serves it again" until_ok 30 machine next keelson status
machine_down next
