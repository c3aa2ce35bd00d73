# Machine `two` leaves, machine `one` is reset and purged; nothing is left. Sourced by run.

say "leaving"
machine one keelson node leave two --timeout 90s >"$work/leave" 2>&1 &
leaving=$!
check "a node that leaves is emptied first" until_ok 30 grep -q "two is empty" "$work/leave"
begun=$(moment)
check "reset on the worker" machine two keelson reset --yes
figure worker_reset_s "$(since "$begun")" s 15
wait "$leaving" && left=0 || left=$?
check "and is gone when its kubelet is silent" test "$left" = 0
check "for good" not kubectl get node two
check "reset asks first on the control plane" not machine one keelson reset
begun=$(moment)
check "reset of the control plane with its data" machine one keelson reset --yes --state
figure reset_s "$(since "$begun")" s 15
# The test's own image, by all of its names.
machine one sh -c 'digest=$(ctr -n k8s.io images ls | awk "\$1 == \"test.invalid/busybox:1\" {print \$3}")
    ctr -n k8s.io images rm $(ctr -n k8s.io images ls | awk -v d="$digest" "\$3 == d {print \$1}") >/dev/null'
check "purge" machine one sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -qq purge --yes keelson keelson-images'
check "nothing is left" diff "$work/before" <(traces one)
