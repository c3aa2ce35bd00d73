//! What a Service may not change, and what it is warned about.

use crate::doc::{Doc, Struct};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath, quoted};
use crate::names;
use crate::types::Ctx;
use crate::types::core::container::string_list;
use crate::types::core::service::is_headless;
use crate::types::core::warnings;
use crate::types::walk::{json_text, strs};

use c::service_spec as ss;

const SPEC: FieldPath<'static> = FieldPath::new("spec");
const METADATA: FieldPath<'static> = FieldPath::new("metadata");
const STAYS: &str = "may not change once set";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Cluster addresses and families: the first stays, a second may come and go.
pub(super) fn addresses_stay(now: &Struct, before: &Struct, errors: &mut ErrorList) {
    if now.str(ss::TYPE) == "ExternalName" || before.str(ss::TYPE) == "ExternalName" {
        return;
    }
    if !(is_headless(now) && is_headless(before)) {
        cluster_ips(now, before, errors);
    }
    if is_headless(now) == is_headless(before) && !is_headless(now) {
        families(now, before, errors);
    }
}

fn cluster_ips(now: &Struct, before: &Struct, errors: &mut ErrorList) {
    let (ips, old) = (now.list(ss::CLUSTER_IPS), before.list(ss::CLUSTER_IPS));
    let at = SPEC.child("clusterIPs");
    let shown = || string_list(now, ss::CLUSTER_IPS);
    if ips.len() == old.len() {
        for (i, _) in old.iter().zip(ips).enumerate().filter(|(_, (old, new))| old != new) {
            errors.invalid(&at.index(i), shown(), STAYS);
        }
        return;
    }
    if ips.is_empty() {
        errors.invalid(&at.index(0), shown(), "primary clusterIP can not be unset");
    } else if old.first().is_some_and(|old| *old != ips[0]) {
        errors.invalid(&at.index(0), shown(), STAYS);
    }
    if old.len() > ips.len() && ips.len() == 1 {
        released(now, "clusterIP", errors);
    }
}

fn released(now: &Struct, what: &str, errors: &mut ErrorList) {
    if now.str(ss::IP_FAMILY_POLICY) != "SingleStack" {
        let value = json_text(now.get(ss::IP_FAMILY_POLICY));
        let text = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.invalid(&SPEC.child("ipFamilyPolicy"), value, text);
    }
}

fn families(now: &Struct, before: &Struct, errors: &mut ErrorList) {
    let (families, old) = (now.list(ss::IP_FAMILIES), before.list(ss::IP_FAMILIES));
    let at = SPEC.child("ipFamilies");
    let at = at.index(0);
    let changed = || families.first().zip(old.first()).is_some_and(|(new, old)| new != old);
    if families.len() == old.len() {
        if families != old {
            errors.invalid(&at, string_list(now, ss::IP_FAMILIES), STAYS);
        }
        return;
    }
    if old.len() > families.len() && now.list(ss::CLUSTER_IPS).is_empty() {
        let text = "primary ipFamily can not be unset";
        errors.invalid(&at, string_list(now, ss::IP_FAMILIES), text);
    }
    if changed() {
        // As upstream, the addresses are what is shown here.
        errors.invalid(&at, string_list(now, ss::CLUSTER_IPS), STAYS);
    }
    if old.len() > families.len() && families.len() == 1 {
        released(now, "ipFamily", errors);
    }
}

/// Annotations that speak for fields.
pub(super) fn annotations(doc: &Doc, old: Option<&Doc>, spec: &Struct, errors: &mut ErrorList) {
    let meta = doc.meta();
    let at = METADATA.child("annotations");
    if let (Some(mode), Some(hints)) = (meta.annotation(MODE), meta.annotation(HINTS))
        && mode != hints
    {
        let text = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(&at.key(MODE), mode, text);
    }
    let Some(ranges) =
        meta.annotation(RANGES).filter(|_| spec.list(ss::LOAD_BALANCER_SOURCE_RANGES).is_empty())
    else {
        return;
    };
    if spec.str(ss::TYPE) != "LoadBalancer" {
        errors.forbidden(&at.key(RANGES), "may only be used when `type` is 'LoadBalancer'");
    }
    let same = old.is_some_and(|old| old.meta().annotation(RANGES) == Some(ranges));
    if !same && !ranges.trim().is_empty() {
        for range in ranges.trim().split(',') {
            names::validate_cidr_legacy(&at.key(RANGES), range.trim(), errors);
        }
    }
}

/// Texts of Warning headers.
pub(super) fn service_warnings(new: &Doc, _: Option<&Doc>, _: &Ctx<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(spec) = new.root().and_then(|root| root.child(c::service::SPEC)) else { return out };
    if new.meta().annotation(HINTS).is_some() {
        out.push(format!("annotation {HINTS} is deprecated, please use {MODE} instead"));
    }
    let ips = |field, name: &str, out: &mut Vec<String>| {
        for (i, ip) in strs(spec, field) {
            warnings::address(&format!("spec.{name}[{i}]"), ip, out);
        }
    };
    if !spec.str(ss::CLUSTER_IP).is_empty() && !is_headless(spec) {
        ips(ss::CLUSTER_IPS, "clusterIPs", &mut out);
    }
    if is_headless(spec) {
        if !spec.str(ss::LOAD_BALANCER_IP).is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !spec.list(ss::EXTERNAL_IPS).is_empty() {
            out.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.str(ss::SESSION_AFFINITY) != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    ips(ss::EXTERNAL_IPS, "externalIPs", &mut out);
    let balancer = spec.str(ss::LOAD_BALANCER_IP);
    if !balancer.is_empty() {
        warnings::address("spec.loadBalancerIP", balancer, &mut out);
    }
    for (i, range) in strs(spec, ss::LOAD_BALANCER_SOURCE_RANGES) {
        warnings::range(&format!("spec.loadBalancerSourceRanges[{i}]"), range, &mut out);
    }
    let external = spec.str(ss::TYPE) == "ExternalName";
    if external && !spec.list(ss::EXTERNAL_IPS).is_empty() {
        out.push(format!("spec.externalIPs is ignored when spec.type is {}", quoted("ExternalName")));
    }
    if !external && !spec.str(ss::EXTERNAL_NAME).is_empty() {
        out.push(format!("spec.externalName is ignored when spec.type is not {}", quoted("ExternalName")));
    }
    if spec.str(ss::TRAFFIC_DISTRIBUTION) == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    out
}
