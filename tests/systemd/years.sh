# A cluster that was off for two years: every certificate but the authorities' has ended. The clock of its programs is moved, as
# machines here share this host's. Sourced by run.

say "a cluster that was off for two years"
fake=(LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 FAKETIME=+2y FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DISABLE_SHM=1)
for machine in old older; do
    machine_up "$machine" "$([ $machine = old ] && echo 64 || echo 65)" "$repository"
    install_packages "$machine"
done
check "init" machine old keelson init --mode units
check "join" machine older $(machine old keelson token create --print-join-command)
for machine in older old; do
    machine "$machine" systemctl stop 'keelson-*.service'
    for unit in control-plane kubelet proxy; do
        mkdir -p "$MACHINES/$machine/root/etc/systemd/system/keelson-$unit.service.d"
        printf '[Service]\n' >"$MACHINES/$machine/root/etc/systemd/system/keelson-$unit.service.d/years.conf"
        printf 'Environment=%s\n' "${fake[@]}" >>"$MACHINES/$machine/root/etc/systemd/system/keelson-$unit.service.d/years.conf"
    done
    machine "$machine" systemctl daemon-reload
done
later() { local machine=$1; shift; machine "$machine" env "${fake[@]}" "$@"; }
check "two years later it is" test "$(later old date +%Y)" = "$(($(date +%Y) + 2))"
machine old systemctl start --no-block keelson-control-plane.service keelson-kubelet.service keelson-proxy.service
check "the control plane's machine comes back by itself" until_ok 60 later old keelson status
machine older systemctl start --no-block keelson-kubelet.service keelson-proxy.service
names_it() { machine older journalctl -u keelson-kubelet.service --no-pager | grep -q 'certificate ended on .*keelson token create --print-join-command'; }
check "a worker names the one command" until_ok 30 names_it
check "which it is" later older $(later old keelson token create --print-join-command)
check "status" until_ok 30 later older keelson status
for machine in older old; do machine_down "$machine"; done
