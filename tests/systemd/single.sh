# All in one, on machine `three`. Sourced by run.

say "all in one, after an init that was killed again and again"
machine_up three 13 "$repository"
install_packages three
# Killed at the moment when containerd's files are written and it has not read them.
cat >"$MACHINES/three/root/usr/local/bin/systemctl" <<'SH'
#!/bin/sh
[ "$*" != "restart containerd.service" ] || { kill -KILL "$PPID"; exit 1; }
exec /usr/bin/systemctl "$@"
SH
chmod +x "$MACHINES/three/root/usr/local/bin/systemctl"
runtime() { machine three systemctl show --property MainPID --value containerd.service; }
runtime_before=$(runtime)
check "init is killed before containerd reads what it wrote" machine three sh -c '! keelson init >/dev/null 2>&1; ls /etc/containerd/conf.d/keelson.toml'
check "which it has not" test "$(runtime)" = "$runtime_before"
rm "$MACHINES/three/root/usr/local/bin/systemctl"
for moment in 0.05 0.2 0.5 0.8 1.2 1.8; do machine three timeout -s KILL "$moment" keelson init >/dev/null 2>&1 || true; done
begun=$(moment)
check "init" machine three keelson init
figure all_in_one_init_s "$(since "$begun")" s
check "containerd has read it since" test "$(runtime)" != "$runtime_before"
check "status" machine three keelson status
check "restart" machine three systemctl restart keelson.service
check "a purge without a reset before it leaves no process" machine three sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -qq purge --yes keelson && ! pgrep -x keelson && ! ls -d /var/lib/keelson /etc/systemd/system/*/keelson.service 2>/dev/null'
