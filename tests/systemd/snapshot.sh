# A snapshot of machine `one`'s cluster becomes the cluster on a machine that has the packages and nothing else.

say "a snapshot restored on another machine"
kubectl create configmap saved --from-literal=a=b >/dev/null
check "save" machine one keelson snapshot save /root/s.snapshot
check "no space left is told, and nothing stays" machine one sh -c 'mkdir -p /tmp/full && mount -t tmpfs -o size=16k none /tmp/full
    said=$(keelson snapshot save /tmp/full/s.snapshot 2>&1) && exit 1
    echo "$said"; echo "$said" | grep -q "No space left" && [ -z "$(ls -A /tmp/full)" ]; code=$?; umount /tmp/full; exit $code'
machine_up restored 14 "$repository"
install_packages restored
machine one cat /root/s.snapshot | machine restored sh -c 'umask 077; cat >/root/s.snapshot'
check "a cut one is refused, and changes nothing" machine restored sh -c 'head -c 2000 /root/s.snapshot >/root/cut; ! keelson snapshot restore /root/cut 2>/tmp/said && grep -q "is cut short" /tmp/said && ! ls /var/lib/keelson/pki /etc/keelson/config.yaml.d/05-cluster.yaml 2>/dev/null'
begun=$(moment)
check "restore" machine restored keelson snapshot restore /root/s.snapshot
figure restore_s "$(since "$begun")" s
machine restored cat /var/lib/keelson/admin.conf | sed "s/127.0.0.1/$SUBNET.14/" >"$work/restored.conf"
restored() { command kubectl --kubeconfig "$work/restored.conf" "$@"; }
check "what was saved is there" restored get configmap saved
check "the new machine is a node that is Ready" restored wait --for=condition=Ready node/restored --timeout=30s
check "the old administrator's certificate is taken" command kubectl --kubeconfig "$work/admin.conf" --server "https://$SUBNET.14:6443" get configmap saved
newer() { [ "$(restored get configmap saved -o 'jsonpath={.metadata.resourceVersion}')" -gt "$(kubectl get --raw /api/v1/namespaces | sed -nE 's/.*"metadata":\{"resourceVersion":"([0-9]+)".*/\1/p')" ]; }
check "no resourceVersion comes again" newer
check "over a database that is there it asks first" machine one sh -c '! keelson snapshot restore /root/s.snapshot 2>/tmp/said && grep -q -- "--yes keeps it aside" /tmp/said'
check "restored over what is there" machine restored keelson snapshot restore /root/s.snapshot --yes
check "and it runs" until_ok 30 machine restored keelson status
machine_down restored
