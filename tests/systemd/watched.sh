# The folders that are kept in step with: archives of images, manifests; and by them the sample of `make cluster`, on
# machines `one` and `two`. Sourced by run.

say "a folder of image archives"
labels_of() { machine "$1" ctr -n k8s.io images ls | grep "^$2 "; }
pinned() { labels_of "$1" "$2" | grep -q 'io.cri-containerd.pinned=pinned'; }
# put MACHINE FOLDER NAME: a file as it should come, whole at once.
put() { machine "$1" sh -c "cat >/var/lib/keelson/$2/.part && mv /var/lib/keelson/$2/.part /var/lib/keelson/$2/$3"; }
# Names of one length: only the list of names changes, which nothing hashes.
put one images extra.tar < <(sed 's#test.invalid/busybox:1#test.invalid/extrbox:1#g' "$image")
check "an archive that comes is imported and pinned" until_ok 10 pinned one test.invalid/extrbox:1
machine one ctr -n k8s.io images rm test.invalid/extrbox:1 >/dev/null
machine one systemctl restart keelson-kubelet.service
check "what the runtime lost is there again after a start" until_ok 20 pinned one test.invalid/extrbox:1
machine one sh -c 'head -c 5000 /var/lib/keelson/images/extra.tar >/var/lib/keelson/images/cut.tar'
told() { machine one journalctl -u "$1" --no-pager -n 200 | grep -q "$2"; }
check "a cut one is told" until_ok 10 told keelson-kubelet.service 'images/cut.tar'
check "and takes nothing from the others" labels_of one test.invalid/extrbox:1
machine one rm /var/lib/keelson/images/cut.tar /var/lib/keelson/images/extra.tar
check "an archive that goes takes its name along" until_ok 20 not labels_of one test.invalid/extrbox:1
check "and no other's" labels_of one test.invalid/busybox:1

say "a folder of manifests"
map() { printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: "%s"}\n---\n' "$1" "$2"; }
data_is() { [ "$(kubectl get configmap "$1" -o 'jsonpath={.data.a}')" = "$2" ]; }
{ map first 1; map second 1; } | put one addons maps.yaml
check "what comes is made" until_ok 10 data_is second 1
{ map first 2; } | put one addons maps.yaml
check "what changes is changed" until_ok 10 data_is first 2
check "what is no longer in its file goes" until_ok 10 not kubectl get configmap second
kubectl create configmap mine --from-literal=a=b >/dev/null
echo 'kind: [' | put one addons maps.yaml
check "a file that cannot be read is told" until_ok 10 told keelson-control-plane.service 'maps.yaml: it is no YAML'
check "and what came from it stays" data_is first 2
put one addons definition.yaml <<'YAML'
apiVersion: example.com/v1
kind: Thing
metadata: {name: a}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {plural: things, singular: thing, kind: Thing}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
YAML
check "a kind and its objects may come together" until_ok 30 kubectl get thing a
machine one systemctl restart keelson-control-plane.service
machine one rm /var/lib/keelson/addons/maps.yaml /var/lib/keelson/addons/definition.yaml
check "what its file is gone of goes" until_ok 30 not kubectl get configmap first
check "a definition too" until_ok 30 not kubectl get crd things.example.com
check "and nobody else's" kubectl get configmap mine

say "the sample, from the two folders"
# The most that the units' processes took together, while all of this ran.
pss() {
    local unit pid sum=0 one
    for unit in "${@:2}"; do
        pid=$(machine "$1" systemctl show --property MainPID --value "$unit")
        one=$(machine "$1" sed -nE 's/^Pss: *([0-9]+) kB/\1/p' "/proc/$pid/smaps_rollup")
        sum=$((sum + ${one:-0}))
    done
    echo "$sum"
}
peaks() {
    local units=0 worker=0 now
    until [ -e "$work/peaks.stop" ]; do
        now=$(pss one keelson-control-plane.service keelson-kubelet.service keelson-proxy.service)
        [ "$now" -le "$units" ] || units=$now
        now=$(pss two keelson-kubelet.service keelson-proxy.service)
        [ "$now" -le "$worker" ] || worker=$now
        echo "$units $worker" >"$work/peaks"
        sleep 0.2
    done
}
rm -f "$work/peaks.stop"
peaks &
peaks_pid=$!
for machine in one two; do
    for archive in target/images/sample-*.tar; do put "$machine" images "$(basename "$archive")" <"$archive"; done
done
for machine in one two; do
    check "$machine has the sample's images" until_ok 60 pinned "$machine" keelson.dev/sample-nginx:1
done
for manifest in samples/two-tier/*.yaml; do put one addons "$(basename "$manifest")" <"$manifest"; done
rolled_out() { kubectl -n two-tier rollout status "deployment/$1" --timeout=5s; }
check "redis runs" until_ok 90 rolled_out redis
check "nginx runs" until_ok 90 rolled_out web
check "its data is loaded" until_ok 60 kubectl -n two-tier wait --for=condition=complete job/load --timeout=5s
both() { [ "$(kubectl -n two-tier get pods -o 'jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | tr '\n' ' ')" = "one two " ]; }
check "its pods run on both machines" both
sample_port() { kubectl -n two-tier get service web -o 'jsonpath={.spec.ports[0].nodePort}'; }
answers() { curl -sf --noproxy '*' --max-time 3 "http://$1:$(sample_port)/" | grep visit; }
check "it answers on one" until_ok 20 answers "$SUBNET.11"
check "it answers on two" until_ok 20 answers "$SUBNET.12"
touch "$work/peaks.stop"
wait "$peaks_pid"
figure units_rss_mib "$(awk '{printf "%.1f", $1 / 1024}' "$work/peaks")" MiB 110
figure worker_rss_mib "$(awk '{printf "%.1f", $2 / 1024}' "$work/peaks")" MiB 40
machine one sh -c 'rm /var/lib/keelson/addons/*.yaml'
check "it goes with its manifests" until_ok 90 not kubectl get namespace two-tier
for machine in one two; do machine "$machine" sh -c 'rm /var/lib/keelson/images/sample-*.tar'; done
check "and its images with their archives" until_ok 20 not labels_of two keelson.dev/sample-nginx:1
