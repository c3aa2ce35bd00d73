# Machines for tests: Debian 12 trees booted by systemd-nspawn on one bridge. Sourced by the tests here; needs root.
#
# A machine is an overlay on one base tree. containerd's data lies outside of the overlay (overlays do not stack), the
# cgroup controllers of version 1 are made writable after boot. Everything lives below $MACHINES and goes with
# machines_down; the base tree is cached in $MACHINE_CACHE, outside of any checkout.

MACHINE_CACHE=${MACHINE_CACHE:-/var/cache/keelson-systemd}
MACHINES=${MACHINES:-/var/lib/keelson-machines}
BRIDGE=${BRIDGE:-klbr0}
SUBNET=${SUBNET:-10.213.7}

# What Debian's installer or a cloud image would have put there, and the runtime.
BASE_PACKAGES=systemd,systemd-sysv,dbus,iproute2,procps,kmod,ca-certificates,containerd,runc,openssl,curl,gpgv,etcd-server,etcd-client,systemd-timesyncd,libfaketime

# machines_base [NAME PACKAGES]: builds the base tree, or one of another name with more packages (whose services are off),
# unless it is there. A change of the list of packages builds it anew.
machines_base() {
    local name=${1:-base} packages="$BASE_PACKAGES${2:+,$2}" mirror off
    local tree="$MACHINE_CACHE/$name" stamp="$MACHINE_CACHE/$name.packages"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$packages" ]; then return; fi
    mkdir -p "$MACHINE_CACHE"
    rm -rf "$tree" "$stamp"
    mirror=$(sed -nE 's/^URIs: *([^ ]*debian)\/?$/\1/p; s/^deb (\[[^]]*\] )?([^ ]*debian)\/? .*/\2/p' \
        /etc/apt/sources.list.d/* /etc/apt/sources.list 2>/dev/null | head -n 1 || true)
    [ -n "$mirror" ] || { echo "error: no Debian archive in /etc/apt; add your mirror's line" >&2; return 1; }
    off="${2:-}"
    off='for service in '"${off//,/ }"'; do chroot "$1" systemctl disable --quiet "$service" || exit 1; done'
    mmdebstrap --quiet --variant=apt --include="$packages" --customize-hook="$off" \
        --customize-hook='rm -f "$1"/etc/machine-id "$1"/etc/hostname; : >"$1"/etc/machine-id' \
        --customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*' \
        bookworm "$tree" "$mirror"
    # No network from inside: packages come from the local repository alone.
    rm -f "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d/* "$tree"/etc/apt/apt.conf.d/*proxy*
    ln -sf /dev/null "$tree/etc/systemd/system/systemd-resolved.service"
    ln -sf /dev/null "$tree/etc/systemd/system/systemd-networkd-wait-online.service"
    echo "$packages" >"$stamp"
}

machines_bridge() {
    ip link show "$BRIDGE" >/dev/null 2>&1 && return
    ip link add "$BRIDGE" type bridge
    ip addr add "$SUBNET.1/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
}

# machine_up NAME LAST-OCTET [nspawn arguments…]: boots a machine with address $SUBNET.LAST-OCTET, of the tree $TREE.
machine_up() {
    local name=$1 address="$SUBNET.$2" dir="$MACHINES/$1" leader known=$1
    shift 2
    # What this host knows it by, its end of the link too: another run's machines have the same names.
    [ "$BRIDGE" = klbr0 ] || known="$name-${BRIDGE#klbr}"
    machines_bridge
    mkdir -p "$dir"/{upper,work,root,containerd}
    mountpoint -q "$dir/root" ||
        mount -t overlay "overlay-$name" -o "lowerdir=$MACHINE_CACHE/${TREE:-base},upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
    echo "$name" >"$dir/root/etc/hostname"
    printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" >"$dir/root/etc/hosts"
    echo 'nameserver 127.0.0.1' >"$dir/root/etc/resolv.conf"
    mkdir -p "$dir/root/etc/systemd/network"
    printf '[Match]\nName=host0\n[Network]\nAddress=%s/24\nGateway=%s.1\nLinkLocalAddressing=no\n' \
        "$address" "$SUBNET" >"$dir/root/etc/systemd/network/10-host0.network"
    ln -sf /lib/systemd/system/systemd-networkd.service "$dir/root/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    # This host may lack CAP_SYS_RESOURCE: then a runtime cannot lower oom_score_adj below its own.
    mkdir -p "$dir/root/etc/containerd"
    # Once: what init wrote into it is there at the next boot too.
    [ -e "$dir/upper/etc/containerd/config.toml" ] || printf 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  restrict_oom_score_adj = true\n' \
        >"$dir/root/etc/containerd/config.toml"
    # The machines share this host's cgroups of version 1 and its disk: each has a root of its own there, and collects no
    # images when others fill the disk.
    mkdir -p "$dir/root/etc/keelson/config.yaml.d"
    printf 'apiVersion: keelson/v1\nkubelet:\n  cgroupRoot: /keelson-machine-%s\n  imageGcHighPercent: 100\n  imageGcLowPercent: 99\n' "$name" \
        >"$dir/root/etc/keelson/config.yaml.d/90-machine.yaml"
    SYSTEMD_SECCOMP=0 setsid systemd-nspawn --quiet --directory="$dir/root" --machine="$known" --boot --register=no --keep-unit \
        --network-bridge="$BRIDGE" --capability=all --system-call-filter='@keyring @privileged @mount bpf' \
        --bind="$dir/containerd:/var/lib/containerd" \
        --resolv-conf=off --timezone=off --console=pipe "$@" \
        </dev/null >"$dir/console.log" 2>&1 &
    echo $! >"$dir/nspawn.pid"
    for _ in $(seq 200); do
        leader=$(pgrep -P "$(cat "$dir/nspawn.pid")" | head -n 1 || true)
        [ -n "$leader" ] && [ -S "/proc/$leader/root/run/systemd/private" ] && break
        sleep 0.1
    done
    [ -n "$leader" ] || { tail "$dir/console.log" >&2; return 1; }
    echo "$leader" >"$dir/leader.pid"
    # nspawn mounts the controllers read-only; a node's kubelet makes cgroups.
    nsenter -t "$leader" -m sh -c 'for c in /sys/fs/cgroup/*/ /sys/fs/cgroup; do mount -o remount,bind,rw "$c" 2>/dev/null; done; mount -o remount,bind,rw /proc/sys 2>/dev/null; true'
    machine "$name" systemctl is-system-running --wait >/dev/null 2>&1 || true
}

# machine NAME COMMAND…: runs it inside; its exit code comes back.
machine() {
    local leader
    leader=$(cat "$MACHINES/$1/leader.pid")
    shift
    nsenter -t "$leader" -a env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8 "$@"
}

# machine_off NAME: powers off and waits. machine_cut NAME: the power is gone. Either boots again with machine_up.
machine_off() {
    local dir="$MACHINES/$1" pid
    if pid=$(cat "$dir/nspawn.pid" 2>/dev/null) && [ -d "/proc/$pid" ]; then
        # SIGRTMIN+4 to the machine's init: power off.
        kill -s RTMIN+4 "$(cat "$dir/leader.pid")" 2>/dev/null || true
        for _ in $(seq 300); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
        [ ! -d "/proc/$pid" ] || kill -KILL "$pid"
    fi
}
machine_cut() {
    local pid
    kill -KILL "$(cat "$MACHINES/$1/leader.pid")"
    pid=$(cat "$MACHINES/$1/nspawn.pid")
    for _ in $(seq 100); do [ -d "/proc/$pid" ] || return 0; sleep 0.1; done
    kill -KILL "$pid"
}

# machine_down NAME: powers off, removes its mounts and folder.
machine_down() {
    local dir="$MACHINES/$1"
    [ -d "$dir" ] || return 0
    machine_off "$1"
    awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/self/mounts | sort -r | while read -r at; do umount -l "$at"; done
    rm -rf "$dir"
    # Its pods' cgroups are this host's.
    find /sys/fs/cgroup -depth -type d -path "*/keelson-machine-$1*" -exec rmdir {} + 2>/dev/null || true
}

machines_down() {
    local dir
    for dir in "$MACHINES"/*/; do [ -d "$dir" ] && machine_down "$(basename "$dir")"; done
    ip link del "$BRIDGE" 2>/dev/null || true
    rmdir "$MACHINES" 2>/dev/null || true
}
