//! What changes in a ConfigMap or Secret is in the pods' volumes within seconds, by the kubelet's own rights.

use keelson_tests::{Cluster, eventually};
use std::time::{Duration, Instant};

const NS: &str = "two-tier";

#[test]
fn changes_reach_volumes_within_seconds() {
    let Some(cluster) = Cluster::find("changes of ConfigMaps and Secrets") else { return };
    cluster.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: told, namespace: {NS}}}\ndata: {{k: old}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: kept, namespace: {NS}}}\nstringData: {{k: old}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: reads, namespace: {NS}}}\nspec:\n  terminationGracePeriodSeconds: 0\n\
         \x20 volumes:\n  - {{name: told, configMap: {{name: told}}}}\n  - {{name: kept, secret: {{secretName: kept}}}}\n\
         \x20 containers:\n  - name: c\n    image: keelson.dev/sample-redis:1\n    command: [sleep, infinity]\n\
         \x20   env: [{{name: TOLD, valueFrom: {{configMapKeyRef: {{name: told, key: k}}}}}}]\n\
         \x20   volumeMounts:\n    - {{name: told, mountPath: /told}}\n    - {{name: kept, mountPath: /kept}}\n"
    ));
    cluster.kubectl(&["-n", NS, "wait", "--for=condition=Ready", "pod/reads", "--timeout=60s"]).ok();
    let seen = || {
        cluster
            .kubectl(&["-n", NS, "exec", "reads", "--", "sh", "-c", "cat /told/k /kept/k; echo $TOLD"])
            .ok()
    };
    assert_eq!(seen(), "oldoldold\n");
    let begun = Instant::now();
    for (kind, patch) in
        [("configmap/told", r#"{"data":{"k":"new"}}"#), ("secret/kept", r#"{"stringData":{"k":"new"}}"#)]
    {
        cluster.kubectl(&["-n", NS, "patch", kind, "-p", patch]).ok();
    }
    // Far less than a resync, which is a minute at least.
    eventually(Duration::from_secs(10), "new values", || match seen() {
        text if text == "newnewold\n" => Ok(()),
        text => Err(text),
    });
    println!("both changes were seen after {:.1?}", begun.elapsed());
    // A ConfigMap that goes leaves the files as they were.
    cluster.kubectl(&["-n", NS, "delete", "configmap", "told"]).ok();
    assert_eq!(seen(), "newnewold\n");
    cluster.kubectl(&["-n", NS, "delete", "secret/kept", "pod/reads", "--now"]).ok();
}
