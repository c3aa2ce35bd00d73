# Machine `two` joins machine `one`, after joins that fail. Sourced by run.

say "joins that fail say why within five seconds"
machine_up two 12 "$repository"
install_packages two
join=$(machine one keelson token create --print-join-command)
token=$(echo "$join" | sed -nE 's/.*--token ([^ ]+).*/\1/p') hash=${join##* }
check "a wrong hash" refuses "has the hash $hash" machine two keelson join "$SUBNET.11:6443" --token "$token" --discovery-token-ca-cert-hash "sha256:$(printf '0%.0s' $(seq 64))"
check "an unknown token" refuses "not known there or has expired" machine two keelson join "$SUBNET.11:6443" --token aaaaaa.0123456789abcdef --discovery-token-ca-cert-hash "$hash"
check "a wrong secret" refuses "not signed with the token" machine two keelson join "$SUBNET.11:6443" --token "${token%.*}.0123456789abcdef" --discovery-token-ca-cert-hash "$hash"
check "nobody there" refuses "cannot be reached" machine two keelson join "$SUBNET.11:6444" --token "$token" --discovery-token-ca-cert-hash "$hash"
check "a machine that is off" refuses "Check the address" machine two keelson join "$SUBNET.99:6443" --token "$token" --discovery-token-ca-cert-hash "$hash"
check "a name that is taken" refuses "a node one in the cluster already" machine two keelson join "$SUBNET.11:6443" --token "$token" --discovery-token-ca-cert-hash "$hash" --node-name one
machine one keelson token delete "$token" >/dev/null
check "an expired token" refuses "not known there or has expired" machine two keelson join "$SUBNET.11:6443" --token "$token" --discovery-token-ca-cert-hash "$hash"
check "they left the machine as it was" machine two sh -c '! ls /var/lib/keelson/ledger.jsonl /etc/keelson/config.yaml.d 2>/dev/null'

say "a worker"
begun=$(moment)
check "join with the printed command" machine two $(machine one keelson token create --print-join-command) --node-labels rank=second
figure join_to_ready_s "$(since "$begun")" s 10
issued() { [ "$(kubectl get csr -o 'jsonpath={range .items[?(@.status.certificate)]}x{end}')" = xxx ]; }
check "the worker's three certificates came by request" until_ok 20 issued
labelled() { kubectl get node two --show-labels | grep -q rank=second; }
check "its label is there" labelled
import two "$image"
kubectl apply -f tests/systemd/worker.yaml >/dev/null
check "a pod runs on the worker" kubectl wait --for=condition=Ready pod/client-two --timeout=30s
check "it reaches a pod of the other node" until_ok 20 kubectl exec client-two -- sh -c "nc -w 2 $(kubectl get pod web -o 'jsonpath={.status.podIP}') 8080 </dev/null | grep hello"
check "it resolves and reaches the Service" until_ok 20 kubectl exec client-two -- sh -c 'nslookup web.default.svc.cluster.local && nc -w 2 web.default.svc.cluster.local 80 </dev/null | grep hello'
check "the other way round" until_ok 20 kubectl exec client-one -- sh -c "nc -w 2 $(kubectl get pod client-two -o 'jsonpath={.status.podIP}') 80 </dev/null | grep second"
check "status on the worker" machine two keelson status
check "certificates are listed" machine two sh -c 'keelson certs list | grep -c kubelet | grep -qx 2'
