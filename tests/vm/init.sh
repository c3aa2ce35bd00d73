# Packages, init and the sample, on cgroup v2 with the systemd driver. Sourced by run.

cluster one 1
say "what it runs on"
check "cgroup v2 alone" machine one sh -c 'grep -q " /sys/fs/cgroup cgroup2 " /proc/self/mounts && ! grep -q " cgroup " /proc/self/mounts'
check "the systemd driver was found and is used" machine one sh -c 'grep -q "cgroupDriver: \"systemd\"" /etc/keelson/config.yaml.d/10-init.yaml && ls -d /sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod*.slice/cri-containerd-*.scope'
check "the doctor finds nothing" machine one keelson doctor
check "a pod resolves the Service's name and reaches it" until_ok 120 kubectl exec deployment/web -- sh -c 'nslookup web.default.svc.cluster.local >/dev/null && nc -w 5 web.default.svc.cluster.local 80 </dev/null | grep web-'
check "logs come" kubectl logs deployment/web
kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name}{.status.containerStatuses[0].containerID}{"\n"}{end}' >"$work/before"
same() { kubectl get pods -o 'jsonpath={range .items[*]}{.metadata.name}{.status.containerStatuses[0].containerID}{"\n"}{end}' | cmp - "$work/before"; }
check "restarted" machine one systemctl restart keelson.service
check "it disturbs no pod" until_ok 60 same
check "the sample answers" until_ok 60 both_answer
keep_cluster one
machine_down one
