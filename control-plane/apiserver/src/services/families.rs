//! Which address families a Service has (upstream: `core/service/storage/alloc.go`, initIPFamilyFields), on a cluster whose
//! range is of one family.

use keelson_api::doc::{Doc, Value};
use keelson_api::f::core_v1::{service, service_spec as ss};
use keelson_api::field_errors::{ErrorList, FieldPath};
use keelson_api::schema::Field;
use keelson_api::status::{GroupResource, Status};
use keelson_api::types::core::service::validate_addresses;

const POLICY: [Field; 2] = [service::SPEC, ss::IP_FAMILY_POLICY];
const FAMILIES: [Field; 2] = [service::SPEC, ss::IP_FAMILIES];
const ADDRESSES: [Field; 2] = [service::SPEC, ss::CLUSTER_IPS];

/// Fills in what is not said of policy and families, and refuses what does not fit the cluster's family.
pub fn fill(doc: &mut Doc, old: Option<&Doc>, family: &'static str) -> Result<(), Status> {
    let headless = doc.str(&[service::SPEC, ss::CLUSTER_IP]) == "None";
    // What such a Service stands for lies outside of the cluster, so its families are not the cluster's.
    let foreign =
        headless && doc.map(&[service::SPEC, ss::SELECTOR]).is_none_or(|selector| selector.is_empty());
    if doc.str(&POLICY).is_empty() {
        doc.set(&POLICY, if foreign { "RequireDualStack" } else { "SingleStack" });
    }
    let mut errors = ErrorList::new();
    validate_addresses(doc, &mut errors);
    refuse(doc, &errors)?;
    narrow(doc, old, &mut errors);
    infer(doc, family, &mut errors);
    refuse(doc, &errors)?;
    let mut families = strings(doc, &FAMILIES);
    if families.is_empty() {
        families.push(family.to_owned());
    }
    let single = doc.str(&POLICY) == "SingleStack";
    if foreign {
        if families.len() == 1 && !single {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
    } else {
        let spec = FieldPath::new("spec");
        if doc.str(&POLICY) == "RequireDualStack" {
            let text = "this cluster is not configured for dual-stack services";
            errors.invalid(&spec.child("ipFamilyPolicy"), doc.str(&POLICY), text);
        }
        let at = spec.child("ipFamilies");
        for (i, other) in families.iter().enumerate().filter(|(_, one)| *one != family) {
            errors.invalid(&at.index(i), other.as_str(), "not configured on this cluster");
        }
        refuse(doc, &errors)?;
    }
    doc.set(&FAMILIES, families.into_iter().map(Value::from).collect::<Vec<_>>());
    Ok(())
}

fn refuse(doc: &Doc, errors: &ErrorList) -> Result<(), Status> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&GroupResource::new("", "Service"), doc.meta().name(), errors)),
    }
}

fn strings(doc: &Doc, path: &[Field]) -> Vec<String> {
    doc.list(path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A Service that goes back to one family drops the second of what it does not change; any other keeps both.
fn narrow(doc: &mut Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    let single = doc.str(&POLICY) == "SingleStack";
    let at = FieldPath::new("spec");
    let at = at.child("ipFamilyPolicy");
    for (path, released, several) in
        [(ADDRESSES, "cluster IP", "cluster IPs"), (FAMILIES, "IP family", "IP families")]
    {
        let now = strings(doc, &path);
        let before = old.map(|old| strings(old, &path)).unwrap_or_default();
        if single && now == before && now.len() > 1 {
            doc.set(&path, vec![Value::from(now[0].clone())]);
        } else if single && now.len() == 2 {
            let text = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {several} are specified"
            );
            errors.invalid(&at, doc.str(&POLICY), text);
        } else if !single && !now.is_empty() && now.len() < before.len() && before[..now.len()] == now {
            let text = format!("must be 'SingleStack' to release the secondary {released}");
            errors.invalid(&at, doc.str(&POLICY), text);
        }
    }
}

/// The families of addresses that are given, where they are not said.
fn infer(doc: &mut Doc, family: &str, errors: &mut ErrorList) {
    let (addresses, mut families) = (strings(doc, &ADDRESSES), strings(doc, &FAMILIES));
    let spec = FieldPath::new("spec");
    let at = spec.child("clusterIPs");
    for (i, address) in addresses.iter().enumerate().skip(families.len()).filter(|(_, one)| *one != "None") {
        let of = if address.contains(':') { "IPv6" } else { "IPv4" };
        if of == family {
            families.push(of.to_owned());
        } else {
            let list = keelson_api::field_errors::BadValue::json(&addresses);
            errors.invalid(&at.index(i), list, format!("{of} is not configured on this cluster"));
        }
    }
    if !families.is_empty() {
        doc.set(&FAMILIES, families.into_iter().map(Value::from).collect::<Vec<_>>());
    }
}
