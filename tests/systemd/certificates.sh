# Certificates that live three minutes, on two control planes on etcd and a worker, while somebody asks all the time: the API
# through the worker's balancer, the kubelets' servers, etcd. Sourced by run. KEELSON_MINUTES: how long (the issue's bar is 30).

minutes=${KEELSON_MINUTES:-5}
say "certificates of three minutes, for $minutes minutes"
octet=50
for machine in c1 c2 cw; do
    octet=$((octet + 1))
    machine_up "$machine" "$octet" "$repository"
    install_packages "$machine"
    printf 'apiVersion: keelson/v1\ncertificates: {life: 3m}\n' >"$MACHINES/$machine/root/etc/keelson/config.yaml.d/95-certificates.yaml"
done
check "init" machine c1 keelson init --mode units --store etcd
check "a second control plane joins" machine c2 $(machine c1 keelson token create --control-plane --print-join-command)
check "a worker joins" machine cw $(machine c1 keelson token create --print-join-command)
# The administrator's certificate ends too: each request takes the file that is there now, and goes through the balancer.
cp "$(type -P kubectl)" "$MACHINES/cw/root/usr/local/bin/kubectl"
through() {
    machine c1 cat /var/lib/keelson/admin.conf | sed 's/127.0.0.1:6443/127.0.0.1:6444/' >"$MACHINES/cw/root/root/$$.conf" &&
        mv "$MACHINES/cw/root/root/$$.conf" "$MACHINES/cw/root/root/admin.conf" &&
        machine cw kubectl --kubeconfig /root/admin.conf --request-timeout 15s "$@"
}
import cw "$image"
sed 's/nodeName: two/nodeName: cw/' tests/systemd/worker.yaml >"$MACHINES/cw/root/root/pod.yaml"
through apply -f /root/pod.yaml >/dev/null
check "a pod runs" through wait --for=condition=Ready pod/client-two --timeout=60s
# What is renewed while it is used, and what each process was when it began.
certificates() { machine "$1" keelson certs list --output json | awk -F'"' '$2 == "path" {path = $4} $2 == "renewal" {print $4, path}'; }
processes() { for machine in c1 c2 cw; do machine "$machine" systemctl show --property Id,MainPID,NRestarts 'keelson-*.service' | awk -v RS= '{$1 = $1; print}'; done; }
processes_before=$(processes)
for machine in c1 c2 cw; do certificates "$machine" >"$work/certificates.$machine"; done
check "there are certificates to renew" test "$(cat "$work"/certificates.c? | wc -l)" -ge 27
asked=0
: >"$work/refused"
end=$((SECONDS + minutes * 60))
while [ $SECONDS -lt $end ]; do
    for question in "get nodes" "get --raw /readyz/etcd" "logs client-two --tail=1" "exec client-two -- sh -c :" "create configmap at-$asked" "get node c2 --subresource=status"; do
        asked=$((asked + 1))
        said=$(through $question 2>&1) || printf '%s %s: %s\n' "$(date +%T)" "$question" "$said" >>"$work/refused"
    done
done
figure certificate_requests "$asked" requests
check "no request failed" sh -c 'cat "$1"; ! [ -s "$1" ]' - "$work/refused"
renewed() {
    local machine old=
    for machine in c1 c2 cw; do
        certificates "$machine" | LC_ALL=C sort >"$work/certificates.now"
        LC_ALL=C sort "$work/certificates.$machine" | comm -12 - "$work/certificates.now"
        # None lives on from before the last three minutes.
        awk -v now="$(date -u -d '-1 minute' +%FT%TZ)" '$1 < now' "$work/certificates.now"
    done >"$work/unrenewed"
    cat "$work/unrenewed"
    ! [ -s "$work/unrenewed" ]
}
check "each is another now, and none is overdue" until_ok 30 renewed
check "no process was started anew for it" test "$(processes)" = "$processes_before"
for machine in c1 c2 cw; do check "status on $machine" until_ok 20 machine "$machine" keelson status; done
# New connections to etcd are made with what is on disk now: those of the start have ended.
for machine in c1 c2; do
    machine "$machine" systemctl restart keelson-etcd.service
    check "its control plane finds etcd again on $machine" until_ok 40 machine "$machine" curl -sf --max-time 3 --cacert /var/lib/keelson/pki/ca.crt https://127.0.0.1:6443/readyz
done
check "and serves writes" until_ok 40 through create configmap afterwards
check "without having been started anew" sh -c 'test "$1" = "$2"' - "$(processes | grep -v etcd)" "$(echo "$processes_before" | grep -v etcd)"
for machine in cw c2 c1; do machine_down "$machine"; done
