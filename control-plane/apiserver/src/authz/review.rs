//! SubjectAccessReviews and SelfSubjectRulesReviews: the authorizers asked through the API.

use super::{Attributes, Authorizer, Decision, PolicyStore, node_name};
use crate::authn::UserInfo;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SelfSubjectAccessReviewSpec,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use keelson_api::field_errors::{BadValue, ErrorList, FieldPath};
use keelson_api::fields_selector::{FieldSelector, FieldTerm};
use keelson_api::names;
use keelson_api::selectors::{LabelSelector, Operator, Requirement};
use std::sync::Arc;

fn check_spec(
    resource: Option<&ResourceAttributes>,
    other: Option<&NonResourceAttributes>,
    errors: &mut ErrorList,
) {
    let spec = FieldPath::new("spec");
    if resource.is_some() && other.is_some() {
        let path = spec.child("nonResourceAttributes");
        errors.invalid(&path, as_go(other), "cannot be specified in combination with resourceAttributes");
    }
    if resource.is_none() && other.is_none() {
        let path = spec.child("resourceAttributes");
        let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.invalid(&path, as_go(other), text);
    }
}

/// As upstream's internal type is printed, whose fields have no JSON names.
fn as_go(other: Option<&NonResourceAttributes>) -> BadValue {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    BadValue::json(&other.map(|o| serde_json::json!({ "Path": text(&o.path), "Verb": text(&o.verb) })))
}

/// What a question about some objects only says of them: a selector as one text or in parts, which hold together.
fn check_selectors(resource: Option<&ResourceAttributes>, errors: &mut ErrorList) {
    let at = FieldPath::new("spec.resourceAttributes");
    let Some(resource) = resource else { return };
    if let Some(selector) = &resource.field_selector {
        let at = at.child("fieldSelector");
        let terms = selector.requirements.as_deref().unwrap_or_default();
        one_way(selector.raw_selector.as_deref(), terms.len(), &at, errors);
        for (i, term) in terms.iter().enumerate() {
            let list = at.child("requirements");
            let at = list.index(i);
            if term.key.is_empty() {
                errors.required(&at.child("key"), "must be specified");
            }
            check_values(&term.operator, term.values.as_deref(), &at, errors);
        }
    }
    if let Some(selector) = &resource.label_selector {
        let at = at.child("labelSelector");
        let terms = selector.requirements.as_deref().unwrap_or_default();
        one_way(selector.raw_selector.as_deref(), terms.len(), &at, errors);
        for (i, term) in terms.iter().enumerate() {
            let list = at.child("requirements");
            let at = list.index(i);
            check_values(&term.operator, term.values.as_deref(), &at, errors);
            errors.invalid_each(&at.child("key"), term.key.as_str(), names::qualified_name(&term.key));
            let values = at.child("values");
            for (i, value) in term.values.iter().flatten().enumerate() {
                errors.invalid_each(&values.index(i), value.as_str(), names::label_value(value));
            }
        }
    }
}

fn one_way(raw: Option<&str>, terms: usize, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let raw = raw.unwrap_or_default();
    if !raw.is_empty() && terms > 0 {
        errors.invalid(&at.child("rawSelector"), raw, "may not specified at the same time as requirements");
    }
    if raw.is_empty() && terms == 0 {
        let text = format!("when {at} is specified, requirements or rawSelector is required");
        errors.required(&at.child("requirements"), text);
    }
}

/// Operators nobody knows yet are let through: a newer server may ask.
fn check_values(operator: &str, values: Option<&[String]>, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let none = values.is_none_or(<[String]>::is_empty);
    match operator {
        "In" | "NotIn" if none => {
            errors.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !none => {
            let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&at.child("values"), text);
        }
        _ => {}
    }
}

/// What a SubjectAccessReview (or, with its namespace, a LocalSubjectAccessReview) asks. The errors are the 422's.
pub fn access_review_attributes(
    spec: &SubjectAccessReviewSpec,
    local_namespace: Option<&str>,
) -> Result<Attributes, ErrorList> {
    let mut errors = ErrorList::default();
    let path = FieldPath::new("spec");
    let (resource, other) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    check_spec(resource, other, &mut errors);
    let user = spec.user.clone().unwrap_or_default();
    let groups = spec.groups.clone().unwrap_or_default();
    if user.is_empty() && groups.is_empty() {
        errors.invalid(&path.child("user"), user.as_str(), "at least one of user or group must be specified");
    }
    check_selectors(resource, &mut errors);
    if let Some(namespace) = local_namespace {
        let given = spec.resource_attributes.as_ref().map(|r| r.namespace.as_deref().unwrap_or_default());
        if let Some(given) = given.filter(|given| *given != namespace) {
            let at = path.child("resourceAttributes");
            errors.invalid(&at.child("namespace"), given, "must match metadata.namespace");
        }
        if spec.non_resource_attributes.is_some() {
            let at = path.child("nonResourceAttributes");
            errors.invalid(&at, as_go(other), "disallowed on this kind of request");
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let extra = spec.extra.clone().unwrap_or_default();
    let user = UserInfo { name: user, uid: spec.uid.clone().unwrap_or_default(), groups, extra };
    Ok(attributes(Arc::new(user), spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()))
}

/// What a SelfSubjectAccessReview asks.
pub fn self_access_review_attributes(
    spec: &SelfSubjectAccessReviewSpec,
    user: &Arc<UserInfo>,
) -> Result<Attributes, ErrorList> {
    let mut errors = ErrorList::default();
    let (resource, other) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    check_spec(resource, other, &mut errors);
    check_selectors(resource, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(attributes(user.clone(), spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()))
}

fn attributes(
    user: Arc<UserInfo>,
    resource: Option<&ResourceAttributes>,
    other: Option<&NonResourceAttributes>,
) -> Attributes {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let Some(r) = resource else {
        let (path, verb) = other.map(|o| (text(&o.path), text(&o.verb))).unwrap_or_default();
        return Attributes { user, verb, path, ..Attributes::default() };
    };
    Attributes {
        user,
        verb: text(&r.verb),
        api_group: text(&r.group),
        api_version: text(&r.version),
        resource: text(&r.resource),
        subresource: text(&r.subresource),
        namespace: text(&r.namespace),
        name: text(&r.name),
        is_resource: true,
        field_selector: field_terms(r),
        label_selector: label_requirements(r),
        ..Attributes::default()
    }
}

/// Terms that cannot be understood are left out: the question is then about more, never about less.
fn field_terms(r: &ResourceAttributes) -> Vec<FieldTerm> {
    let Some(selector) = &r.field_selector else { return Vec::new() };
    if let Some(raw) = selector.raw_selector.as_deref().filter(|raw| !raw.is_empty()) {
        return FieldSelector::parse(raw).map(|s| s.terms().to_vec()).unwrap_or_default();
    }
    let requirements = selector.requirements.iter().flatten();
    requirements
        .filter_map(|term| {
            let equal = match term.operator.as_str() {
                "In" => true,
                "NotIn" => false,
                _ => return None,
            };
            let [value] = term.values.as_deref()? else { return None };
            Some(FieldTerm { field: term.key.clone(), value: value.clone(), equal })
        })
        .collect()
}

fn label_requirements(r: &ResourceAttributes) -> Vec<Requirement> {
    let Some(selector) = &r.label_selector else { return Vec::new() };
    if let Some(raw) = selector.raw_selector.as_deref().filter(|raw| !raw.is_empty()) {
        return LabelSelector::parse(raw).map(|s| s.requirements().to_vec()).unwrap_or_default();
    }
    let requirements = selector.requirements.iter().flatten();
    requirements
        .filter_map(|term| {
            let operator = match term.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return None,
            };
            Requirement::new(&term.key, operator, term.values.clone().unwrap_or_default()).ok()
        })
        .collect()
}

/// The answer to any of the access reviews.
pub fn review_status(authorizer: &dyn Authorizer, attributes: &Attributes) -> SubjectAccessReviewStatus {
    let some = |text: String| Some(text).filter(|t| !t.is_empty());
    let status = |allowed, denied, reason| SubjectAccessReviewStatus {
        allowed,
        denied,
        evaluation_error: None,
        reason: some(reason),
    };
    match authorizer.authorize(attributes) {
        Decision::Allow => status(true, None, authorizer.allowed_by(attributes)),
        Decision::Deny(reason) => status(false, Some(true), reason),
        Decision::NoOpinion(reason) => status(false, None, reason),
    }
}

/// The answer to a SelfSubjectRulesReview for a namespace.
pub fn rules_review(policy: &PolicyStore, user: &UserInfo, namespace: &str) -> SubjectRulesReviewStatus {
    let (rules, errors) = policy.rules_for(user, namespace);
    let some = |list: &[String]| Some(list.to_vec()).filter(|l| !l.is_empty());
    let mut status = SubjectRulesReviewStatus::default();
    for rule in &rules {
        if !rule.resources.is_empty() {
            status.resource_rules.push(ResourceRule {
                verbs: rule.verbs.clone(),
                api_groups: some(&rule.api_groups),
                resources: some(&rule.resources),
                resource_names: some(&rule.resource_names),
            });
        }
        if !rule.non_resource_urls.is_empty() {
            status.non_resource_rules.push(NonResourceRule {
                verbs: rule.verbs.clone(),
                non_resource_urls: some(&rule.non_resource_urls),
            });
        }
    }
    let mut problems = Vec::new();
    if node_name(user).is_some() {
        status.incomplete = true;
        problems.push("node authorizer does not support user rule resolution".to_owned());
    }
    problems.extend(errors);
    status.evaluation_error = match problems.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    };
    status
}
