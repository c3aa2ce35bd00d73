# Checks and what they share. Sourced by the tests here, after machines.sh; $work is a folder of the run.

passed=0 failed=0
say() { printf '\n== %s\n' "$*"; }
# check WHAT COMMAND…: passes when the command does.
check() {
    local what=$1 log
    shift
    if log=$("$@" 2>&1); then
        passed=$((passed + 1)); printf '✓ %s\n' "$what"
    else
        failed=$((failed + 1)); printf '✗ %s\n%s\n' "$what" "$log" | sed '2,$s/^/    /'
    fi
}
not() { ! "$@"; }
# until_ok SECONDS COMMAND…: a bounded wait.
until_ok() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || { "$@"; return 1; }; sleep 0.3; done
}
# refuses WORDS COMMAND…: the command fails, within five seconds, and says so.
refuses() {
    local words=$1 begun=${EPOCHREALTIME/./} text
    shift
    if text=$("$@" 2>&1); then echo "it was accepted: $text"; return 1; fi
    [ $((${EPOCHREALTIME/./} - begun)) -lt 5000000 ] || { echo "it took more than five seconds: $text"; return 1; }
    case $text in *"$words"*) ;; *) echo "it said: $text"; return 1 ;; esac
}
# figure NAME VALUE UNIT [BAR]: a line as `make bench` prints them; of a debug build the unit says so.
figure() {
    local unit=$3${figures_of:+ ($figures_of)} bar=${4:--}
    awk -v name="$1" -v value="$2" -v unit="$unit" -v bar="$bar" -v file="$report" 'BEGIN {
        ratio = (bar + 0 > 0 && value ~ /^[0-9.]+$/) ? sprintf("%.3f", value / bar) : "-"
        printf "%-30s %12s %-18s %8s %8s\n", name, value, unit, bar, ratio
        printf "%s\t%s\t%s\t%s\t%s\n", name, value, unit, bar, ratio >>file
    }'
}
# Seconds since a moment of $EPOCHREALTIME, as in begun=$(moment).
moment() { echo "${EPOCHREALTIME/./}"; }
since() { awk -v now="${EPOCHREALTIME/./}" -v then="$1" 'BEGIN {printf "%.1f", (now - then) / 1e6}'; }
# What may be left on a machine.
traces() {
    machine "$1" sh -c '
        ip -o link show | sed -nE "s/^[0-9]+: ([^:@]+).*/link \1/p"
        ip route show table all proto 177 2>/dev/null | sed "s/^/route /"
        sed -nE "s/^[^ ]+ ([^ ]*(keelson|kubelet)[^ ]*) .*/mount \1/p" /proc/self/mounts
        find /sys/fs/cgroup -type d -path "*/keelson-machine-$1/kubepods*" 2>/dev/null | sed "s/^/cgroup /"
        find /etc/keelson /etc/cni /etc/containerd /opt/cni /usr/lib/cni /var/lib/keelson \( -type f -o -type l \) ! -name 90-machine.yaml 2>/dev/null | sort
        cat /etc/containerd/config.toml
        systemctl list-unit-files --no-legend "keelson*" | sort
        ctr -n k8s.io images list -q; ctr -n k8s.io containers list -q
        pgrep -a keelson || true' - "$1"
    # The machine has no nft program; its rules are read from outside.
    nsenter -t "$(cat "$MACHINES/$1/leader.pid")" -n nft list tables | sed 's/^/nft /'
}
kubectl() { command kubectl --kubeconfig "$work/admin.conf" "$@"; }
install_packages() {
    machine "$1" sh -c '
        cp /srv/apt/keelson.gpg /etc/apt/trusted.gpg.d/keelson.gpg
        echo "deb [signed-by=/etc/apt/trusted.gpg.d/keelson.gpg] file:/srv/apt stable main" >/etc/apt/sources.list.d/keelson.list
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes keelson keelson-images >/dev/null'
}
# import MACHINE ARCHIVE: an image for the test's own pods.
import() { machine "$1" sh -c 'ctr -n k8s.io images import - >/dev/null' <"$2"; }
# sample KUBECTL MACHINE…: the sample of `make cluster`, from the folders of images of all of them and of manifests of the
# first; until it runs.
sample() {
    local kubectl=$1 machine archive manifest
    shift
    for machine in "$@"; do
        for archive in target/images/sample-*.tar; do
            machine "$machine" sh -c 'mkdir -p /var/lib/keelson/images && cd /var/lib/keelson/images && cat >.part && mv .part "$1"' - "$(basename "$archive")" <"$archive"
        done
    done
    for manifest in samples/two-tier/*.yaml; do
        machine "$1" sh -c 'cd /var/lib/keelson/addons && cat >.part && mv .part "$1"' - "$(basename "$manifest")" <"$manifest"
    done
    check "the sample's database runs" until_ok 120 "$kubectl" -n two-tier rollout status deployment/redis --timeout=5s
    check "its web servers run" until_ok 120 "$kubectl" -n two-tier rollout status deployment/web --timeout=5s
    check "its data is loaded" until_ok 60 "$kubectl" -n two-tier wait --for=condition=complete job/load --timeout=5s
}
# sample_answers KUBECTL ADDRESS: on its node port.
sample_answers() { curl -sf --noproxy '*' --max-time 3 "http://$2:$("$1" -n two-tier get service web -o 'jsonpath={.spec.ports[0].nodePort}')/" | grep visit; }
# What pods are and how often they were started, for "undisturbed".
pods_of() { "$@" get pods -A -o 'jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}' | sort; }
