//! Mistakes in pods, each with the path and text that upstream answers with.

use serde_json::{Value, json};

use crate::support::Kind;

/// A valid pod with one part of its spec or first container replaced.
fn pod(spec: Value, container: Value) -> Value {
    let mut base = json!({"name": "c", "image": "nginx:1"});
    for (key, value) in container.as_object().unwrap() {
        base[key] = value.clone();
    }
    let mut out = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [base]},
    });
    for (key, value) in spec.as_object().unwrap() {
        out["spec"][key] = value.clone();
    }
    out
}

fn spec(spec: Value) -> Value {
    pod(spec, json!({}))
}

fn container(container: Value) -> Value {
    pod(json!({}), container)
}

#[track_caller]
fn check(object: &Value, expected: &[&str]) {
    let (_, errors) = Kind::of("v1", "Pod").create(object);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected, "{object}");
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn a_valid_pod_passes() {
    check(&spec(json!({})), &[]);
    check(
        &pod(
            json!({
                "volumes": [{"name": "a", "emptyDir": {}}],
                "tolerations": [{"operator": "Exists"}],
                "nodeSelector": {"a": "b"},
                "initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["x"]}}}],
            }),
            json!({"volumeMounts": [{"name": "a", "mountPath": "/a"}], "ports": [{"containerPort": 1, "name": "p"}]}),
        ),
        &[],
    );
}

#[test]
fn containers() {
    check(&spec(json!({"containers": []})), &["spec.containers: Required value"]);
    check(&container(json!({"name": ""})), &["spec.containers[0].name: Required value"]);
    check(&container(json!({"image": ""})), &["spec.containers[0].image: Required value"]);
    check(
        &container(json!({"image": " x"})),
        &["spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace"],
    );
    check(
        &container(json!({"name": "A"})),
        &[&format!("spec.containers[0].name: Invalid value: \"A\": {LABEL}")],
    );
    check(
        &container(json!({"name": "a.b"})),
        &["spec.containers[0].name: Invalid value: \"a.b\": must not contain dots"],
    );
    check(
        &spec(json!({"containers": [{"name": "c", "image": "x"}, {"name": "c", "image": "x"}]})),
        &["spec.containers[1].name: Duplicate value: \"c\""],
    );
    check(
        &spec(json!({"initContainers": [{"name": "c", "image": "x"}]})),
        &["spec.initContainers[0].name: Duplicate value: \"c\""],
    );
    check(
        &container(json!({"imagePullPolicy": "Sometimes"})),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
         \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        &container(json!({"terminationMessagePolicy": "Unknown"})),
        &[
            "spec.containers[0].terminationMessagePolicy: Unsupported value: \"Unknown\": supported values: \"File\", \
         \"FallbackToLogsOnError\"",
        ],
    );
    check(
        &spec(json!({"ephemeralContainers": [{"name": "e", "image": "x"}]})),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
    check(
        &spec(
            json!({"initContainers": [{"name": "i", "image": "x", "lifecycle": {"preStop": {"exec": {"command": ["a"]}}}}]}),
        ),
        &[
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
}

#[test]
fn ports_and_environment() {
    check(
        &container(json!({"ports": [{"containerPort": 0}]})),
        &["spec.containers[0].ports[0].containerPort: Required value"],
    );
    check(
        &container(json!({"ports": [{"containerPort": 65536}]})),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        &container(json!({"ports": [{"containerPort": 1, "hostPort": -1}]})),
        &["spec.containers[0].ports[0].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive"],
    );
    check(
        &container(json!({"ports": [{"containerPort": 1, "protocol": "tcp"}]})),
        &[
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check(
        &container(json!({"ports": [{"containerPort": 1, "name": "UPPER"}]})),
        &[
            "spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.containers[0].ports[0].name: Invalid value: \"UPPER\": must contain at least one letter (a-z)",
        ],
    );
    check(
        &container(json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]})),
        &["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
    );
    check(
        &container(
            json!({"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]}),
        ),
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\""],
    );
    check(&container(json!({"env": [{"name": ""}]})), &["spec.containers[0].env[0].name: Required value"]);
    check(
        &container(json!({"env": [{"name": "a=b"}]})),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of \
         printable ASCII characters other than '='",
        ],
    );
    check(
        &container(
            json!({"env": [{"name": "a", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
        ),
        &[
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ],
    );
    check(
        &container(json!({"env": [{"name": "a", "valueFrom": {}}]})),
        &[
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, \
         `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ],
    );
    check(
        &container(
            json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.whoops"}}}]}),
        ),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.whoops\": error converting \
         fieldPath: field label not supported: metadata.whoops",
        ],
    );
    check(
        &container(
            json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]}),
        ),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \
         \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \
         \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ],
    );
    check(
        &container(json!({"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}]})),
        &["spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
    );
    check(
        &container(json!({"envFrom": [{"prefix": "a"}]})),
        &[
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ],
    );
    check(
        &container(json!({"envFrom": [{"configMapRef": {"name": ""}}]})),
        &["spec.containers[0].envFrom[0].configMapRef.name: Required value"],
    );
}

#[test]
fn volumes_and_mounts() {
    check(
        &container(json!({"volumeMounts": [{"name": "no", "mountPath": "/a"}]})),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"no\""],
    );
    let with = |mounts: Value| {
        pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]}), json!({"volumeMounts": mounts}))
    };
    check(
        &with(json!([{"name": "v", "mountPath": ""}])),
        &["spec.containers[0].volumeMounts[0].mountPath: Required value"],
    );
    check(
        &with(json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}])),
        &["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique"],
    );
    check(
        &with(json!([{"name": "v", "mountPath": "/a", "subPath": "../x"}])),
        &["spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"],
    );
    check(
        &with(json!([{"name": "v", "mountPath": "/a", "subPath": "/x"}])),
        &["spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path"],
    );
    check(
        &with(json!([{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}])),
        &[
            "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to \
         privileged containers",
        ],
    );
    check(
        &spec(json!({"volumes": [{"name": "a"}, {"name": "a"}]})),
        &["spec.volumes[1].name: Duplicate value: \"a\""],
    );
    check(
        &spec(json!({"volumes": [{"name": "", "emptyDir": {}}]})),
        &["spec.volumes[0].name: Required value"],
    );
    check(
        &spec(json!({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}]})),
        &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
    );
    check(
        &spec(json!({"volumes": [{"name": "a", "hostPath": {"path": ""}}]})),
        &["spec.volumes[0].hostPath.path: Required value"],
    );
    check(
        &spec(json!({"volumes": [{"name": "a", "hostPath": {"path": "/a/../b"}}]})),
        &["spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
    );
    check(
        &spec(json!({"volumes": [{"name": "a", "secret": {"secretName": ""}}]})),
        &["spec.volumes[0].secret.secretName: Required value"],
    );
    check(
        &spec(json!({"volumes": [{"name": "a", "configMap": {"name": "x", "defaultMode": 512}}]})),
        &[
            "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ],
    );
    check(
        &spec(
            json!({"volumes": [{"name": "a", "configMap": {"name": "x", "items": [{"key": "k", "path": "../a"}]}}]}),
        ),
        &["spec.volumes[0].configMap.items[0].path: Invalid value: \"../a\": must not contain '..'"],
    );
    check(
        &spec(json!({"volumes": [{"name": "a", "downwardAPI": {"items": [{"path": "a"}]}}]})),
        &["spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"],
    );
    check(
        &spec(
            json!({"serviceAccountName": "x", "volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 10}}]}}]}),
        ),
        &[
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a \
           duration less than 10 minutes",
        ],
    );
    check(
        &spec(
            json!({"volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
        ),
        &[
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is \
         not set",
        ],
    );
    check(
        &spec(json!({"volumes": [{"name": "a", "nfs": {"server": "s", "path": "x"}}]})),
        &["spec.volumes[0].nfs.path: Invalid value: \"x\": must be an absolute path"],
    );
}

#[test]
fn probes_resources_and_security() {
    check(
        &container(json!({"livenessProbe": {}})),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check(
        &container(json!({"livenessProbe": {"exec": {"command": []}}})),
        &["spec.containers[0].livenessProbe.exec.command: Required value"],
    );
    check(
        &container(json!({"livenessProbe": {"httpGet": {"port": 0}}})),
        &[
            "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        &container(json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}})),
        &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    );
    check(
        &container(json!({"readinessProbe": {"tcpSocket": {"port": 1}, "exec": {"command": ["x"]}}})),
        &["spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
    );
    check(
        &container(json!({"readinessProbe": {"tcpSocket": {"port": 1}, "timeoutSeconds": -1}})),
        &[
            "spec.containers[0].readinessProbe.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    check(
        &container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        &container(json!({"resources": {"limits": {"cpus": "1"}}})),
        &[
            "spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
        ],
    );
    check(
        &container(json!({"resources": {"requests": {"example.com/gpu": "1"}}})),
        &[
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ],
    );
    check(
        &container(json!({"resources": {"limits": {"memory": "-1"}, "requests": {"memory": "-1"}}})),
        &[
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check(
        &container(json!({"securityContext": {"runAsUser": -1}})),
        &[
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ],
    );
    check(
        &container(json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}})),
        &[
            "spec.containers[0].securityContext: Invalid value: {\"privileged\":true,\"allowPrivilegeEscalation\":false}: cannot \
         set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    check(
        &container(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}})),
        &[
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is \
         Localhost",
        ],
    );
    check(
        &spec(json!({"securityContext": {"sysctls": [{"name": "a_$b", "value": "1"}]}})),
        &[
            "spec.securityContext.sysctls[0].name: Invalid value: \"a_$b\": must have at most 253 characters and match regex \
         ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ],
    );
    check(
        &spec(json!({"hostUsers": false, "hostPID": true})),
        &["spec.HostPID: Forbidden: when `hostUsers` is false"],
    );
}

#[test]
fn the_pod_itself() {
    check(
        &spec(json!({"restartPolicy": "Sometimes"})),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        &spec(json!({"dnsPolicy": "Sometimes"})),
        &[
            "spec.dnsPolicy: Unsupported value: \"Sometimes\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \
         \"Default\", \"None\"",
        ],
    );
    check(
        &spec(json!({"dnsPolicy": "None"})),
        &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    check(
        &spec(json!({"dnsConfig": {"nameservers": ["1.1.1", "2.2.2.2"]}})),
        &[
            "spec.dnsConfig.nameservers[0]: Invalid value: \"1.1.1\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        &spec(json!({"activeDeadlineSeconds": 0})),
        &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    check(
        &spec(json!({"hostname": "a.b"})),
        &["spec.hostname: Invalid value: \"a.b\": must not contain dots"],
    );
    check(
        &spec(
            json!({"hostNetwork": true, "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 1, "hostPort": 2}]}]}),
        ),
        &[
            "spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true",
        ],
    );
    check(
        &spec(json!({"nodeName": "n", "schedulingGates": [{"name": "g"}]})),
        &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
    );
    check(
        &spec(json!({"hostAliases": [{"ip": "999.1.1.1"}]})),
        &[
            "spec.hostAliases[0].ip: Invalid value: \"999.1.1.1\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        &spec(json!({"preemptionPolicy": "Maybe"})),
        &[
            "spec.preemptionPolicy: Unsupported value: \"Maybe\": supported values: \"PreemptLowerPriority\", \"Never\"",
        ],
    );
}

#[test]
fn scheduling() {
    check(
        &spec(json!({"tolerations": [{"key": "k", "operator": "Is"}]})),
        &["spec.tolerations[0].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\""],
    );
    check(
        &spec(json!({"tolerations": [{"operator": "Equal"}]})),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \
         \"match all values and all keys\"",
        ],
    );
    check(
        &spec(json!({"tolerations": [{"key": "k", "effect": "NoSchedule", "tolerationSeconds": 3}]})),
        &[
            "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
    check(
        &spec(json!({"nodeSelector": {"a": "b c"}})),
        &[
            "spec.nodeSelector: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric \
         characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  \
         or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    let affinity = |value: Value| spec(json!({"affinity": value}));
    check(
        &affinity(
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
        ),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must \
           have at least one node selector term",
        ],
    );
    check(
        &affinity(
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "k", "operator": "In"}]}]}}}),
        ),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]\
           .values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ],
    );
    check(
        &affinity(
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k",
            "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}}]}}),
        ),
        &[
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0]\
           .values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ],
    );
    check(
        &affinity(json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 101, "podAffinityTerm": {"topologyKey": "k"}}]}})),
        &[
            "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in \
           the range 1-100",
        ],
    );
    check(
        &spec(
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}]}),
        ),
        &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
    );
}

#[test]
fn metadata() {
    let with = |meta: Value| {
        let mut out = spec(json!({}));
        out["metadata"] = meta;
        out
    };
    check(&with(json!({})), &["metadata.name: Required value: name or generateName is required"]);
    check(
        &with(json!({"name": "Web"})),
        &[
            "metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
         characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check(&with(json!({"generateName": "web-"})), &[]);
    check(
        &with(json!({"name": "a", "labels": {"/x": "y"}})),
        &["metadata.labels: Invalid value: \"/x\": prefix part must be non-empty"],
    );
    check(
        &with(json!({"name": "a", "annotations": {"big": "x".repeat(262_145)}})),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check(
        &with(json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]})),
        &[
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion \
         cannot be both set",
        ],
    );
    check(
        &with(
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]}),
        ),
        &["metadata.ownerReferences.name: Invalid value: \"\": must not be empty"],
    );
}

#[test]
fn updates_change_only_what_they_may() {
    let kind = Kind::of("v1", "Pod");
    let old = spec(json!({"tolerations": [{"key": "a", "operator": "Exists"}]}));
    let update = |new: Value, expected: &[&str]| {
        let (_, errors) = kind.update(&old, &new, "");
        let texts: Vec<String> =
            errors.iter().map(|e| e.to_string().lines().next().unwrap_or_default().to_owned()).collect();
        assert_eq!(texts, expected);
    };
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("nginx:2");
    new["spec"]["activeDeadlineSeconds"] = json!(5);
    new["spec"]["tolerations"] =
        json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
    update(new, &[]);
    let mut new = old.clone();
    new["spec"]["containers"][0]["args"] = json!(["x"]);
    update(
        new,
        &["spec: Forbidden: pod updates may not change fields other than \
         `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
         additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
         previously negative)"],
    );
    let mut new = old.clone();
    new["spec"]["tolerations"] = json!([]);
    update(
        new,
        &[
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ],
    );
    let mut new = old.clone();
    new["spec"]["containers"] = json!([{"name": "c", "image": "nginx:1"}, {"name": "d", "image": "x"}]);
    update(new, &["spec.containers: Forbidden: pod updates may not add or remove containers"]);
    let mut new = old.clone();
    new["metadata"]["uid"] = json!("other");
    update(new, &["metadata.uid: Invalid value: \"other\": field is immutable"]);
}

#[test]
fn a_status_update_keeps_the_spec() {
    let kind = Kind::of("v1", "Pod");
    let mut new = spec(json!({}));
    new["spec"]["containers"][0]["image"] = json!("other");
    new["status"] = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]});
    let (doc, errors) = kind.update(&spec(json!({})), &new, "status");
    assert!(errors.is_empty(), "{errors}");
    let out = crate::support::json(&doc);
    assert_eq!(out["spec"]["containers"][0]["image"], "nginx:1");
    assert_eq!(
        out["status"],
        json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "qosClass": "BestEffort"})
    );
    assert_eq!(out["metadata"]["generation"], 1);
    new["status"]["qosClass"] = json!("Guaranteed");
    let (_, errors) = kind.update(&spec(json!({})), &new, "status");
    assert_eq!(errors.aggregate(), "status.qosClass: Invalid value: \"Guaranteed\": field is immutable");
}
