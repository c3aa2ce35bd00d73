//! Replica arithmetic: percentages, surge, proportions (`deploymentutil`).

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::annotations;

/// A number or a percentage of `total`, rounded as asked.
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => *n,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            let result = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(result).unwrap_or(i32::MAX)
        }
    }
}

/// A Deployment's replicas.
pub fn replicas(d: &Deployment) -> i32 {
    d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Whether it rolls (and not recreates).
pub fn is_rolling(d: &Deployment) -> bool {
    let kind = d.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.type_.as_deref());
    kind.is_none_or(|kind| kind == "RollingUpdate")
}

/// (surge, unavailable): both cannot be 0, else nothing would ever move (`ResolveFenceposts`).
fn fenceposts(d: &Deployment) -> (i32, i32) {
    let quarter = IntOrString::String("25%".to_owned());
    let rolling = d.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let total = replicas(d);
    match (scaled(surge, total, true), scaled(unavailable, total, false)) {
        (0, 0) => (0, 1),
        both => both,
    }
}

/// How many pods there may be above the wanted number.
pub fn max_surge(d: &Deployment) -> i32 {
    if is_rolling(d) { fenceposts(d).0 } else { 0 }
}

/// How many of the wanted pods may be missing.
pub fn max_unavailable(d: &Deployment) -> i32 {
    if !is_rolling(d) || replicas(d) == 0 {
        return 0;
    }
    fenceposts(d).1.min(replicas(d))
}

/// A ReplicaSet's wanted replicas.
pub fn wanted(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// A ReplicaSet's available replicas.
pub fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// A ReplicaSet's pods.
pub fn actual(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().map_or(0, |s| s.replicas)
}

/// The size the new set may have now (`NewRSNewReplicas`); `total` is what all sets want together.
pub fn new_set_replicas(d: &Deployment, total: i32, new_set: i32) -> i32 {
    if !is_rolling(d) {
        return replicas(d);
    }
    let most = replicas(d) + max_surge(d);
    if total >= most {
        return new_set;
    }
    new_set + (most - total).min(replicas(d) - new_set)
}

/// The share of `to_add` that falls to a set (`GetReplicaSetProportion`).
pub fn proportion(d: &Deployment, rs: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if wanted(rs) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let allowed = to_add - added;
    let fraction = fraction(d, rs);
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

fn fraction(d: &Deployment, rs: &ReplicaSet) -> i32 {
    if replicas(d) == 0 {
        return -wanted(rs);
    }
    let before = annotations::number(rs, annotations::MAX_REPLICAS)
        .filter(|n| *n != 0)
        .unwrap_or_else(|| d.status.as_ref().and_then(|s| s.replicas).unwrap_or(0));
    if before == 0 {
        return 0;
    }
    let size = f64::from(wanted(rs)) * f64::from(replicas(d) + max_surge(d)) / f64::from(before);
    size.round() as i32 - wanted(rs)
}
