//! Rules of group apps: Deployment, ReplicaSet, DaemonSet, StatefulSet, ControllerRevision.

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::apps_v1 as a;
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::t::apps_v1 as t;
use crate::types::core::warnings::of_template;
use crate::types::core::{pod_defaults, pod_spec, pvc, scheduling};
use crate::types::meta::immutable;
use crate::types::walk::{
    at_most_100_percent, child_entry, default_str, default_value, int_or_percent, json_text, non_negative,
    present, structs, structs_mut,
};
use crate::types::{Ctx, GenerationRule, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");
const STATUS: FieldPath<'static> = FieldPath::new("status");
const NOT_MATCHING: &str = "`selector` does not match template `labels`";
const ABOVE_REPLICAS: &str = "cannot be greater than status.replicas";

/// Deployments.
pub static DEPLOYMENT: Strategy = Strategy {
    unreadable: |doc| {
        let text = doc.meta().annotation(ROLLBACK_TO).filter(|text| !text.is_empty())?;
        let why = unread_number(doc, ROLLBACK_TO)?;
        Some(format!("failed to parse annotation[{ROLLBACK_TO}]={text} as int64: {why}"))
    },
    defaults: deployment_defaults,
    prepare_status_update: deployment_prepare_status,
    validate_create: deployment_validate,
    validate_update: |new, old, ctx, errors| {
        deployment_validate(new, ctx, errors);
        same_selector(new, old, &[a::deployment::SPEC, a::deployment_spec::SELECTOR], errors);
    },
    validate_status_update: deployment_status,
    warnings: |new, old, ctx| {
        let mut out = pod_name_warning(new, old, ctx);
        out.extend(of_template(new, old, &[a::deployment::SPEC, a::deployment_spec::TEMPLATE], TEMPLATE));
        out
    },
    generation: GenerationRule::SpecOrAnnotations,
    columns: &columns::apps::DEPLOYMENT,
    ..Strategy::BASE
};

/// ReplicaSets.
pub static REPLICA_SET: Strategy = Strategy {
    defaults: replica_set_defaults,
    validate_create: replica_set_validate,
    validate_update: |new, old, ctx, errors| {
        replica_set_validate(new, ctx, errors);
        same_selector(new, old, &[a::replica_set::SPEC, a::replica_set_spec::SELECTOR], errors);
    },
    validate_status_update: replica_set_status,
    warnings: |new, old, ctx| {
        let mut out = pod_name_warning(new, old, ctx);
        out.extend(of_template(new, old, &[a::replica_set::SPEC, a::replica_set_spec::TEMPLATE], TEMPLATE));
        out
    },
    generation: GenerationRule::Spec,
    columns: &columns::apps::REPLICA_SET,
    ..Strategy::BASE
};

/// DaemonSets.
pub static DAEMON_SET: Strategy = Strategy {
    unreadable: |doc| unread_number(doc, TEMPLATE_GENERATION),
    defaults: daemon_set_defaults,
    prepare_create: |doc, _| {
        let given = template_generation(doc).max(1);
        doc.meta_mut().set_annotation(TEMPLATE_GENERATION, itoa::Buffer::new().format(given));
    },
    prepare_update: daemon_set_prepare_update,
    prepare_status_update: |new, old, _| {
        // Part of the specification, whatever the status' writer says of annotations.
        let generation = old.meta().annotation(TEMPLATE_GENERATION).unwrap_or("0");
        new.meta_mut().set_annotation(TEMPLATE_GENERATION, generation);
    },
    validate_create: daemon_set_validate,
    validate_update: |new, old, ctx, errors| {
        daemon_set_validate(new, ctx, errors);
        let path = [a::daemon_set::SPEC, a::daemon_set_spec::SELECTOR];
        scheduling::forgive_kept_values(new.get(&path), old.get(&path), errors);
        same_selector(new, old, &[a::daemon_set::SPEC, a::daemon_set_spec::SELECTOR], errors);
    },
    validate_status_update: daemon_set_status,
    warnings: |new, old, _| {
        let path = [a::daemon_set::SPEC, a::daemon_set_spec::TEMPLATE];
        if old.is_some_and(|old| old.get(&path) == new.get(&path)) {
            return Vec::new();
        }
        of_template(new, None, &path, TEMPLATE)
    },
    generation: GenerationRule::Spec,
    columns: &columns::apps::DAEMON_SET,
    ..Strategy::BASE
};

/// StatefulSets.
pub static STATEFUL_SET: Strategy = Strategy {
    name_rule: names::name_is_label,
    defaults: stateful_set_defaults,
    validate_create: |doc, ctx, errors| stateful_set_validate(doc, ctx, true, errors),
    validate_update: stateful_set_update,
    validate_status_update: stateful_set_status,
    generation: GenerationRule::Spec,
    warnings: stateful_set_warnings,
    columns: &columns::apps::STATEFUL_SET,
    ..Strategy::BASE
};

/// ControllerRevisions.
pub static CONTROLLER_REVISION: Strategy = Strategy {
    validate_create: |doc, _, errors| {
        revision(doc, errors);
        let data = doc.get(&[a::controller_revision::DATA]);
        let text = match data {
            Some(Value::Raw(text)) => text.as_str(),
            _ => "null",
        };
        let at = FieldPath::new("data");
        if text == "null" {
            errors.required(&at, "data is mandatory");
        } else if !text.starts_with('{') {
            errors.required(&at, "data must be a valid JSON object");
        }
    },
    validate_update: |new, old, _, errors| {
        revision(new, errors);
        let data = |doc: &Doc| doc.get(&[a::controller_revision::DATA]).cloned();
        immutable(data(new).as_ref(), data(old).as_ref(), &FieldPath::new("data"), errors);
    },
    columns: &columns::apps::CONTROLLER_REVISION,
    ..Strategy::BASE
};

/// Where templates lie, as warnings say it.
const TEMPLATE: &str = "spec.template.";

/// DaemonSets keep `spec.templateGeneration` of the old API in this annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// As Deployments keep `spec.rollbackTo`.
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// Why the number that an annotation keeps is none, in Go's words.
fn unread_number(doc: &Doc, annotation: &str) -> Option<String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let text = doc.meta().annotation(annotation)?;
    let why = match text.parse::<i64>().err()?.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    Some(format!("strconv.ParseInt: parsing {}: {why}", crate::field_errors::quoted(text)))
}

/// A field of the old API that an annotation keeps is not negative.
fn kept_number(doc: &Doc, annotation: &str, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let number = doc.meta().annotation(annotation).and_then(|text| text.parse::<i64>().ok());
    if let Some(number) = number.filter(|number| *number < 0) {
        errors.invalid(at, number, crate::types::meta::NEGATIVE);
    }
}

fn revision(doc: &Doc, errors: &mut ErrorList) {
    let number = doc.int(&[a::controller_revision::REVISION]).unwrap_or(0);
    if number < 0 {
        errors.invalid(&FieldPath::new("revision"), number, crate::types::meta::NEGATIVE);
    }
}

fn stateful_set_warnings(new: &Doc, old: Option<&Doc>, _: &Ctx<'_>) -> Vec<String> {
    use a::stateful_set_spec as ss;
    let mut out = of_template(new, old, &[a::stateful_set::SPEC, ss::TEMPLATE], TEMPLATE);
    let Some(spec) = new.root().and_then(|root| root.child(a::stateful_set::SPEC)) else { return out };
    for (i, claim) in structs(spec, ss::VOLUME_CLAIM_TEMPLATES) {
        if let Some(claim) = claim.child(c::persistent_volume_claim::SPEC) {
            // As upstream, the path says `Spec` on update and nothing on create.
            let spec = if old.is_some() { ".Spec" } else { "" };
            pvc::size_warnings(claim, &format!("spec.volumeClaimTemplates[{i}]{spec}"), &mut out);
        }
    }
    if spec.int(ss::REVISION_HISTORY_LIMIT).is_some_and(|limit| limit < 0) {
        out.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
    out
}

/// The warning on names that are no DNS labels, of types whose pods carry the name.
pub fn pod_name_warning(new: &Doc, old: Option<&Doc>, _: &Ctx<'_>) -> Vec<String> {
    let messages = names::dns1123_label(new.meta().name());
    if old.is_some() || messages.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
         recommended: [{}]",
        messages.join(" ")
    )]
}

fn spec_mut(doc: &mut Doc, field: Field) -> Option<&mut Struct> {
    child_entry(doc.root_mut()?, field)
}

fn same_selector(new: &Doc, old: &Doc, path: &[Field], errors: &mut ErrorList) {
    immutable(new.get(path), old.get(path), &SPEC.child("selector"), errors);
}

fn rolling_update(strategy: &mut Struct, kind: Field, rolling: Field, fields: &[(Field, Value)]) {
    default_str(strategy, kind, "RollingUpdate");
    if strategy.str(kind) == "RollingUpdate"
        && let Some(rolling) = child_entry(strategy, rolling)
    {
        for (field, value) in fields {
            default_value(rolling, *field, value.clone());
        }
    }
}

fn deployment_defaults(doc: &mut Doc) {
    use a::deployment_spec as ds;
    let Some(spec) = spec_mut(doc, a::deployment::SPEC) else { return };
    default_value(spec, ds::REPLICAS, 1);
    if let Some(strategy) = child_entry(spec, ds::STRATEGY) {
        rolling_update(
            strategy,
            a::deployment_strategy::TYPE,
            a::deployment_strategy::ROLLING_UPDATE,
            &[
                (a::rolling_update_deployment::MAX_UNAVAILABLE, Value::from("25%")),
                (a::rolling_update_deployment::MAX_SURGE, Value::from("25%")),
            ],
        );
    }
    default_value(spec, ds::REVISION_HISTORY_LIMIT, 10);
    default_value(spec, ds::PROGRESS_DEADLINE_SECONDS, 600);
    if let Some(template) = child_entry(spec, ds::TEMPLATE) {
        pod_defaults::pod_template_spec(template);
    }
}

fn deployment_prepare_status(new: &mut Doc, old: &Doc, _: &Ctx<'_>) {
    use crate::f::meta_v1::object_meta as om;
    let labels = old.meta().labels().cloned();
    let mut meta = new.meta_mut();
    match labels {
        Some(labels) => {
            meta.as_struct().set(om::LABELS, labels);
        }
        None => {
            meta.as_struct().remove(om::LABELS);
        }
    }
}

/// A controller's selector: there, valid, not empty; the template's labels match it.
fn selector_and_template(
    spec: &Struct,
    selector: Field,
    template: Field,
    kind: &str,
    ctx: &Ctx<'_>,
    errors: &mut ErrorList,
) {
    let at = SPEC.child("selector");
    let selector = spec.child(selector);
    let before = errors.len();
    match selector {
        // A DaemonSet without one is only told that its template does not match.
        None if kind == "daemonset" => {}
        None => errors.required(&at, ""),
        Some(one) => scheduling::validate_label_selector(Some(one), &at, errors),
    }
    let readable = errors.len() == before || selector.is_none();
    if let Some(one) = selector.filter(|one| scheduling::selector_is_empty(Some(one))) {
        let value = json_text(Some(&Value::Struct(one.clone())));
        errors.invalid(&at, value, format!("empty selector is invalid for {kind}"));
    }
    if !readable && kind != "daemonset" {
        let text = if kind == "statefulset" { "" } else { "invalid label selector" };
        let value = json_text(selector.map(|one| Value::Struct(one.clone())).as_ref());
        errors.invalid(&at, value, text);
        return;
    }
    let empty = Struct::new(crate::t::core_v1::POD_TEMPLATE_SPEC);
    let template = spec.child(template).unwrap_or(&empty);
    let at = SPEC.child("template");
    let labels = pod_spec::template_labels(template);
    // Without a selector nothing matches; an empty one is not compared.
    let mismatch = match selector {
        None => true,
        Some(one) => {
            readable
                && !scheduling::selector_is_empty(Some(one))
                && !scheduling::selector_matches(one, labels)
        }
    };
    if mismatch {
        errors.invalid(&at.child("metadata").child("labels"), pod_spec::labels_json(labels), NOT_MATCHING);
    }
    pod_spec::validate_template(template, ctx, &at, errors);
}

/// Pods of controllers restart always and have no deadline.
pub fn always_restarting(
    template: Option<&Struct>,
    path: &FieldPath<'_>,
    kind: &str,
    errors: &mut ErrorList,
) {
    let Some(spec) = template.and_then(|template| template.child(c::pod_template_spec::SPEC)) else { return };
    let at = path.child("spec");
    let policy = spec.str(c::pod_spec::RESTART_POLICY);
    if policy != "Always" {
        errors.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if present(spec, c::pod_spec::ACTIVE_DEADLINE_SECONDS) {
        let text = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&at.child("activeDeadlineSeconds"), text);
    }
}

fn deployment_validate(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use a::deployment_spec as ds;
    let empty = Struct::new(t::DEPLOYMENT_SPEC);
    let spec = doc.root().and_then(|root| root.child(a::deployment::SPEC)).unwrap_or(&empty);
    non_negative(spec, &[ds::REPLICAS], &SPEC, errors);
    selector_and_template(spec, ds::SELECTOR, ds::TEMPLATE, "deployment", ctx, errors);
    always_restarting(spec.child(ds::TEMPLATE), &SPEC.child("template"), "ReplicaSet", errors);
    deployment_strategy(spec, errors);
    let numbers = [ds::MIN_READY_SECONDS, ds::REVISION_HISTORY_LIMIT, ds::PROGRESS_DEADLINE_SECONDS];
    non_negative(spec, &numbers, &SPEC, errors);
    if let Some(deadline) = spec.int(ds::PROGRESS_DEADLINE_SECONDS)
        && deadline <= spec.int(ds::MIN_READY_SECONDS).unwrap_or(0)
    {
        errors.invalid(
            &SPEC.child("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    kept_number(doc, ROLLBACK_TO, &SPEC.child("rollback").child("version"), errors);
}

fn deployment_strategy(spec: &Struct, errors: &mut ErrorList) {
    use a::rolling_update_deployment as ru;
    let Some(strategy) = spec.child(a::deployment_spec::STRATEGY) else { return };
    let at = SPEC.child("strategy");
    let rolling = strategy.child(a::deployment_strategy::ROLLING_UPDATE);
    match strategy.str(a::deployment_strategy::TYPE) {
        "Recreate" => {
            if rolling.is_some() {
                let text = "may not be specified when strategy `type` is 'Recreate'";
                errors.forbidden(&at.child("rollingUpdate"), text);
            }
        }
        "RollingUpdate" => {
            let at = at.child("rollingUpdate");
            let Some(rolling) = rolling else {
                errors.required(&at, "this should be defaulted and never be nil");
                return;
            };
            let (unavailable, surge) = (rolling.get(ru::MAX_UNAVAILABLE), rolling.get(ru::MAX_SURGE));
            let unavailable_number = int_or_percent(unavailable, &at.child("maxUnavailable"), errors);
            let surge_number = int_or_percent(surge, &at.child("maxSurge"), errors);
            if unavailable_number == 0 && surge_number == 0 {
                let text = "may not be 0 when `maxSurge` is 0";
                errors.invalid(&at.child("maxUnavailable"), json_text(unavailable), text);
            }
            at_most_100_percent(unavailable, &at.child("maxUnavailable"), errors);
        }
        _ => {
            let value = json_text(Some(&Value::Struct(strategy.clone())));
            errors.not_supported(&at, value, &["Recreate", "RollingUpdate"]);
        }
    }
}

/// Counters of a status: none negative, none above the number of replicas.
fn counters(
    status: &Struct,
    replicas: Field,
    bounded: &[Field],
    available: Field,
    ready: Field,
    ready_text: &str,
    errors: &mut ErrorList,
) {
    let number = |field: Field| status.int(field).unwrap_or(0);
    for field in bounded {
        if number(*field) > number(replicas) {
            errors.invalid(&STATUS.child(field.def().json), number(*field), ABOVE_REPLICAS);
        }
    }
    if number(available) > number(ready) {
        let text = format!("cannot be greater than {ready_text}");
        errors.invalid(&STATUS.child("availableReplicas"), number(available), text);
    }
}

fn not_decremented(new: &Doc, old: &Doc, path: &[Field], errors: &mut ErrorList) {
    let (new, old) = (new.int(path), old.int(path));
    if old.is_some_and(|old| new.unwrap_or(0) < old) {
        errors.invalid(&STATUS.child("collisionCount"), new.unwrap_or(0), "cannot be decremented");
    }
}

fn deployment_status(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    use a::deployment_status as st;
    if let Some(status) = new.root().and_then(|root| root.child(a::deployment::STATUS)) {
        let all = [
            st::OBSERVED_GENERATION,
            st::REPLICAS,
            st::UPDATED_REPLICAS,
            st::READY_REPLICAS,
            st::AVAILABLE_REPLICAS,
            st::UNAVAILABLE_REPLICAS,
            st::COLLISION_COUNT,
        ];
        non_negative(status, &all, &STATUS, errors);
        let bounded = [st::UPDATED_REPLICAS, st::READY_REPLICAS, st::AVAILABLE_REPLICAS];
        counters(
            status,
            st::REPLICAS,
            &bounded,
            st::AVAILABLE_REPLICAS,
            st::READY_REPLICAS,
            "readyReplicas",
            errors,
        );
    }
    not_decremented(new, old, &[a::deployment::STATUS, st::COLLISION_COUNT], errors);
}

fn replica_set_defaults(doc: &mut Doc) {
    use a::replica_set_spec as rs;
    let Some(spec) = spec_mut(doc, a::replica_set::SPEC) else { return };
    default_value(spec, rs::REPLICAS, 1);
    if let Some(template) = child_entry(spec, rs::TEMPLATE) {
        pod_defaults::pod_template_spec(template);
    }
}

fn replica_set_validate(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use a::replica_set_spec as rs;
    let empty = Struct::new(t::REPLICA_SET_SPEC);
    let spec = doc.root().and_then(|root| root.child(a::replica_set::SPEC)).unwrap_or(&empty);
    non_negative(spec, &[rs::REPLICAS, rs::MIN_READY_SECONDS], &SPEC, errors);
    selector_and_template(spec, rs::SELECTOR, rs::TEMPLATE, "deployment", ctx, errors);
    always_restarting(spec.child(rs::TEMPLATE), &SPEC.child("template"), "ReplicaSet", errors);
}

fn replica_set_status(new: &Doc, _: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    use a::replica_set_status as st;
    let Some(status) = new.root().and_then(|root| root.child(a::replica_set::STATUS)) else { return };
    let bounded = [st::FULLY_LABELED_REPLICAS, st::READY_REPLICAS, st::AVAILABLE_REPLICAS];
    non_negative(status, &bounded, &STATUS, errors);
    non_negative(status, &[st::REPLICAS, st::OBSERVED_GENERATION], &STATUS, errors);
    counters(
        status,
        st::REPLICAS,
        &bounded,
        st::AVAILABLE_REPLICAS,
        st::READY_REPLICAS,
        "readyReplicas",
        errors,
    );
}

fn daemon_set_defaults(doc: &mut Doc) {
    use a::daemon_set_spec as ds;
    let Some(spec) = spec_mut(doc, a::daemon_set::SPEC) else { return };
    if let Some(strategy) = child_entry(spec, ds::UPDATE_STRATEGY) {
        rolling_update(
            strategy,
            a::daemon_set_update_strategy::TYPE,
            a::daemon_set_update_strategy::ROLLING_UPDATE,
            &[
                (a::rolling_update_daemon_set::MAX_UNAVAILABLE, Value::Int(1)),
                (a::rolling_update_daemon_set::MAX_SURGE, Value::Int(0)),
            ],
        );
    }
    default_value(spec, ds::REVISION_HISTORY_LIMIT, 10);
    if let Some(template) = child_entry(spec, ds::TEMPLATE) {
        pod_defaults::pod_template_spec(template);
    }
    // As upstream's conversion from the old API's field: who makes the object owns the annotation.
    if doc.meta().annotation(TEMPLATE_GENERATION).is_none() {
        doc.meta_mut().set_annotation(TEMPLATE_GENERATION, "0");
    }
}

fn template_generation(doc: &Doc) -> i64 {
    doc.meta().annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn daemon_set_prepare_update(new: &mut Doc, old: &Doc, _: &Ctx<'_>) {
    let path = [a::daemon_set::SPEC, a::daemon_set_spec::TEMPLATE];
    let generation = template_generation(old);
    let next = if new.get(&path) == old.get(&path) { generation } else { generation + 1 };
    if next > 0 {
        new.meta_mut().set_annotation(TEMPLATE_GENERATION, itoa::Buffer::new().format(next));
    }
}

fn daemon_set_validate(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use a::daemon_set_spec as ds;
    use a::rolling_update_daemon_set as ru;
    let empty = Struct::new(t::DAEMON_SET_SPEC);
    let spec = doc.root().and_then(|root| root.child(a::daemon_set::SPEC)).unwrap_or(&empty);
    selector_and_template(spec, ds::SELECTOR, ds::TEMPLATE, "daemonset", ctx, errors);
    always_restarting(spec.child(ds::TEMPLATE), &SPEC.child("template"), "DaemonSet", errors);
    non_negative(spec, &[ds::MIN_READY_SECONDS, ds::REVISION_HISTORY_LIMIT], &SPEC, errors);
    kept_number(doc, TEMPLATE_GENERATION, &SPEC.child("templateGeneration"), errors);
    let Some(strategy) = spec.child(ds::UPDATE_STRATEGY) else { return };
    let at = SPEC.child("updateStrategy");
    match strategy.str(a::daemon_set_update_strategy::TYPE) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = at.child("rollingUpdate");
            let Some(rolling) = strategy.child(a::daemon_set_update_strategy::ROLLING_UPDATE) else {
                errors.required(&at, "");
                return;
            };
            let (unavailable, surge) = (rolling.get(ru::MAX_UNAVAILABLE), rolling.get(ru::MAX_SURGE));
            let unavailable_number = int_or_percent(unavailable, &at.child("maxUnavailable"), errors);
            let surge_number = int_or_percent(surge, &at.child("maxSurge"), errors);
            at_most_100_percent(unavailable, &at.child("maxUnavailable"), errors);
            at_most_100_percent(surge, &at.child("maxSurge"), errors);
            if unavailable_number != 0 && surge_number != 0 {
                let text = "may not be set when maxUnavailable is non-zero";
                errors.invalid(&at.child("maxSurge"), json_text(surge), text);
            } else if unavailable_number == 0 && surge_number == 0 {
                errors.required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
            }
        }
        _ => {
            let value = json_text(Some(&Value::Struct(strategy.clone())));
            errors.not_supported(&at, value, &["RollingUpdate", "OnDelete"]);
        }
    }
}

fn daemon_set_status(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    use a::daemon_set_status as st;
    if let Some(status) = new.root().and_then(|root| root.child(a::daemon_set::STATUS)) {
        let all = [
            st::CURRENT_NUMBER_SCHEDULED,
            st::NUMBER_MISSCHEDULED,
            st::DESIRED_NUMBER_SCHEDULED,
            st::NUMBER_READY,
            st::OBSERVED_GENERATION,
            st::UPDATED_NUMBER_SCHEDULED,
            st::NUMBER_AVAILABLE,
            st::NUMBER_UNAVAILABLE,
            st::COLLISION_COUNT,
        ];
        non_negative(status, &all, &STATUS, errors);
    }
    not_decremented(new, old, &[a::daemon_set::STATUS, st::COLLISION_COUNT], errors);
}

fn stateful_set_defaults(doc: &mut Doc) {
    use a::stateful_set_spec as ss;
    let Some(spec) = spec_mut(doc, a::stateful_set::SPEC) else { return };
    default_str(spec, ss::POD_MANAGEMENT_POLICY, "OrderedReady");
    if let Some(strategy) = child_entry(spec, ss::UPDATE_STRATEGY) {
        use a::stateful_set_update_strategy as us;
        if strategy.str(us::TYPE).is_empty() {
            strategy.set(us::TYPE, "RollingUpdate");
            child_entry(strategy, us::ROLLING_UPDATE);
        }
        if strategy.str(us::TYPE) == "RollingUpdate"
            && let Some(rolling) = strategy.child_mut(us::ROLLING_UPDATE)
        {
            use a::rolling_update_stateful_set_strategy as ru;
            default_value(rolling, ru::PARTITION, 0);
            // Dropped again where its gate is off.
            default_value(rolling, ru::MAX_UNAVAILABLE, 1);
        }
    }
    if let Some(policy) = child_entry(spec, ss::PERSISTENT_VOLUME_CLAIM_RETENTION_POLICY) {
        use a::stateful_set_persistent_volume_claim_retention_policy as rp;
        default_str(policy, rp::WHEN_DELETED, "Retain");
        default_str(policy, rp::WHEN_SCALED, "Retain");
    }
    default_value(spec, ss::REPLICAS, 1);
    default_value(spec, ss::REVISION_HISTORY_LIMIT, 10);
    if let Some(template) = child_entry(spec, ss::TEMPLATE) {
        pod_defaults::pod_template_spec(template);
    }
    for claim in structs_mut(spec, ss::VOLUME_CLAIM_TEMPLATES) {
        pvc::claim_defaults(claim);
        // Claims in the list carry their own type, as upstream's conversion leaves it there.
        default_str(claim, c::persistent_volume_claim::API_VERSION, "v1");
        default_str(claim, c::persistent_volume_claim::KIND, "PersistentVolumeClaim");
    }
}

fn stateful_set_validate(doc: &Doc, ctx: &Ctx<'_>, create: bool, errors: &mut ErrorList) {
    use a::stateful_set_spec as ss;
    let empty = Struct::new(t::STATEFUL_SET_SPEC);
    let spec = doc.root().and_then(|root| root.child(a::stateful_set::SPEC)).unwrap_or(&empty);
    let policy = spec.str(ss::POD_MANAGEMENT_POLICY);
    match policy {
        "" => errors.required(&SPEC.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => {
            errors.invalid(&SPEC.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'");
        }
    }
    if let Some(ordinals) = spec.child(ss::ORDINALS) {
        non_negative(ordinals, &[a::stateful_set_ordinals::START], &SPEC.child("ordinals"), errors);
    }
    update_strategy(spec, errors);
    if create {
        let at = SPEC.child("volumeClaimTemplates");
        for (i, claim) in structs(spec, ss::VOLUME_CLAIM_TEMPLATES) {
            if let Some(claim_spec) = claim.child(c::persistent_volume_claim::SPEC) {
                pvc::validate_spec(claim_spec, &at.index(i).child("spec"), errors);
            }
        }
        let service = spec.str(ss::SERVICE_NAME);
        if !service.is_empty() {
            errors.invalid_each(&SPEC.child("serviceName"), service, names::dns1123_label(service));
        }
    }
    non_negative(spec, &[ss::REPLICAS, ss::MIN_READY_SECONDS], &SPEC, errors);
    let effective = as_pods_will_be(spec);
    let spec_for_template = effective.as_ref().unwrap_or(spec);
    selector_and_template(spec_for_template, ss::SELECTOR, ss::TEMPLATE, "statefulset", ctx, errors);
    always_restarting(spec.child(ss::TEMPLATE), &SPEC.child("template"), "StatefulSet", errors);
}

/// The spec with what the controller sets in pods: no host name or subdomain of its own, and the volumes that its claim
/// templates stand for. `None` where nothing differs.
fn as_pods_will_be(spec: &Struct) -> Option<Struct> {
    use a::stateful_set_spec as ss;
    let names = [c::pod_spec::HOSTNAME, c::pod_spec::SUBDOMAIN];
    let pod = spec.child(ss::TEMPLATE).and_then(|template| template.child(c::pod_template_spec::SPEC));
    let named = pod.is_some_and(|pod| names.iter().any(|name| !pod.str(*name).is_empty()));
    let claimed = !spec.list(ss::VOLUME_CLAIM_TEMPLATES).is_empty();
    if !named && !claimed {
        return None;
    }
    let mut out = spec.clone();
    if named
        && let Some(pod) =
            out.child_mut(ss::TEMPLATE).and_then(|template| template.child_mut(c::pod_template_spec::SPEC))
    {
        for name in names {
            pod.remove(name);
        }
    }
    if !claimed {
        return Some(out);
    }
    let mut volumes: Vec<Value> = Vec::new();
    let mut claims: Vec<String> = Vec::new();
    for (_, claim) in structs(spec, ss::VOLUME_CLAIM_TEMPLATES) {
        let name = claim
            .child(c::persistent_volume_claim::METADATA)
            .map_or("", |meta| meta.str(crate::f::meta_v1::object_meta::NAME));
        let mut source = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE);
        source.set(c::persistent_volume_claim_volume_source::CLAIM_NAME, name);
        let mut volume = Struct::new(crate::t::core_v1::VOLUME);
        volume.set(c::volume::NAME, name);
        volume.set(c::volume::PERSISTENT_VOLUME_CLAIM, source);
        volumes.push(Value::Struct(volume));
        claims.push(name.to_owned());
    }
    let template = out.child_mut(ss::TEMPLATE)?;
    let pod = child_entry(template, c::pod_template_spec::SPEC)?;
    for volume in pod.list(c::pod_spec::VOLUMES) {
        let name = volume.as_struct().map_or("", |volume| volume.str(c::volume::NAME));
        if !claims.iter().any(|claim| claim == name) {
            volumes.push(volume.clone());
        }
    }
    pod.set(c::pod_spec::VOLUMES, volumes);
    Some(out)
}

fn update_strategy(spec: &Struct, errors: &mut ErrorList) {
    use a::rolling_update_stateful_set_strategy as ru;
    use a::stateful_set_update_strategy as us;
    let at = SPEC.child("updateStrategy");
    let Some(strategy) = spec.child(a::stateful_set_spec::UPDATE_STRATEGY) else {
        errors.required(&at, "");
        return;
    };
    let rolling = strategy.child(us::ROLLING_UPDATE);
    match strategy.str(us::TYPE) {
        "" => errors.required(&at, ""),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let value = json_text(Some(&Value::Struct(rolling.clone())));
                let text = "only allowed for updateStrategy 'RollingUpdate'";
                errors.invalid(&at.child("rollingUpdate"), value, text);
            }
        }
        "RollingUpdate" => {
            let at = at.child("rollingUpdate");
            if let Some(rolling) = rolling {
                non_negative(rolling, &[ru::PARTITION], &at, errors);
            }
            if let Some(value) = rolling.and_then(|rolling| rolling.get(ru::MAX_UNAVAILABLE)) {
                let at = at.child("maxUnavailable");
                if int_or_percent(Some(value), &at, errors) == 0 {
                    errors.invalid(&at, json_text(Some(value)), "cannot be 0");
                }
                at_most_100_percent(Some(value), &at, errors);
            }
        }
        _ => {
            let value = json_text(Some(&Value::Struct(strategy.clone())));
            errors.invalid(&at, value, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
    if let Some(policy) = spec.child(a::stateful_set_spec::PERSISTENT_VOLUME_CLAIM_RETENTION_POLICY) {
        use a::stateful_set_persistent_volume_claim_retention_policy as rp;
        let at = SPEC.child("persistentVolumeClaimRetentionPolicy");
        for field in [rp::WHEN_DELETED, rp::WHEN_SCALED] {
            let value = policy.str(field);
            if !matches!(value, "Retain" | "Delete") {
                errors.not_supported(&at.child(field.def().json), value, &["Retain", "Delete"]);
            }
        }
    }
}

fn stateful_set_update(new: &Doc, old: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use a::stateful_set_spec as ss;
    stateful_set_validate(new, ctx, false, errors);
    let spec = |doc: &Doc| doc.root().and_then(|root| root.child(a::stateful_set::SPEC)).cloned();
    let (Some(mut now), Some(mut before)) = (spec(new), spec(old)) else { return };
    for field in [
        ss::REPLICAS,
        ss::TEMPLATE,
        ss::UPDATE_STRATEGY,
        ss::MIN_READY_SECONDS,
        ss::ORDINALS,
        ss::REVISION_HISTORY_LIMIT,
        ss::PERSISTENT_VOLUME_CLAIM_RETENTION_POLICY,
    ] {
        now.remove(field);
        before.remove(field);
    }
    if now != before {
        errors.forbidden(
            &SPEC,
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

fn stateful_set_status(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    use a::stateful_set_status as st;
    if let Some(status) = new.root().and_then(|root| root.child(a::stateful_set::STATUS)) {
        let bounded =
            [st::READY_REPLICAS, st::CURRENT_REPLICAS, st::UPDATED_REPLICAS, st::AVAILABLE_REPLICAS];
        non_negative(status, &[st::REPLICAS, st::OBSERVED_GENERATION, st::COLLISION_COUNT], &STATUS, errors);
        non_negative(status, &bounded, &STATUS, errors);
        let text = "status.readyReplicas";
        counters(status, st::REPLICAS, &bounded, st::AVAILABLE_REPLICAS, st::READY_REPLICAS, text, errors);
    }
    not_decremented(new, old, &[a::stateful_set::STATUS, st::COLLISION_COUNT], errors);
}

/// Labels given to an object that has none, from its template (ReplicationController, Job).
pub fn labels_from_template(doc: &mut Doc, labels: Option<Map>) {
    use crate::f::meta_v1::object_meta as om;
    let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { return };
    let mut meta = doc.meta_mut();
    if meta.view().labels().is_none_or(Map::is_empty) {
        meta.as_struct().set(om::LABELS, labels);
    }
}
