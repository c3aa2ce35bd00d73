//! Quality-of-service classes and the numbers the kernel gets: shares, quota, memory, OOM score.
use super::pod;
use super::quantity::{milli_of, whole_of};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

/// The three classes, as `status.qosClass` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// Lowest cpu.shares the kernel takes.
pub const MIN_SHARES: u64 = 2;
/// Highest cpu.shares the kernel takes.
pub const MAX_SHARES: u64 = 262_144;
/// Length of a CFS period in microseconds.
pub const QUOTA_PERIOD: i64 = 100_000;
/// Smallest CFS quota the kernel takes.
pub const MIN_QUOTA: i64 = 1000;

/// The class of a pod: from `status.qosClass` when set (it never changes), else from requests and limits.
pub fn class(pod: &Pod) -> Qos {
    match pod::status(pod).qos_class.as_deref() {
        Some("Guaranteed") => Qos::Guaranteed,
        Some("Burstable") => Qos::Burstable,
        Some("BestEffort") => Qos::BestEffort,
        _ => computed_class(pod),
    }
}

fn computed_class(pod: &Pod) -> Qos {
    let pod_level = pod::spec(pod).resources.iter();
    if pod::spec(pod).resources.as_ref().is_some_and(has_compute) {
        return class_of(pod_level);
    }
    let all = pod::containers(pod).iter().chain(pod::init_containers(pod));
    let all: Vec<ResourceRequirements> = all.map(|c| c.resources.clone().unwrap_or_default()).collect();
    class_of(all.iter())
}

fn has_compute(r: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().any(|name| {
        milli_of(r.requests.as_ref(), name).is_some() || milli_of(r.limits.as_ref(), name).is_some()
    })
}

fn class_of<'a>(all: impl Iterator<Item = &'a ResourceRequirements>) -> Qos {
    let mut any = false;
    let mut guaranteed = true;
    for requirements in all {
        for resource in ["cpu", "memory"] {
            let limit = milli_of(requirements.limits.as_ref(), resource).filter(|v| *v > 0);
            let request = milli_of(requirements.requests.as_ref(), resource).filter(|v| *v > 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// cpu.shares for a request.
pub fn shares(milli_cpu: i64) -> u64 {
    if milli_cpu <= 0 {
        return MIN_SHARES;
    }
    ((milli_cpu as u64).saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota for a limit; 0 for none.
pub fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 { 0 } else { (milli_cpu.saturating_mul(QUOTA_PERIOD) / 1000).max(MIN_QUOTA) }
}

/// A container's CPU request in thousandths; the limit stands in where only that is given.
pub fn cpu_request(container: &Container) -> i64 {
    let Some(resources) = &container.resources else { return 0 };
    milli_of(resources.requests.as_ref(), "cpu").or(milli_of(resources.limits.as_ref(), "cpu")).unwrap_or(0)
}

pub fn cpu_limit(container: &Container) -> i64 {
    container.resources.as_ref().and_then(|r| milli_of(r.limits.as_ref(), "cpu")).unwrap_or(0)
}

pub fn memory_request(container: &Container) -> i64 {
    let Some(resources) = &container.resources else { return 0 };
    whole_of(resources.requests.as_ref(), "memory")
        .or(whole_of(resources.limits.as_ref(), "memory"))
        .unwrap_or(0)
}

pub fn memory_limit(container: &Container) -> i64 {
    container.resources.as_ref().and_then(|r| whole_of(r.limits.as_ref(), "memory")).unwrap_or(0)
}

/// Resources of a whole pod: main containers and sidecars summed, init containers by their peak, overhead added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodResources {
    pub cpu_request: i64,
    pub memory_request: i64,
    /// `None` when any container is without a limit.
    pub cpu_limit: Option<i64>,
    pub memory_limit: Option<i64>,
}

pub fn pod_resources(pod: &Pod) -> PodResources {
    let sum = |value: fn(&Container) -> i64| -> i64 {
        let main: i64 = pod::containers(pod).iter().map(value).sum();
        let mut sidecars = 0;
        let mut peak = 0;
        for container in pod::init_containers(pod) {
            if pod::is_sidecar(container) {
                sidecars += value(container);
                peak = peak.max(sidecars);
            } else {
                peak = peak.max(sidecars + value(container));
            }
        }
        peak.max(main + sidecars)
    };
    let all_limited = |value: fn(&Container) -> i64| {
        pod::containers(pod).iter().chain(pod::init_containers(pod)).all(|c| value(c) > 0)
    };
    let overhead = pod::spec(pod).overhead.as_ref();
    let (cpu_overhead, memory_overhead) =
        (milli_of(overhead, "cpu").unwrap_or(0), whole_of(overhead, "memory").unwrap_or(0));
    let level = pod::spec(pod).resources.as_ref();
    let requests = level.and_then(|r| r.requests.as_ref());
    let limits = level.and_then(|r| r.limits.as_ref());
    let cpu_limit = milli_of(limits, "cpu").or_else(|| all_limited(cpu_limit).then(|| sum(cpu_limit)));
    let memory_limit =
        whole_of(limits, "memory").or_else(|| all_limited(memory_limit).then(|| sum(memory_limit)));
    PodResources {
        cpu_request: milli_of(requests, "cpu").unwrap_or_else(|| sum(cpu_request)) + cpu_overhead,
        memory_request: whole_of(requests, "memory").unwrap_or_else(|| sum(memory_request)) + memory_overhead,
        cpu_limit: cpu_limit.map(|v| v + cpu_overhead),
        memory_limit: memory_limit.map(|v| v + memory_overhead),
    }
}

/// The OOM score adjustment of a container (upstream's `qos.GetContainerOOMScoreAdjust`).
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    if pod::spec(pod).priority.is_some_and(|p| p >= 2_000_000_000) {
        return -997;
    }
    match class(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let adjust = 1000 - 1000 * memory_request(container) / node_memory.max(1);
            adjust.clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let of = |resources: serde_json::Value| {
            class(&pod(serde_json::json!({"containers": [{"name": "a", "resources": resources}]})))
        };
        assert_eq!(of(serde_json::json!({})), Qos::BestEffort);
        assert_eq!(of(serde_json::json!({"requests": {"cpu": "1"}})), Qos::Burstable);
        assert_eq!(of(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}})), Qos::Guaranteed);
        assert_eq!(
            of(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})),
            Qos::Burstable
        );
    }

    #[test]
    fn a_pod_needs_the_peak_of_its_init_containers_or_the_sum_of_the_rest() {
        let p = pod(serde_json::json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "64Mi"}}}]}));
        let r = pod_resources(&p);
        assert_eq!((r.cpu_request, r.memory_request, r.cpu_limit), (2100, 64 << 20, None));
        let mut more = p.clone();
        let overhead = serde_json::json!({"cpu": "50m", "memory": "1Mi"});
        more.spec.as_mut().unwrap().overhead = Some(serde_json::from_value(overhead).unwrap());
        let r = pod_resources(&more);
        assert_eq!((r.cpu_request, r.memory_request), (2150, 65 << 20));
    }

    #[test]
    fn critical_pods_are_killed_last() {
        let score = |priority: i32| {
            let p = pod(serde_json::json!({"priority": priority, "containers": [{"name": "a"}]}));
            oom_score_adj(&p, &p.spec.as_ref().unwrap().containers[0], 1 << 30)
        };
        assert_eq!((score(0), score(2_000_000_000)), (1000, -997));
    }

    #[test]
    fn kernel_numbers() {
        assert_eq!((shares(0), shares(100), shares(1000), shares(i64::MAX)), (2, 102, 1024, MAX_SHARES));
        assert_eq!((quota(0), quota(1), quota(500), quota(2000)), (0, 1000, 50_000, 200_000));
    }
}
