//! Resource amounts as the scheduler counts them: CPU in thousandths, everything else in whole units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// A quantity in billionths, or `None` when it is not a quantity. Finer fractions round up, as upstream does.
pub fn parse_nano(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || whole.len() > 20
        || fraction.len() > 30
    {
        return None;
    }
    let (numerator, denominator) = scale_of(suffix)?;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(numerator)?.checked_mul(NANO)?;
    let mut rest = value % denominator != 0;
    value /= denominator;
    let mut unit = numerator.checked_mul(NANO)?;
    for digit in fraction.bytes() {
        let exact = unit % 10 == 0;
        unit /= 10;
        let part = i128::from(digit - b'0') * unit;
        rest |= (!exact && digit != b'0') || part % denominator != 0;
        value += part / denominator;
    }
    if rest {
        value += 1;
    }
    Some(if negative { -value } else { value })
}

fn scale_of(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            if !(-18..=18).contains(&exponent) {
                return None;
            }
            let power = 10i128.pow(exponent.unsigned_abs());
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

fn round_up(nano: i128, unit: i128) -> i64 {
    let value = nano.div_euclid(unit) + i128::from(nano.rem_euclid(unit) != 0);
    i64::try_from(value).unwrap_or(if value > 0 { i64::MAX } else { i64::MIN })
}

/// Whole units, rounded up; 0 for what is not a quantity (the API server refuses those).
pub fn value(quantity: &Quantity) -> i64 {
    parse_nano(&quantity.0).map_or(0, |nano| round_up(nano, NANO))
}

/// Thousandths, rounded up.
pub fn milli_value(quantity: &Quantity) -> i64 {
    parse_nano(&quantity.0).map_or(0, |nano| round_up(nano, NANO / 1000))
}

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages, sorted by name, no zero entries kept on purpose: 0 requested is still requested.
    pub scalars: Vec<(Box<str>, i64)>,
}

impl Resources {
    /// From a resource list; `pods` is left out (see [`allowed_pods`]).
    pub fn from_list(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut resources = Resources::default();
        for (name, quantity) in list.into_iter().flatten() {
            match name.as_str() {
                "cpu" => resources.milli_cpu = milli_value(quantity),
                "memory" => resources.memory = value(quantity),
                "ephemeral-storage" => resources.ephemeral_storage = value(quantity),
                "pods" => {}
                other => resources.scalars.push((other.into(), value(quantity))),
            }
        }
        resources
    }

    /// An extended resource's amount.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.binary_search_by(|(n, _)| (**n).cmp(name)).map_or(0, |i| self.scalars[i].1)
    }

    fn merge(&mut self, other: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            match self.scalars.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(i) => self.scalars[i].1 = f(self.scalars[i].1, *amount),
                Err(i) => self.scalars.insert(i, (name.clone(), f(0, *amount))),
            }
        }
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Resources) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Resources) {
        self.merge(other, i64::saturating_sub);
    }

    /// The larger of both for every resource.
    pub fn maximum(&mut self, other: &Resources) {
        self.merge(other, i64::max);
    }
}

/// `status.allocatable["pods"]`.
pub fn allowed_pods(list: Option<&BTreeMap<String, Quantity>>) -> i64 {
    list.and_then(|list| list.get("pods")).map_or(0, value)
}

fn requests(container: &Container) -> Resources {
    let Some(resources) = &container.resources else { return Resources::default() };
    // A limit without a request is a request (API defaulting does the same; static pods may come without it).
    let mut list = resources.requests.clone().unwrap_or_default();
    for (name, quantity) in resources.limits.iter().flatten() {
        list.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
    Resources::from_list(Some(&list))
}

/// What a container without requests is counted as when nodes are scored (not when they are filtered).
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// See [`DEFAULT_MILLI_CPU`].
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// A pod's request: the larger of its containers' and sidecars' sum and the highest point of its init sequence, or the
/// pod-level request where set, plus overhead (`resourcehelper.PodRequests`).
pub fn pod_requests(spec: &PodSpec) -> Resources {
    total(spec, |_, r| r)
}

/// As [`pod_requests`] with defaults for containers that request no CPU or memory.
pub fn pod_nonzero_requests(spec: &PodSpec) -> Resources {
    total(spec, |container, mut r| {
        let set = |name: &str| {
            container.resources.as_ref().is_some_and(|res| {
                res.requests.as_ref().is_some_and(|l| l.contains_key(name))
                    || res.limits.as_ref().is_some_and(|l| l.contains_key(name))
            })
        };
        if !set("cpu") {
            r.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !set("memory") {
            r.memory = DEFAULT_MEMORY;
        }
        r
    })
}

fn total(spec: &PodSpec, adjust: impl Fn(&Container, Resources) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&adjust(container, requests(container)));
    }
    let mut sidecars = Resources::default();
    let mut init_peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let request = adjust(container, requests(container));
        let mut point = request.clone();
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&request);
            sidecars.add(&request);
            point = sidecars.clone();
        } else {
            point.add(&sidecars);
        }
        init_peak.maximum(&point);
    }
    sum.maximum(&init_peak);
    if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let pod_level = Resources::from_list(Some(list));
        if list.contains_key("cpu") {
            sum.milli_cpu = pod_level.milli_cpu;
        }
        if list.contains_key("memory") {
            sum.memory = pod_level.memory;
        }
        for (name, amount) in pod_level.scalars {
            match sum.scalars.binary_search_by(|(n, _)| n.cmp(&name)) {
                Ok(i) => sum.scalars[i].1 = amount,
                Err(i) => sum.scalars.insert(i, (name, amount)),
            }
        }
    }
    sum.add(&Resources::from_list(spec.overhead.as_ref()));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let check = |text: &str, whole: i64, milli: i64| {
            let quantity = Quantity(text.to_owned());
            assert_eq!((value(&quantity), milli_value(&quantity)), (whole, milli), "{text}");
        };
        check("100m", 1, 100);
        check("1.5", 2, 1500);
        check("0.1", 1, 100);
        check("128Mi", 134_217_728, 134_217_728_000);
        check("1e3", 1000, 1_000_000);
        check("1E", 1_000_000_000_000_000_000, i64::MAX);
        check("100n", 1, 1);
        check("1.5Gi", 1_610_612_736, 1_610_612_736_000);
        check("-2", -2, -2000);
        assert_eq!(parse_nano("abc"), None);
        assert_eq!(parse_nano(""), None);
        assert_eq!(parse_nano("1.2.3"), None);
    }

    fn pod(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    // Facts: staging/src/k8s.io/component-helpers/resource/helpers_test.go, TestPodResourceRequests.
    #[test]
    fn init_containers_and_sidecars() {
        let spec = pod(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}},
                {"name": "i", "resources": {"requests": {"cpu": "5"}}}],
            "overhead": {"cpu": "100m"}}));
        // init i runs beside sidecar s: 7; containers and sidecar: 3
        assert_eq!(pod_requests(&spec).milli_cpu, 7100);
    }

    #[test]
    fn limits_stand_in_for_requests_and_pod_level_wins() {
        let spec = pod(
            serde_json::json!({"containers": [{"name": "a", "resources": {"limits": {"memory": "1Mi", "example.com/gpu": "2"}}}]}),
        );
        let request = pod_requests(&spec);
        assert_eq!((request.memory, request.scalar("example.com/gpu")), (1 << 20, 2));
        let spec = pod(
            serde_json::json!({"resources": {"requests": {"cpu": "4"}}, "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}),
        );
        assert_eq!(pod_requests(&spec).milli_cpu, 4000);
    }

    #[test]
    fn scoring_assumes_defaults_per_container() {
        let spec = pod(
            serde_json::json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "0"}}}]}),
        );
        let request = pod_nonzero_requests(&spec);
        assert_eq!((request.milli_cpu, request.memory), (DEFAULT_MILLI_CPU, 2 * DEFAULT_MEMORY));
    }
}
