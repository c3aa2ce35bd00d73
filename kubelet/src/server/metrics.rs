//! `/metrics` and `/metrics/resource` in Prometheus' text format, under upstream's names.
use super::{Body, Server, respond};
use crate::plan::observed::RunState;
use crate::plan::{pod, qos};
use http::{Response, StatusCode};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Text of one family: a help line, a type line, samples.
struct Family(String);

impl Family {
    fn new(name: &str, kind: &str, help: &str) -> Family {
        Family(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"))
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let quoted: Vec<String> = labels
            .iter()
            .map(|(k, v)| {
                format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
            })
            .collect();
        let labels = if quoted.is_empty() { String::new() } else { format!("{{{}}}", quoted.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

impl Server {
    pub(super) fn metrics(&self) -> Response<Body> {
        let views = self.workers.views();
        let mut out = String::new();
        let mut gauge = |name: &str, help: &str, samples: &[(Vec<(&str, &str)>, f64)]| {
            let mut family = Family::new(name, "gauge", help);
            for (labels, value) in samples {
                family.sample(name, labels, *value);
            }
            out.push_str(&family.0);
        };
        let running = views.iter().filter(|v| v.observed.sandboxes.iter().any(|s| s.ready)).count();
        gauge(
            "kubelet_running_pods",
            "Number of pods that have a running pod sandbox",
            &[(vec![], running as f64)],
        );
        let count = |state: RunState| {
            views.iter().flat_map(|v| &v.observed.containers).filter(|c| c.state == state).count() as f64
        };
        gauge(
            "kubelet_running_containers",
            "Number of containers currently running",
            &[
                (vec![("container_state", "created")], count(RunState::Created)),
                (vec![("container_state", "exited")], count(RunState::Exited)),
                (vec![("container_state", "running")], count(RunState::Running)),
                (vec![("container_state", "unknown")], count(RunState::Unknown)),
            ],
        );
        let name = &self.kubelet.config.node_name;
        gauge("kubelet_node_name", "The node's name. The count is always 1.", &[(vec![("node", name)], 1.0)]);
        let up = f64::from(u8::from(self.kubelet.runtime_up.load(Ordering::Relaxed)));
        gauge(
            "keelson_kubelet_runtime_up",
            "Whether the container runtime answered last time",
            &[(vec![], up)],
        );
        gauge("keelson_kubelet_pod_workers", "Pods that have a worker", &[(vec![], views.len() as f64)]);
        respond(StatusCode::OK, KIND, out.into_bytes())
    }

    pub(super) async fn resource_metrics(&self) -> Response<Body> {
        let stats = self.container_stats().await;
        let mut cpu = Family::new(
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
        );
        let mut memory = Family::new(
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set of the container in bytes",
        );
        let mut pod_cpu = Family::new(
            "pod_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the pod in core-seconds",
        );
        let mut pod_memory =
            Family::new("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
        for view in self.workers.views().iter().filter(|view| !view.finished) {
            let (namespace, name) = (pod::namespace(&view.pod), pod::name(&view.pod));
            for container in view.observed.running() {
                let Some(stats) = stats.get(&container.id) else { continue };
                let labels =
                    [("container", container.name.as_str()), ("namespace", namespace), ("pod", name)];
                if let Some(nanos) = stats.cpu.as_ref().and_then(|c| c.usage_core_nano_seconds.as_ref()) {
                    cpu.sample("container_cpu_usage_seconds_total", &labels, nanos.value as f64 / 1e9);
                }
                if let Some(bytes) = stats.memory.as_ref().and_then(|m| m.working_set_bytes.as_ref()) {
                    memory.sample("container_memory_working_set_bytes", &labels, bytes.value as f64);
                }
            }
            let usage = self.kubelet.cgroups.pod_usage(qos::class(&view.pod), pod::uid(&view.pod));
            let labels = [("namespace", namespace), ("pod", name)];
            if let Some(nanos) = usage.cpu_nanos {
                pod_cpu.sample("pod_cpu_usage_seconds_total", &labels, nanos as f64 / 1e9);
            }
            if let Some(bytes) = usage.working_set {
                pod_memory.sample("pod_memory_working_set_bytes", &labels, bytes as f64);
            }
        }
        let node = self.kubelet.cgroups.node_usage();
        let mut node_text = String::new();
        if let Some(nanos) = node.cpu_nanos {
            let name = "node_cpu_usage_seconds_total";
            let mut family =
                Family::new(name, "counter", "Cumulative cpu time consumed by the node in core-seconds");
            family.sample(name, &[], nanos as f64 / 1e9);
            node_text.push_str(&family.0);
        }
        if let Some(bytes) = node.working_set {
            let name = "node_memory_working_set_bytes";
            let mut family = Family::new(name, "gauge", "Current working set of the node in bytes");
            family.sample(name, &[], bytes as f64);
            node_text.push_str(&family.0);
        }
        let text = [cpu.0, memory.0, node_text, pod_cpu.0, pod_memory.0].concat();
        respond(StatusCode::OK, KIND, text.into_bytes())
    }
}
