//! Scheduler and controllers against the real API server.

mod certificates;
mod fixture;
mod protection;
mod tokens;

use fixture::{Cluster, until};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image,
            "ports": [{"name": "web", "containerPort": 8080}]}]}}}})
}

async fn complete(cluster: &Cluster, name: &str, replicas: i32) -> Deployment {
    until(&format!("deployment {name} with {replicas} available"), || async {
        let d = cluster.api::<Deployment>("default").get(name).await.unwrap();
        let status = d.status.clone().unwrap_or_default();
        let done = status.updated_replicas.unwrap_or(0) == replicas
            && status.available_replicas.unwrap_or(0) == replicas
            && status.replicas.unwrap_or(0) == replicas
            && status.observed_generation == d.metadata.generation;
        done.then_some(d)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_out_scales_rolls_back_and_goes() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>("default", deployment("web", 3, "a")).await;
    complete(&cluster, "web", 3).await;
    let api = cluster.api::<Deployment>("default");
    let merge = |patch: Value| Patch::Merge(patch);

    // Rolling update.
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    api.patch("web", &PatchParams::default(), &Patch::Strategic(image("b"))).await.unwrap();
    let d = complete(&cluster, "web", 3).await;
    assert_eq!(d.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"], "2");
    let pods = cluster.api::<Pod>("default");
    until("only pods of the new template", || async {
        let list = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items;
        let new = |p: &Pod| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("b");
        (list.len() == 3 && list.iter().all(new)).then_some(())
    })
    .await;

    // Scale, and a pod that was deleted comes back.
    api.patch("web", &PatchParams::default(), &merge(json!({"spec": {"replicas": 5}}))).await.unwrap();
    complete(&cluster, "web", 5).await;
    let victim = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items.remove(0).metadata;
    pods.delete(victim.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    until("the deleted pod's successor", || async {
        let list = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items;
        (list.len() == 5 && list.iter().all(|p| p.metadata.uid != victim.uid)).then_some(())
    })
    .await;

    // Back to the first template: its old set is taken again.
    api.patch("web", &PatchParams::default(), &Patch::Strategic(image("a"))).await.unwrap();
    let d = complete(&cluster, "web", 5).await;
    assert_eq!(d.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"], "3");
    let sets = cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 2);

    // Idle is idle: when all is settled nothing is written any more.
    cluster.quiet().await;

    // Deletion takes everything with it.
    api.delete("web", &DeleteParams::background()).await.unwrap();
    until("sets and pods to be collected", || async {
        let sets =
            cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.unwrap().items.len();
        let left = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items.len();
        (sets == 0 && left == 0).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_get_what_belongs_in_them_and_are_emptied() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    until("the default service account", || async {
        cluster.api::<ServiceAccount>("team").get_opt("default").await.unwrap()
    })
    .await;
    let ca = until("the root CA", || async {
        cluster.api::<ConfigMap>("team").get_opt("kube-root-ca.crt").await.unwrap()
    })
    .await;
    assert!(ca.data.unwrap()["ca.crt"].starts_with("-----BEGIN CERTIFICATE-----"));
    // It is made again when it is changed or deleted.
    cluster.api::<ConfigMap>("team").delete("kube-root-ca.crt", &DeleteParams::default()).await.unwrap();
    until("the root CA again", || async {
        cluster.api::<ConfigMap>("team").get_opt("kube-root-ca.crt").await.unwrap()
    })
    .await;
    cluster.create::<Deployment>("team", deployment("web", 2, "a")).await;
    let pods = cluster.api::<Pod>("team");
    until("two pods", || async {
        (pods.list(&ListParams::default()).await.unwrap().items.len() == 2).then_some(())
    })
    .await;
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    until("the namespace to be gone", || async {
        namespaces.get_opt("team").await.unwrap().is_none().then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_endpoints_and_slices() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>("default", deployment("web", 2, "a")).await;
    cluster
        .create::<Service>("default", json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]}}))
        .await;
    let slices = cluster.api::<EndpointSlice>("default");
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let slice = until("two ready endpoints", || async {
        let list = slices.list(&of_web).await.unwrap().items;
        let ready = |s: &EndpointSlice| {
            s.endpoints.iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
        };
        list.into_iter().find(|s| ready(s) == 2)
    })
    .await;
    assert_eq!(slice.ports.unwrap()[0].port, Some(8080));
    let endpoints = until("endpoints", || async {
        let e = cluster.api::<Endpoints>("default").get_opt("web").await.unwrap()?;
        (e.subsets.as_ref()?.first()?.addresses.as_ref()?.len() == 2).then_some(e)
    })
    .await;
    assert_eq!(endpoints.subsets.unwrap()[0].ports.as_ref().unwrap()[0].port, 8080);
    cluster.quiet().await;
    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    until("slices and endpoints to go with their service", || async {
        let slices = slices.list(&of_web).await.unwrap().items.len();
        let endpoints = cluster.api::<Endpoints>("default").get_opt("web").await.unwrap();
        (slices == 0 && endpoints.is_none()).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_to_their_end() {
    let cluster = Cluster::start().await;
    let job = |name: &str, exit: i32| {
        json!({"metadata": {"name": name}, "spec": {"completions": 3, "parallelism": 2, "backoffLimit": 0, "template": {
        "metadata": {"annotations": {"test/exit-code": exit.to_string()}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
    };
    cluster.create::<Job>("default", job("good", 0)).await;
    cluster.create::<Job>("default", job("bad", 1)).await;
    let jobs = cluster.api::<Job>("default");
    let ends = |name: &'static str, kind: &'static str| {
        let jobs = jobs.clone();
        until("the job's end", move || {
            let jobs = jobs.clone();
            async move {
                let status = jobs.get(name).await.unwrap().status?;
                let ended = status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True");
                ended.then_some(status)
            }
        })
    };
    let good = ends("good", "Complete").await;
    assert_eq!((good.succeeded, good.failed, good.active), (Some(3), None, None));
    let bad = ends("bad", "Failed").await;
    assert_eq!(
        bad.conditions.unwrap().iter().find(|c| c.type_ == "Failed").unwrap().reason.as_deref(),
        Some("BackoffLimitExceeded")
    );
    cluster.quiet().await;
    jobs.delete("good", &DeleteParams::foreground()).await.unwrap();
    let pods = cluster.api::<Pod>("default");
    until("the job and its pods to go", || async {
        let left = pods.list(&ListParams::default().labels("job-name=good")).await.unwrap().items.len();
        (left == 0 && jobs.get_opt("good").await.unwrap().is_none()).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_nowhere_says_so_and_is_placed_when_it_does() {
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>("default");
    let pod = |name: &str, cpu: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}});
    until("the default service account", || async {
        cluster.api::<ServiceAccount>("default").get_opt("default").await.unwrap()
    })
    .await;
    cluster.create::<Pod>("default", pod("first", "1500m")).await;
    until("the first pod to be bound", || async { pods.get("first").await.unwrap().spec?.node_name }).await;
    cluster.create::<Pod>("default", pod("second", "1")).await;
    let message = until("the condition", || async {
        let status = pods.get("second").await.unwrap().status?;
        status.conditions?.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?.message
    })
    .await;
    assert_eq!(
        message,
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
    let events: Api<Event> = cluster.api("default");
    until("the event", || async {
        let list = events.list(&ListParams::default()).await.unwrap().items;
        list.into_iter().find(|e| {
            e.reason.as_deref() == Some("FailedScheduling") && e.message.as_deref() == Some(&message)
        })
    })
    .await;
    cluster.quiet().await;
    pods.delete("first", &DeleteParams::default()).await.unwrap();
    until("the second pod to be bound", || async { pods.get("second").await.unwrap().spec?.node_name }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_get_ranges_and_replication_controllers_keep_pods() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let range = until("the node's range", || async { nodes.get("n1").await.unwrap().spec?.pod_cidr }).await;
    assert_eq!(range, "10.244.0.0/24");
    cluster
        .create::<ReplicationController>("default", json!({"metadata": {"name": "rc"}, "spec": {"replicas": 2, "selector": {"app": "rc"},
            "template": {"metadata": {"labels": {"app": "rc"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
        .await;
    let api = cluster.api::<ReplicationController>("default");
    until("two available replicas", || async {
        (api.get("rc").await.unwrap().status?.available_replicas? == 2).then_some(())
    })
    .await;
    // Orphaned, its pods stay.
    api.delete(
        "rc",
        &DeleteParams {
            propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
            ..DeleteParams::default()
        },
    )
    .await
    .unwrap();
    until("the controller to be gone", || async { api.get_opt("rc").await.unwrap().is_none().then_some(()) })
        .await;
    let pods =
        cluster.api::<Pod>("default").list(&ListParams::default().labels("app=rc")).await.unwrap().items;
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|p| p.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_sets_and_stateful_sets_roll_and_cron_jobs_run() {
    let cluster = Cluster::start().await;
    let template = |app: &str, image: &str| json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}});
    cluster
        .create::<DaemonSet>("default", json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template("d", "a")}}))
        .await;
    cluster
        .create::<StatefulSet>(
            "default",
            json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "template": template("db", "a")}}),
        )
        .await;
    cluster
        .create::<CronJob>("default", json!({"metadata": {"name": "c"}, "spec": {"schedule": "@every 1s", "jobTemplate": {"spec": {"template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}))
        .await;
    let daemons = cluster.api::<DaemonSet>("default");
    let sets = cluster.api::<StatefulSet>("default");
    let d_done = |updated: i32| {
        let daemons = daemons.clone();
        until("the daemon set", move || {
            let daemons = daemons.clone();
            async move {
                let d = daemons.get("d").await.unwrap();
                let status = d.status?;
                let current = status.observed_generation == d.metadata.generation;
                (current
                    && status.number_available == Some(1)
                    && status.updated_number_scheduled == Some(updated))
                .then_some(())
            }
        })
    };
    let s_done = || {
        let sets = sets.clone();
        until("the stateful set", move || {
            let sets = sets.clone();
            async move {
                let s = sets.get("db").await.unwrap();
                let status = s.status?;
                let settled = status.current_revision == status.update_revision
                    && status.observed_generation == s.metadata.generation;
                (settled && status.ready_replicas == Some(2) && status.updated_replicas == Some(2))
                    .then_some(())
            }
        })
    };
    d_done(1).await;
    s_done().await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}}});
    daemons.patch("d", &PatchParams::default(), &Patch::Strategic(&image)).await.unwrap();
    sets.patch("db", &PatchParams::default(), &Patch::Strategic(&image)).await.unwrap();
    d_done(1).await;
    s_done().await;
    let pods = cluster.api::<Pod>("default");
    for name in ["db-0", "db-1"] {
        assert_eq!(pods.get(name).await.unwrap().spec.unwrap().containers[0].image.as_deref(), Some("b"));
    }
    let jobs = cluster.api::<Job>("default");
    until("a job of the cron job to complete", || async {
        let list = jobs.list(&ListParams::default()).await.unwrap().items;
        list.into_iter().find(|j| j.status.as_ref().is_some_and(|s| s.succeeded == Some(1)))
    })
    .await;
    until("the cron job to note it", || async {
        cluster.api::<CronJob>("default").get("c").await.unwrap().status?.last_successful_time
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_given_up_and_its_pods_go_elsewhere() {
    let cluster = Cluster::start_with(std::time::Duration::from_secs(3)).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    // Tolerating an unreachable node for no time at all: gone as soon as it is given up.
    let mut web = deployment("web", 1, "a");
    web["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]);
    cluster.create::<Deployment>("default", web).await;
    complete(&cluster, "web", 1).await;
    cluster.add_node("n2").await;
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = cluster.api("kube-node-lease");
    let renewing = tokio::spawn(async move {
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(500));
        let mut count = 0;
        loop {
            interval.tick().await;
            count += 1;
            let time = format!("2026-01-01T00:00:00.{:06}Z", count);
            let patch = json!({"spec": {"renewTime": time}});
            leases.patch("n2", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        }
    });
    let silent = until("the silent node to be given up", || async {
        let node = nodes.get("n1").await.unwrap();
        let ready = node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")?;
        let tainted = node.spec.as_ref()?.taints.as_ref()?.len() == 2;
        (ready.status == "Unknown" && tainted).then_some(node)
    })
    .await;
    let ready = silent.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
    let taints = silent.spec.unwrap().taints.unwrap();
    assert!(taints.iter().all(|t| t.key == "node.kubernetes.io/unreachable"));
    let pods = cluster.api::<Pod>("default");
    until("the pod on the other node", || async {
        let list = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items;
        let on = |p: &Pod| p.spec.as_ref().unwrap().node_name.clone();
        (list.len() == 1 && on(&list[0]).as_deref() == Some("n2")).then_some(())
    })
    .await;
    let healthy = nodes.get("n2").await.unwrap();
    assert!(healthy.spec.unwrap().taints.is_none_or(|t| t.is_empty()));
    renewing.abort();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_more_important_pod_takes_the_place_of_a_lesser_one() {
    let cluster = Cluster::start().await;
    let classes: Api<k8s_openapi::api::scheduling::v1::PriorityClass> = Api::all(cluster.client.clone());
    let class = serde_json::from_value(json!({"metadata": {"name": "high"}, "value": 1000})).unwrap();
    classes.create(&PostParams::default(), &class).await.unwrap();
    let pods = cluster.api::<Pod>("default");
    until("the default service account", || async {
        cluster.api::<ServiceAccount>("default").get_opt("default").await.unwrap()
    })
    .await;
    let pod = |name: &str, class: Value| {
        json!({"metadata": {"name": name}, "spec": {"priorityClassName": class, "containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1500m"}}}]}})
    };
    cluster.create::<Pod>("default", pod("lesser", Value::Null)).await;
    until("the lesser pod to run", || async {
        (pods.get("lesser").await.unwrap().status?.phase? == "Running").then_some(())
    })
    .await;
    until("the class to be known", || async {
        let made: Pod = serde_json::from_value(pod("greater", json!("high"))).unwrap();
        pods.create(&PostParams::default(), &made).await.ok()
    })
    .await;
    let bound = until("the greater pod to be bound", || async {
        let pod = pods.get("greater").await.unwrap();
        pod.spec.as_ref()?.node_name.as_ref()?;
        Some(pod)
    })
    .await;
    assert_eq!(bound.spec.unwrap().priority, Some(1000));
    assert!(pods.get_opt("lesser").await.unwrap().is_none());
    let events: Api<Event> = cluster.api("default");
    until("the event", || async {
        events
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .find(|e| e.reason.as_deref() == Some("Preempted"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_allow_what_availability_allows() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>("default", deployment("web", 3, "a")).await;
    cluster
        .create::<PodDisruptionBudget>(
            "default",
            json!({"metadata": {"name": "web"}, "spec": {"minAvailable": "60%", "selector": {"matchLabels": {"app": "web"}}}}),
        )
        .await;
    let budgets = cluster.api::<PodDisruptionBudget>("default");
    let allowed = |wanted: i32| {
        let budgets = budgets.clone();
        until("the budget", move || {
            let budgets = budgets.clone();
            async move {
                let status = budgets.get("web").await.unwrap().status?;
                (status.disruptions_allowed == wanted
                    && status.expected_pods == 3
                    && status.desired_healthy == 2)
                    .then_some(())
            }
        })
    };
    allowed(1).await;
    // A pod less by hand: none may go until its successor is ready.
    let pods = cluster.api::<Pod>("default");
    let first = pods
        .list(&ListParams::default().labels("app=web"))
        .await
        .unwrap()
        .items
        .remove(0)
        .metadata
        .name
        .unwrap();
    pods.evict(&first, &kube::api::EvictParams::default()).await.unwrap();
    until("the evicted pod to be gone", || async {
        pods.get_opt(&first).await.unwrap().is_none().then_some(())
    })
    .await;
    allowed(1).await;
    cluster.quiet().await;
    cluster.stop().await;
}
