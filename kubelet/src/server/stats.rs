//! `/stats/summary`: what the kernel and the runtime measure. A value that nobody measures is left out.
use super::{Body, Server, json};
use crate::cri::api;
use crate::host::cgroups::Usage;
use crate::host::mounts::{FsUsage, fs_usage};
use crate::plan::{pod, qos};
use http::Response;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

pub(super) fn at(nanos: i64) -> Value {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).ok().filter(|_| nanos > 0);
    time.map_or(Value::Null, |time| json!(crate::plan::status::seconds(time).to_string()))
}

fn cpu_and_memory(now: &Value, usage: &Usage) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(nanos) = usage.cpu_nanos {
        out.insert("cpu".into(), json!({"time": now, "usageCoreNanoSeconds": nanos}));
    }
    if let Some(bytes) = usage.memory {
        let mut memory = json!({"time": now, "usageBytes": bytes});
        let fields = [("workingSetBytes", usage.working_set), ("rssBytes", usage.rss)];
        for (name, value) in fields {
            if let Some(value) = value {
                memory[name] = json!(value);
            }
        }
        out.insert("memory".into(), memory);
    }
    out
}

fn filesystem(now: &Value, usage: &FsUsage) -> Value {
    json!({"time": now, "capacityBytes": usage.capacity, "availableBytes": usage.available,
        "usedBytes": usage.capacity.saturating_sub(usage.available),
        "inodes": usage.inodes, "inodesFree": usage.inodes_free,
        "inodesUsed": usage.inodes.saturating_sub(usage.inodes_free)})
}

fn container(stats: &api::ContainerStats, started: i64) -> Value {
    let name = stats.attributes.as_ref().and_then(|a| a.metadata.as_ref()).map_or("", |m| m.name.as_str());
    let mut out = json!({"name": name, "startTime": at(started)});
    if let Some(cpu) = &stats.cpu {
        let mut value = json!({"time": at(cpu.timestamp)});
        if let Some(nanos) = &cpu.usage_core_nano_seconds {
            value["usageCoreNanoSeconds"] = json!(nanos.value);
        }
        if let Some(nanos) = &cpu.usage_nano_cores {
            value["usageNanoCores"] = json!(nanos.value);
        }
        out["cpu"] = value;
    }
    if let Some(memory) = &stats.memory {
        let mut value = json!({"time": at(memory.timestamp)});
        let fields = [
            ("workingSetBytes", &memory.working_set_bytes),
            ("availableBytes", &memory.available_bytes),
            ("usageBytes", &memory.usage_bytes),
            ("rssBytes", &memory.rss_bytes),
            ("pageFaults", &memory.page_faults),
            ("majorPageFaults", &memory.major_page_faults),
        ];
        for (name, field) in fields {
            // What the runtime does not measure it tells as nothing, or as 0 for the total.
            if let Some(field) = field.as_ref().filter(|f| name != "usageBytes" || f.value > 0) {
                value[name] = json!(field.value);
            }
        }
        out["memory"] = value;
    }
    if let Some(layer) = &stats.writable_layer {
        let mut value = json!({"time": at(layer.timestamp)});
        if let Some(used) = &layer.used_bytes {
            value["usedBytes"] = json!(used.value);
        }
        if let Some(used) = &layer.inodes_used {
            value["inodesUsed"] = json!(used.value);
        }
        out["rootfs"] = value;
    }
    out
}

impl Server {
    pub(super) async fn container_stats(&self) -> HashMap<String, api::ContainerStats> {
        let stats = self.kubelet.cri.container_stats().await.unwrap_or_default();
        stats.into_iter().filter_map(|s| Some((s.attributes.as_ref()?.id.clone(), s))).collect()
    }

    pub(super) async fn summary(&self) -> Response<Body> {
        let now = json!(crate::plan::status::seconds(Timestamp::now()).to_string());
        let stats = self.container_stats().await;
        let mut node = cpu_and_memory(&now, &self.kubelet.cgroups.node_usage());
        node.insert("nodeName".into(), json!(self.kubelet.config.node_name));
        node.insert("startTime".into(), at(self.kubelet.started_at));
        if let Ok(usage) = fs_usage(&self.kubelet.config.root) {
            node.insert("fs".into(), filesystem(&now, &usage));
        }
        if let Some(running) = crate::node::info::pids_now() {
            let limit = crate::node::info::pid_limit();
            node.insert("rlimit".into(), json!({"time": now, "maxpid": limit, "curproc": running}));
        }
        if let Some(available) = crate::node::info::memory_available()
            && let Some(memory) = node.get_mut("memory")
        {
            memory["availableBytes"] = json!(available);
        }
        let pods: Vec<Value> = self
            .workers
            .views()
            .iter()
            .filter(|view| !view.finished)
            .map(|view| {
                let usage = self.kubelet.cgroups.pod_usage(qos::class(&view.pod), pod::uid(&view.pod));
                let mut out = cpu_and_memory(&now, &usage);
                let reference = json!({"name": pod::name(&view.pod), "namespace": pod::namespace(&view.pod),
                    "uid": pod::uid(&view.pod)});
                out.insert("podRef".into(), reference);
                if let Some(start) = &view.status.start_time {
                    out.insert("startTime".into(), json!(start));
                }
                let containers: Vec<Value> = view
                    .observed
                    .running()
                    .filter_map(|c| Some(container(stats.get(&c.id)?, c.started_at)))
                    .collect();
                out.insert("containers".into(), Value::Array(containers));
                if let Some(pids) = usage.pids {
                    out.insert("process_stats".into(), json!({"process_count": pids}));
                }
                Value::Object(out)
            })
            .collect();
        json(&json!({"node": node, "pods": pods}))
    }
}
