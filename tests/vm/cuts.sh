# Power cuts at random moments, and what is there after them. Sourced by run.
#
# `power_cut_back_s` is the time from power on until the sample's pods of before answer through the Service, a new pod runs and
# nothing is left Terminating, less what this very boot took from its kernel to systemd's basic.target, where services begin. The bar is
# the figure's; the checks wait longer, for a machine that has other things to do beside emulating.

CUTS=${CUTS:-1}
KINDS=${KINDS:-writes init join upgrade restore firstboot}
SEED=${SEED:-$RANDOM}
factory
with_medium
if [ ! -f "$GUESTS/cluster.img" ]; then
    cluster one 1
    keep_cluster one
    machine_down one
fi
say "power cuts: $CUTS of each kind, SEED=$SEED"
fractions=($(awk -v seed="$SEED" 'BEGIN { srand(seed); for (i = 0; i < 100; i++) printf "%.3f ", rand() }'))
cuts=0 worst=0 checked=0
# cut_after NAME LOW HIGH: at a moment between the two.
cut_after() {
    local wait
    wait=$(awk -v low="$2" -v high="$3" -v at="${fractions[cuts]}" 'BEGIN { printf "%.1f", low + at * (high - low) }')
    cuts=$((cuts + 1))
    echo "  the power goes after $wait s"
    sleep "$wait"
    machine_cut "$1"
}
# began KIND: the power is back. back: all is well again.
began() { kind=$1 powered=$(moment); }
back() {
    local took boot
    took=$(since "$powered")
    boot=$(machine cut systemctl show --property ActiveEnterTimestampMonotonic --value basic.target)
    took=$(awk -v took="$took" -v boot="$boot" 'BEGIN { printf "%.1f", took - boot / 1e6 }')
    figure "power_cut_boot_${kind}_s" "$(awk -v boot="$boot" 'BEGIN { printf "%.1f", boot / 1e6 }')" s
    figure "power_cut_back_${kind}_s" "$took" s 60
    keep_journals
    worst=$(awk -v worst="$worst" -v took="$took" 'BEGIN { print (took > worst ? took : worst) }')
}
# What the machines say of this boot goes beside the reports.
keep_journals() {
    local name
    for name in cut hub; do
        [ ! -f "$GUESTS/$name/qemu.pid" ] || within=60 machine "$name" journalctl --boot --no-pager --output short-monotonic >"target/reports/vm-$kind-$cuts-$name.journal" || true
    done
}
# as_before NAME [NODE]: the checks of every cut on a cluster that has the sample.
as_before() {
    # What is asked from outside before there is a network would be noticed late.
    networked cut
    check "the sample's pods of before answer" until_ok 300 old_pods_answer
    check "a new pod runs" until_ok 180 new_pod "late-$cuts" "${2:-}"
    check "nothing is left Terminating" until_ok 120 none_terminating
    back
    check "status says that all is well" until_ok 120 machine "$1" keelson status
}
# as_new NAME: on one that has none yet.
as_new() {
    use "$1"
    kubectl apply -f tests/vm/sample.yaml >/dev/null || true
    check "the sample is deployed and answers" until_ok 300 both_answer
    back
    check "nothing is left Terminating" until_ok 120 none_terminating
}
# A machine with the cluster and its sample, as init left it.
cut_cluster() {
    cp "$work/pods.cluster" "$work/pods"
    machine_new cut "$GUESTS/cluster.img"
    machine_up cut 2 "${MEDIUM[@]}"
    use cut
    check "the cluster runs" until_ok 240 old_pods_answer
    machine cut mount -o ro LABEL=medium /srv/apt
}
again() { began "$1"; machine_on cut 2 "${MEDIUM[@]}" "${@:2}"; }

cut_writes() {
    local round
    cut_cluster
    new_pod victim >/dev/null || true
    for round in $(seq "$CUTS"); do
        writer_start
        kubectl delete pod -l made=late --wait=false >/dev/null
        cut_after cut 3 20
        writer_stop
        again writes
        as_before cut
        check "no acknowledged write of $(written) is lost" nothing_lost
        checked=$((checked + $(written)))
    done
}

cut_init() {
    local round
    for round in $(seq "$CUTS"); do
        machine_new cut "$GUESTS/factory.img"
        machine_up cut 2 "${MEDIUM[@]}"
        machine cut systemd-run --quiet --no-block --unit=install keelson init
        cut_after cut 1 "$(cat "$work/init_s")"
        again init
        networked cut
        check "the same command goes on" machine cut keelson init
        as_new cut
        machine_down cut
    done
}

cut_join() {
    local round join link="-nic socket,model=virtio-net-pci,mcast=230.0.0.213:$((${PORTS:-26440} + 20)),localaddr=127.0.0.1,mac=$LINK"
    cp "$work/pods.cluster" "$work/pods"
    machine_new hub "$GUESTS/cluster.img"
    machine_up hub 1 ${link}01
    use hub
    check "the cluster runs" until_ok 240 old_pods_answer
    check "it takes the address on the guests' link" machine hub keelson init --apiserver-advertise-address "$LINK_NET.1"
    check "its pods answer" until_ok 300 old_pods_answer
    join="$(machine hub keelson token create --print-join-command | tail -n 1) --node-ip $LINK_NET.2"
    for round in $(seq "$CUTS"); do
        machine_new cut "$GUESTS/factory.img"
        machine_up cut 2 ${link}02
        machine cut systemd-run --quiet --no-block --unit=install $join --node-name "worker-$round"
        cut_after cut 1 30
        began join
        machine_on cut 2 ${link}02
        networked cut 2
        # A join that was done already needs no other; one that was not goes on.
        check "the same command goes on" machine cut $join --node-name "worker-$round"
        keep_journals
        as_before hub "worker-$round"
        check "status on the worker" until_ok 120 machine cut keelson status
        # The next round's cluster has no node that is away, and no pod that waits for it.
        check "its pods go" kubectl delete pods -l made=late --timeout=60s
        machine_down cut
        kubectl delete node "worker-$round" >/dev/null
    done
    machine_down hub
}

cut_upgrade() {
    local round format
    format() { machine cut keelson upgrade plan | sed -n 's/^database: *format //p'; }
    for round in $(seq "$CUTS"); do
        cut_cluster
        kubectl create configmap before --from-literal=a=b >/dev/null
        machine cut systemd-run --quiet --no-block --unit=install keelson upgrade apply /srv/apt/next.deb
        cut_after cut 1 40
        again upgrade
        as_before cut
        machine cut mount -o ro LABEL=medium /srv/apt
        # dpkg's own database heals so, as its words say.
        check "the upgrade goes on" machine cut sh -c 'dpkg --configure -a; keelson upgrade apply /srv/apt/next.deb'
        check "the database has the newer format" test "$(format)" = 3
        check "what was written before is there" until_ok 30 kubectl get configmap before
        check "the sample's pods of before answer" until_ok 300 old_pods_answer
        machine_down cut
    done
}

cut_restore() {
    local round
    cut_cluster
    kubectl create configmap saved --from-literal=a=b >/dev/null
    check "a snapshot" machine cut keelson snapshot save /var/lib/s.snapshot
    for round in $(seq "$CUTS"); do
        kubectl create configmap later --from-literal=a=b >/dev/null || true
        machine cut systemd-run --quiet --no-block --unit=install keelson snapshot restore /var/lib/s.snapshot --yes
        cut_after cut 0.5 20
        again restore
        as_before cut
        check "what was saved is there" kubectl get configmap saved
        check "the restore goes through when it is run again" machine cut keelson snapshot restore /var/lib/s.snapshot --yes
        check "the cluster is as it was saved" until_ok 60 kubectl get configmap saved
        check "and has nothing later" not kubectl get configmap later
        check "the sample's pods of before answer" until_ok 300 old_pods_answer
    done
}

cut_firstboot() {
    local round
    source tests/vm/sticks.sh
    for round in $(seq "$CUTS"); do
        machine_new cut "$GUESTS/factory.img"
        stick cut <<<$'apiVersion: keelson/v1\nkind: FirstBoot\ninit: {}'
        kernel=$FIRST_BOOT machine_on cut 2 "${MEDIUM[@]}" "${STICK[@]}"
        # From before anything is mounted to after it is done.
        cut_after cut 2 "$(awk '{ sum += $1 } END { print sum }' "$work/plain_boot_s" "$work/init_s")"
        kernel=$FIRST_BOOT again firstboot "${STICK[@]}"
        check "first boot is done, and a target tells" until_ok 300 done_and_told cut
        as_new cut
        machine_down cut
    done
}

for kind in $KINDS; do
    say "power cuts: $kind"
    "cut_$kind"
    for name in cut hub; do machine_down "$name"; done
done
figure power_cut_back_s "$worst" s 60
figure power_cuts "$cuts" cuts
[[ " $KINDS " != *" writes "* ]] || figure power_cut_writes_checked "$checked" writes
