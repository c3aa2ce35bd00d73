//! SubjectAccessReviews and SelfSubjectRulesReviews: the authorizers asked through the API.

use super::{Attributes, Authorizer, Decision, PolicyStore, node_name};
use crate::authn::UserInfo;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SelfSubjectAccessReviewSpec,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use keelson_api::field_errors::{ErrorList, FieldPath};
use keelson_api::fields_selector::{FieldSelector, FieldTerm};
use keelson_api::selectors::{LabelSelector, Operator, Requirement};
use std::sync::Arc;

fn check_spec(resource: bool, other: bool, errors: &mut ErrorList) {
    let spec = FieldPath::new("spec");
    if resource && other {
        let path = spec.child("nonResourceAttributes");
        errors.invalid(&path, "", "cannot be specified in combination with resourceAttributes");
    }
    if !resource && !other {
        let path = spec.child("resourceAttributes");
        errors.invalid(
            &path,
            "",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        );
    }
}

/// What a SubjectAccessReview (or, with its namespace, a LocalSubjectAccessReview) asks. The errors are the 422's.
pub fn access_review_attributes(
    spec: &SubjectAccessReviewSpec,
    local_namespace: Option<&str>,
) -> Result<Attributes, ErrorList> {
    let mut errors = ErrorList::default();
    let path = FieldPath::new("spec");
    check_spec(spec.resource_attributes.is_some(), spec.non_resource_attributes.is_some(), &mut errors);
    let user = spec.user.clone().unwrap_or_default();
    let groups = spec.groups.clone().unwrap_or_default();
    if user.is_empty() && groups.is_empty() {
        errors.invalid(&path.child("user"), user.as_str(), "at least one of user or group must be specified");
    }
    if let Some(namespace) = local_namespace {
        let given = spec.resource_attributes.as_ref().map(|r| r.namespace.as_deref().unwrap_or_default());
        if let Some(given) = given.filter(|given| *given != namespace) {
            let at = path.child("resourceAttributes");
            errors.invalid(&at.child("namespace"), given, "must match metadata.namespace");
        }
        if spec.non_resource_attributes.is_some() {
            errors.invalid(&path.child("nonResourceAttributes"), "", "disallowed on this kind of request");
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
    check_spec(spec.resource_attributes.is_some(), spec.non_resource_attributes.is_some(), &mut errors);
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
