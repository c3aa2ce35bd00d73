# Machines for tests: guests of QEMU with Debian 12's cloud kernel, systemd, containerd, cgroup v2 and the systemd cgroup
# driver. The functions are those of tests/systemd/machines.sh. Sourced by run; needs root.
#
# The processor is emulated: a boot takes most of a minute, and times that matter are told beside a plain boot's.
#
# A power cut is SIGKILL to QEMU and to the disk's server at once. Lost are: memory, the guest's page cache, what the network
# card was sending, and every write that the guest's kernel gave to the disk and did not flush: the disk is nbdkit with its
# cache filter, which holds writes back until a flush or a write with FUA comes. Not emulated: a disk that keeps some of what
# was not flushed and loses the rest, a write that is half done, and a disk that lies about its flushes.

CACHE=${CACHE:-/var/cache/keelson/vm}
GUESTS=${GUESTS:-/var/lib/keelson-vm}
BASE_PACKAGES=systemd,systemd-sysv,udev,dbus,linux-image-cloud-amd64,containerd,runc,iproute2,procps,kmod,ca-certificates,gpgv,e2fsprogs,util-linux,busybox-static

# The network cards: one to this host, by which its ports are forwarded (with a default route or without), and one to the
# other guests.
OUTSIDE=52:54:00:4b:00:01
NO_ROUTE=52:54:00:4b:00:02
LINK=52:54:00:4b:01:
LINK_NET=192.168.99

# The base disk, its kernel and initrd. A change of this file builds them anew.
machines_base() {
    local mark mirror tree="$GUESTS/base" missing=()
    command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v mke2fs >/dev/null || missing+=(e2fsprogs)
    command -v nbdkit >/dev/null || missing+=(nbdkit)
    if [ ${#missing[@]} != 0 ]; then
        DEBIAN_FRONTEND=noninteractive apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}"
    fi
    mark=$(sed '/^# What runs/,$d' tests/vm/machines.sh | sha256sum | cut -c1-16)
    [ "$(cat "$CACHE/mark" 2>/dev/null)" != "$mark" ] || return 0
    say "the guests' disk"
    mkdir -p "$CACHE" "$GUESTS"
    rm -rf "$CACHE"/mark "$CACHE"/root.img "$tree"
    mirror=$(sed -nE 's/^(URIs:|deb( \[[^]]*\])?) +(\S*debian)\/? *.*/\3/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n 1 || true)
    [ -n "$mirror" ] || { echo "error: no Debian archive is named in /etc/apt/sources.list*" >&2; return 1; }
    mmdebstrap --variant=apt --quiet --include="$BASE_PACKAGES" \
        --dpkgopt=path-exclude='/usr/share/doc/*' --dpkgopt=path-exclude='/usr/share/man/*' --dpkgopt=path-exclude='/usr/share/locale/*' \
        bookworm "$tree" "$mirror"
    cp "$tree"/boot/vmlinuz-* "$CACHE/vmlinuz"
    initrd "$tree" >"$CACHE/initrd"
    rm -rf "$tree"/boot/* "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/*.bin "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d/* "$tree"/etc/apt/apt.conf.d/*proxy*
    echo "/dev/vda / ext4 defaults 0 0" >"$tree/etc/fstab"
    # As an image comes: no identity. No network from inside: packages come from the disk that is given.
    : >"$tree/etc/machine-id"
    echo guest >"$tree/etc/hostname"
    printf '127.0.0.1 localhost guest\n' >"$tree/etc/hosts"
    : >"$tree/etc/resolv.conf"
    mkdir -p "$tree/etc/containerd" "$tree/srv/apt"
    printf 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n' >"$tree/etc/containerd/config.toml"
    card() { printf '[Match]\nMACAddress=%s\n[Network]\nAddress=%s/24\nLinkLocalAddressing=no\n%s' "$2" "$3" "${4:-}" >"$tree/etc/systemd/network/$1.network"; }
    card 10-outside "$OUTSIDE" 10.0.2.15 $'Gateway=10.0.2.2\n'
    card 10-no-route "$NO_ROUTE" 10.0.2.15
    local number
    for number in 1 2 3; do card "20-link-$number" "${LINK}0$number" "$LINK_NET.$number"; done
    agent >"$tree/usr/local/sbin/agent"
    chmod +x "$tree/usr/local/sbin/agent"
    printf '[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/usr/local/sbin/agent\nRestart=always\n[Install]\nWantedBy=multi-user.target\n' >"$tree/etc/systemd/system/agent.service"
    local unit
    for unit in agent systemd-networkd; do chroot "$tree" systemctl --quiet enable "$unit.service"; done
    for unit in systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target keyboard-setup.service \
        systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-user-sessions.service modprobe@fuse.service modprobe@drm.service; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    mke2fs -q -t ext4 -d "$tree" "$CACHE/root.img" 4G
    rm -rf "$tree"
    echo "$mark" >"$CACHE/mark"
}

# A kernel that finds its disk within a second: Debian's own initrd takes twenty on an emulated processor.
initrd() {
    local tree=$1 folder="$GUESTS/initrd" version module
    version=$(ls "$tree/lib/modules")
    rm -rf "$folder"
    mkdir -p "$folder"/{dev,proc,root}
    cp "$tree/bin/busybox" "$folder/busybox"
    {
        echo '#!/busybox sh'
        for module in virtio_pci virtio_blk crc32c_generic ext4; do
            chroot "$tree" modprobe --set-version "$version" --show-depends "$module" | sed -n 's/^insmod //p'
        done | awk '!seen[$0]++' | while read -r module; do
            cp "$tree/$module" "$folder/"
            echo "/busybox insmod /$(basename "$module")"
        done
        # As systemd wants it: read-only, unless the command line says otherwise.
        echo '/busybox mount -t devtmpfs none /dev; /busybox mount -t proc none /proc
            until /busybox mount -o ro -t ext4 /dev/vda /root; do /busybox sleep 0.1; done
            /busybox umount /proc; exec /busybox switch_root /root /sbin/init'
    } >"$folder/init"
    chmod +x "$folder/init"
    mkdir -p "$tree/initrd"
    cp -r "$folder/." "$tree/initrd/"
    chroot "$tree" sh -c 'cd /initrd && find . | cpio --quiet -o -H newc'
    rm -rf "$tree/initrd" "$folder"
}

# In the guest: commands from outside, a line `ID BASE64` each, answered by `ID CODE BASE64` with all that it printed.
agent() {
    cat <<'AGENT'
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8
cd /
# Not udev's name for it, which comes late.
until port=$(ls /dev/vport*p1 2>/dev/null) && exec 3<>"$port"; do sleep 0.2; done
while read -r -u 3 id command; do
    said=$(bash -c "$(base64 -d <<<"$command")" 2>&1 3>&- </dev/null)
    code=$?
    printf '%s %s %s\n' "$id" "$code" "$(base64 -w 0 <<<"$said")" >&3
done
AGENT
}

# What runs ---------------------------------------------------------------------------------------------------------------

# machine_new NAME [DISK]: a machine that is off, with a copy of a disk; the base disk without one.
machine_new() {
    mkdir -p "$GUESTS/$1"
    cp --sparse=always "${2:-$CACHE/root.img}" "$GUESTS/$1/disk.img"
}

# The ports of this host that lead to a machine's API server and to its Service's node port.
api_port() { echo $((${PORTS:-26440} + $(cat "$GUESTS/$1/number"))); }
service_port() { echo $((${PORTS:-26440} + 10 + $(cat "$GUESTS/$1/number"))); }

# Drivers that a guest would find of use for a processor that is emulated, and that take half a minute of it to load.
UNUSED=kvm_amd,kvm_intel,aesni_intel,ghash_clmulni_intel,sha512_ssse3,sha256_ssse3,sha1_ssse3,crc32_pclmul,crct10dif_pclmul,evdev,serio_raw,qemu_fw_cfg,efi_pstore

# The scheduler shares processors between sessions first, by a niceness that each session has: `nice` alone is of no use.
niceness="echo $(nice) >/proc/self/autogroup 2>/dev/null; "

# machine_up NAME NUMBER [QEMU's arguments…]: the power is on. With $nic its network cards; with $kernel more of the kernel's
# command line. Returns when the machine can be asked.
machine_up() {
    machine_on "$@"
    machine "$1" true
}
machine_on() {
    local dir="$GUESTS/$1" number=$2 cards name=$1 fifo
    shift 2
    echo "$number" >"$dir/number"
    for fifo in "$dir/agent.in" "$dir/agent.out"; do rm -f "$fifo"; mkfifo "$fifo"; done
    rm -f "$dir/disk.sock" "$dir/nbdkit.pid"
    TMPDIR=$dir nbdkit --pidfile "$dir/nbdkit.pid" --unix "$dir/disk.sock" --filter=cache file "$dir/disk.img" cache=writeback
    cards="-nic user,model=virtio-net-pci,mac=$OUTSIDE,restrict=on,hostfwd=tcp:127.0.0.1:$(api_port "$name")-:6443,hostfwd=tcp:127.0.0.1:$(service_port "$name")-:30080"
    cards=${nic:-$cards}
    setsid bash -c "$niceness"'exec "$@"' - qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nodefaults -display none -no-reboot \
        -kernel "$CACHE/vmlinuz" -initrd "$CACHE/initrd" -append "console=ttyS0 loglevel=5 mitigations=off cryptomgr.notests systemd.show_status=0 modprobe.blacklist=$UNUSED ${kernel:-}" \
        -serial "file:$dir/console.log" -drive "file=nbd:unix:$dir/disk.sock,format=raw,if=virtio,cache=writeback" \
        -device virtio-serial -chardev "pipe,id=agent,path=$dir/agent" -device virtserialport,chardev=agent,name=agent \
        -device virtio-rng-pci $cards "$@" </dev/null >"$dir/qemu.log" 2>&1 &
    echo $! >"$dir/qemu.pid"
    # Its end is no news to the shell.
    disown
}
runs() { kill -0 "$(cat "$GUESTS/$1/qemu.pid")" 2>/dev/null; }

# machine NAME COMMAND…: runs it inside; its exit code comes back. With $within a limit in seconds (300).
machine() {
    local dir="$GUESTS/$1" id="$RANDOM$RANDOM$RANDOM" answer= code text line= piece lock in out end=$((SECONDS + ${within:-300}))
    shift
    exec {lock}>"$dir/agent.lock" {in}<>"$dir/agent.in" {out}<>"$dir/agent.out"
    flock "$lock"
    printf '%s %s\n' "$id" "$(printf '%q ' "$@" | base64 -w 0)" >&"$in"
    until [ "$answer" = "$id" ]; do
        # A line comes in pieces, seconds apart when the guest is slow.
        if read -r -t 10 -u "$out" piece; then
            read -r answer code text <<<"$line$piece"
            line=
            continue
        fi
        line+=$piece
        if ! kill -0 "$(cat "$dir/qemu.pid")" 2>/dev/null; then
            answer=$id code=254 text=$(echo "the machine is off: $(tail -n 3 "$dir/qemu.log")" | base64 -w 0)
        elif [ $SECONDS -ge $end ]; then
            answer=$id code=255 text=$(echo "no answer came within ${within:-300} s" | base64 -w 0)
        fi
    done
    exec {lock}>&- {in}>&- {out}>&-
    text=$(base64 -d <<<"$text")
    [ -z "$text" ] || printf '%s\n' "$text"
    return "$code"
}

# machine_off NAME: powers off and waits. machine_cut NAME: the power is gone.
machine_off() {
    runs "$1" || return 0
    within=5 machine "$1" systemctl poweroff --no-block >/dev/null || true
    for _ in $(seq 600); do runs "$1" || break; sleep 0.2; done
    ! runs "$1" || echo "error: $1 did not power off" >&2
    machine_cut "$1"
}
machine_cut() {
    local dir="$GUESTS/$1" pids
    pids="$(cat "$dir/qemu.pid" "$dir/nbdkit.pid" 2>/dev/null)"
    kill -KILL $pids 2>/dev/null || true
    for _ in $(seq 100); do kill -0 $pids 2>/dev/null || return 0; sleep 0.1; done
}

# machine_down NAME: off, and its folder goes; what its console said stays with the reports.
machine_down() {
    [ -d "$GUESTS/$1" ] || return 0
    machine_cut "$1"
    cp "$GUESTS/$1/console.log" "target/reports/vm-$1.log" 2>/dev/null || true
    rm -rf "${GUESTS:?}/$1"
}
machines_down() {
    local dir
    for dir in "$GUESTS"/*/; do [ ! -f "$dir/qemu.pid" ] || machine_down "$(basename "$dir")"; done
}
