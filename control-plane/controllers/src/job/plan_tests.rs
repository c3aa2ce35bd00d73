//! Job decisions as tables, and whole runs against a small model of the cluster; facts from upstream's
//! `job_controller_test.go`, `pod_failure_policy_test.go`, `success_policy_test.go` and `backoff_utils_test.go`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use keelson_client::projections::{Meta, PodView};
use serde_json::{Value, json};

use super::plan::{Plan, is_finished, plan};
use super::pods::{Wanted, pod as make_pod};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn job(spec: Value) -> Job {
    let mut json = json!({"metadata": {"namespace": "ns", "name": "j", "uid": "j", "resourceVersion": "1"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 6, "selector": {"matchLabels": {"job": "j"}},
            "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        json["spec"][key] = value.clone();
    }
    serde_json::from_value(json).unwrap()
}

/// A cluster of one Job: pods as JSON, moved by the test, written by the plan.
struct Model {
    job: Job,
    pods: Vec<Value>,
    now: i64,
    made: usize,
}

impl Model {
    fn new(spec: Value) -> Self {
        Model { job: job(spec), pods: Vec::new(), now: 0, made: 0 }
    }

    fn views(&self) -> Vec<Arc<PodView>> {
        self.pods
            .iter()
            .map(|p| Arc::new(PodView::new(&serde_json::from_value(p.clone()).unwrap())))
            .collect()
    }

    /// One sync; returns the plan after carrying it out.
    fn step(&mut self) -> Plan {
        let plan = plan(&self.job, &self.views(), true, at(self.now));
        for pod in &plan.delete {
            self.delete(&pod.meta.name);
        }
        for wanted in &plan.create {
            self.create(*wanted);
        }
        self.job.status = Some(plan.status.clone());
        for released in &plan.release {
            let pod = self
                .pods
                .iter_mut()
                .find(|p| p["metadata"]["uid"].as_str() == Some(&*released.meta.uid))
                .unwrap();
            pod["metadata"]["finalizers"] = json!([]);
        }
        plan
    }

    /// Syncs until nothing changes; the number of syncs is bounded.
    fn settle(&mut self) {
        for _ in 0..20 {
            let before = (self.job.status.clone(), self.pods.clone());
            self.step();
            if (self.job.status.clone(), self.pods.clone()) == before {
                return;
            }
        }
        panic!("does not settle: {:?}", self.job.status);
    }

    fn create(&mut self, wanted: Wanted) {
        self.made += 1;
        let mut pod =
            serde_json::to_value(make_pod(&self.job, &Meta::new(&self.job.metadata), wanted)).unwrap();
        pod["metadata"]["name"] = json!(format!("p{}", self.made));
        pod["metadata"]["uid"] = json!(format!("p{}", self.made));
        pod["metadata"]["creationTimestamp"] =
            serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.now))).unwrap();
        pod["status"] = json!({"phase": "Running"});
        self.pods.push(pod);
    }

    fn pod(&mut self, name: &str) -> &mut Value {
        self.pods.iter_mut().find(|p| p["metadata"]["name"] == name).unwrap()
    }

    fn end(&mut self, name: &str, phase: &str, exit_code: i32) {
        let time =
            serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.now))).unwrap();
        self.pod(name)["status"] = json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": exit_code, "finishedAt": time}}}]});
    }

    /// Deleted pods go at once, keeping those with a finalizer.
    fn delete(&mut self, name: &str) {
        let time =
            serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.now))).unwrap();
        self.pod(name)["metadata"]["deletionTimestamp"] = time;
    }

    fn sweep(&mut self) {
        self.pods.retain(|p| {
            p["metadata"]["deletionTimestamp"].is_null() || p["metadata"]["finalizers"] != json!([])
        });
    }

    /// `active/succeeded/failed` and the conditions that are true.
    fn summary(&self) -> String {
        let status = self.job.status.clone().unwrap_or_default();
        let n = |n: Option<i32>| n.unwrap_or(0);
        let mut text = format!("{}/{}/{}", n(status.active), n(status.succeeded), n(status.failed));
        for condition in status.conditions.iter().flatten().filter(|c| c.status == "True") {
            text.push_str(&format!(
                " {}:{}",
                condition.type_,
                condition.reason.as_deref().unwrap_or_default()
            ));
        }
        text
    }
}

#[test]
fn runs_to_completion_counting_each_pod_once() {
    let mut m = Model::new(json!({}));
    m.settle();
    assert_eq!((m.summary().as_str(), m.made), ("2/0/0", 2));
    m.end("p1", "Succeeded", 0);
    m.settle();
    assert_eq!((m.summary().as_str(), m.made), ("2/1/0", 3));
    m.end("p2", "Succeeded", 0);
    m.end("p3", "Succeeded", 0);
    m.settle();
    assert_eq!(m.summary(), "0/3/0 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached");
    assert!(is_finished(&m.job));
    let status = serde_json::to_value(m.job.status.as_ref().unwrap()).unwrap();
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert!(status["completionTime"].is_string());
    // Nothing of it is held any more.
    assert!(m.pods.iter().all(|p| p["metadata"]["finalizers"] == json!([])));
}

#[test]
fn a_uid_is_in_the_status_before_the_finalizer_goes() {
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1}));
    m.settle();
    m.end("p1", "Succeeded", 0);
    let first = m.step();
    assert_eq!(first.release.len(), 1);
    assert_eq!(first.status.uncounted_terminated_pods.unwrap().succeeded.unwrap(), ["p1"]);
    assert_eq!(first.status.succeeded, None, "not counted before the finalizer is gone");
    // The finalizer is gone and the pod with it: the uid in the status still counts, once.
    m.pods.clear();
    m.settle();
    assert_eq!(m.summary(), "0/1/0 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached");
}

#[test]
fn failures_back_off_and_end_the_job() {
    let mut m = Model::new(json!({"completions": 1, "parallelism": 1, "backoffLimit": 2}));
    m.settle();
    for (n, wait) in [(1, 10), (2, 20)] {
        m.end(&format!("p{n}"), "Failed", 1);
        m.settle();
        assert_eq!(m.made, n, "waits");
        assert_eq!(m.step().again.unwrap().as_secs(), wait);
        m.now += wait as i64;
        m.settle();
        assert_eq!(m.made, n + 1);
    }
    m.end("p3", "Failed", 1);
    m.settle();
    assert_eq!(m.summary(), "0/0/3 FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded");
}

#[test]
fn the_deadline_ends_running_pods() {
    let mut m = Model::new(json!({"activeDeadlineSeconds": 30}));
    m.settle();
    assert_eq!(m.step().again.unwrap().as_secs(), 30);
    m.now = 30;
    let plan = m.step();
    assert_eq!(plan.delete.len(), 2);
    assert!(!is_finished(&m.job), "its pods still run");
    m.settle();
    m.sweep();
    m.settle();
    assert_eq!(m.summary(), "0/0/2 FailureTarget:DeadlineExceeded Failed:DeadlineExceeded");
}

#[test]
fn suspending_deletes_and_resuming_restarts_the_clock() {
    let mut m = Model::new(json!({"suspend": true}));
    m.settle();
    assert_eq!((m.summary().as_str(), m.made), ("0/0/0 Suspended:JobSuspended", 0));
    assert_eq!(m.job.status.as_ref().unwrap().start_time, None);
    m.job.spec.as_mut().unwrap().suspend = Some(false);
    m.now = 100;
    m.settle();
    assert_eq!((m.summary().as_str(), m.made), ("2/0/0", 2));
    assert_eq!(m.job.status.as_ref().unwrap().start_time.as_ref().unwrap().0, at(100));
    m.job.spec.as_mut().unwrap().suspend = Some(true);
    let plan = m.step();
    assert_eq!(plan.delete.len(), 2);
    assert_eq!(plan.events[0].1, "Suspended");
}

#[test]
fn indexes_are_filled_in_order_and_remembered() {
    let mut m = Model::new(json!({"completionMode": "Indexed", "completions": 5, "parallelism": 2}));
    m.settle();
    let index = |p: &Value| {
        p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().unwrap().to_owned()
    };
    assert_eq!(m.pods.iter().map(index).collect::<Vec<_>>(), ["0", "1"]);
    let first = m.pods[0].clone();
    assert_eq!(first["metadata"]["generateName"], "j-0-");
    assert_eq!(first["spec"]["hostname"], "j-0");
    assert_eq!(first["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    m.end("p2", "Succeeded", 0);
    m.settle();
    assert_eq!(index(&m.pods[2]), "2");
    m.end("p3", "Succeeded", 0);
    m.settle();
    assert_eq!(m.job.status.as_ref().unwrap().completed_indexes.as_deref(), Some("1,2"));
    m.end("p1", "Failed", 1);
    m.now = 10;
    m.settle();
    // Pods in order of making: p4 has index 3, and index 0 is made again.
    assert_eq!(index(&m.pods[4]), "0");
}

#[test]
fn indexes_fail_alone() {
    let mut m = Model::new(
        json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": null, "backoffLimitPerIndex": 1}),
    );
    m.settle();
    m.end("p2", "Succeeded", 0);
    m.end("p1", "Failed", 1);
    m.settle();
    m.now = 10;
    m.settle();
    assert_eq!(m.made, 3);
    assert_eq!(m.pods[2]["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    m.end("p3", "Failed", 1);
    m.settle();
    assert_eq!(m.job.status.as_ref().unwrap().failed_indexes.as_deref(), Some("0"));
    assert_eq!(m.summary(), "0/1/2 FailureTarget:FailedIndexes Failed:FailedIndexes");
}

#[test]
fn failure_policies() {
    let rules = |action: &str| {
        json!({"completions": 1, "parallelism": 1, "podFailurePolicy": {"rules": [
        {"action": action, "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}})
    };
    let mut m = Model::new(rules("FailJob"));
    m.settle();
    m.end("p1", "Failed", 42);
    m.settle();
    assert_eq!(m.summary(), "0/0/1 FailureTarget:PodFailurePolicy Failed:PodFailurePolicy");
    let message = m.job.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].message.clone().unwrap();
    assert_eq!(
        message,
        "Container c for pod ns/p1 failed with exit code 42 matching FailJob rule at index 0"
    );
    let mut m = Model::new(rules("Count"));
    m.settle();
    m.end("p1", "Failed", 1);
    m.pod("p1")["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
    m.settle();
    assert_eq!(m.summary(), "0/0/0", "an ignored failure does not count");
}

#[test]
fn success_policies() {
    let mut m = Model::new(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4,
        "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}}));
    m.settle();
    m.end("p2", "Succeeded", 0);
    let plan = m.step();
    assert_eq!(plan.delete.len(), 3);
    m.settle();
    m.sweep();
    m.settle();
    assert_eq!(m.summary(), "0/1/0 SuccessCriteriaMet:SuccessPolicy Complete:SuccessPolicy");
}

#[test]
fn work_queues_stop_making_pods_after_the_first_success() {
    let mut m = Model::new(json!({"completions": null, "parallelism": 3}));
    m.settle();
    assert_eq!(m.made, 3);
    m.end("p1", "Succeeded", 0);
    m.settle();
    assert_eq!((m.made, m.summary().as_str()), (3, "2/1/0"));
    m.end("p2", "Failed", 1);
    m.end("p3", "Succeeded", 0);
    m.settle();
    assert_eq!(m.summary(), "0/2/1 SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached");
}

#[test]
fn less_parallelism_deletes_and_nothing_is_made_while_the_cache_is_behind() {
    let mut m = Model::new(json!({"parallelism": 3}));
    assert!(plan(&m.job, &[], false, at(0)).create.is_empty());
    m.settle();
    m.job.spec.as_mut().unwrap().parallelism = Some(1);
    assert_eq!(m.step().delete.len(), 2);
}

/// Random ends, crashes between the writes of a step, and pods that are removed as soon as nothing holds them: every
/// end is counted exactly once.
#[test]
fn every_end_is_counted_once_whatever_crashes() {
    for seed in 1..=200u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut m = Model::new(json!({"completions": 8, "parallelism": 3, "backoffLimit": 1000}));
        let (mut succeeded, mut failed, mut rounds) = (0, 0, 0);
        while !is_finished(&m.job) {
            rounds += 1;
            assert!(rounds < 2000, "seed {seed} does not end: {}", m.summary());
            m.now += 700;
            let running: Vec<String> = m
                .pods
                .iter()
                .filter(|p| p["status"]["phase"] == "Running")
                .map(|p| p["metadata"]["name"].as_str().unwrap().to_owned())
                .collect();
            for name in running {
                match random(4) {
                    0 => {
                        m.end(&name, "Succeeded", 0);
                        succeeded += 1;
                    }
                    1 => {
                        m.end(&name, "Failed", 1);
                        failed += 1;
                    }
                    _ => {}
                }
            }
            let pods_before = m.pods.clone();
            let plan = m.step();
            // A crash after the status was written: some finalizers are still there.
            for released in &plan.release {
                if random(2) == 0 {
                    let uid = &*released.meta.uid;
                    let before =
                        pods_before.iter().find(|p| p["metadata"]["uid"].as_str() == Some(uid)).unwrap();
                    let pod = m.pods.iter_mut().find(|p| p["metadata"]["uid"].as_str() == Some(uid)).unwrap();
                    pod["metadata"]["finalizers"] = before["metadata"]["finalizers"].clone();
                }
            }
            // What nothing holds may vanish at any time; successes and failures are known from the status alone.
            m.pods.retain(|p| {
                p["status"]["phase"] == "Running"
                    || p["metadata"]["finalizers"] != json!([])
                    || random(2) == 0
            });
        }
        let status = m.job.status.clone().unwrap();
        assert_eq!(
            (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0)),
            (succeeded, failed),
            "seed {seed}"
        );
        assert_eq!(succeeded, 8, "seed {seed}: no pod more than needed");
    }
}
