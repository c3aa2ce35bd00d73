//! What the server fills in and prepares.

use serde_json::json;

use crate::support::{Kind, json as encoded};

#[test]
fn a_pod_gets_upstreams_defaults() {
    let kind = Kind::of("v1", "Pod");
    let (doc, errors) = kind.create(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {
            "serviceAccountName": "default",
            "containers": [{
                "name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
            }],
            "volumes": [
                {"name": "conf", "configMap": {"name": "conf"}}, {"name": "empty"},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ],
        },
    }));
    assert!(errors.is_empty(), "{errors}");
    let out = encoded(&doc);
    assert_eq!(
        out["spec"],
        json!({
            "volumes": [
                {"name": "conf", "configMap": {"name": "conf", "defaultMode": 420}}, {"name": "empty", "emptyDir": {}},
                {"name": "token", "projected": {
                    "sources": [{"serviceAccountToken": {"expirationSeconds": 3600, "path": "token"}}], "defaultMode": 420,
                }},
            ],
            "containers": [{
                "name": "c", "image": "nginx", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "resources": {
                    "limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1", "memory": "64Mi"},
                },
                "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
                "livenessProbe": {
                    "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                    "successThreshold": 1, "failureThreshold": 3,
                },
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "imagePullPolicy": "Always",
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default", "securityContext": {},
            "schedulerName": "default-scheduler", "enableServiceLinks": true,
        })
    );
    assert_eq!(out["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    assert_eq!(out["metadata"]["generation"], 1);
}
