# All in one, on machine `three`. Sourced by run.

say "all in one, after an init that was killed again and again"
machine_up three 13 "$repository"
install_packages three
for moment in 0.05 0.2 0.5 0.8 1.2 1.8; do machine three timeout -s KILL "$moment" keelson init >/dev/null 2>&1 || true; done
begun=$(moment)
check "init" machine three keelson init
figure all_in_one_init_s "$(since "$begun")" s
check "status" machine three keelson status
check "restart" machine three systemctl restart keelson.service
check "a purge without a reset before it leaves no process" machine three sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -qq purge --yes keelson && ! pgrep -x keelson && ! ls -d /var/lib/keelson /etc/systemd/system/*/keelson.service 2>/dev/null'
