//! test/e2e/apimachinery/discovery.go and aggregated_discovery.go

use crate::cases;
use crate::env::{Env, suffix};
use crate::suite::Group;
use crate::tests::crd::{self, allow_all};
use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::Value;
use std::time::Duration;

/// Upstream's `wait.ForeverTestTimeout`.
pub const FOREVER: Duration = Duration::from_secs(30);

pub fn groups() -> Vec<Group> {
    vec![
        Group {
            prefix: "[sig-api-machinery] Discovery",
            base: "discovery",
            level: "privileged",
            cases: cases![
                "should validate PreferredVersion for each APIGroup" => preferred,
                "should locate the groupVersion and a resource within each APIGroup" => located,
            ],
        },
        Group {
            prefix: "[sig-api-machinery] AggregatedDiscovery",
            base: "aggregateddiscovery",
            level: "privileged",
            cases: cases![
                "should support aggregated discovery interface" => aggregated,
                "should support aggregated discovery interface for CRDs" => aggregated_crd,
                "should support raw aggregated discovery endpoint Accept headers" => raw,
                "should support raw aggregated discovery request for CRDs" => raw_crd,
            ],
        },
    ]
}

/// A resource that every server has, for each group; the table of both of upstream's files.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "v1", "apiservices"),
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
];

pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

// discovery.go: "should validate PreferredVersion for each APIGroup"
async fn preferred(env: Env) -> Result<()> {
    let list = env.api().get("/apis/").await?;
    ensure!(
        list["kind"] == "APIGroupList" && !items(&list["groups"]).is_empty(),
        "missing APIGroups: {list}"
    );
    for group in items(&list["groups"]) {
        let name = group["name"].as_str().context("a group without a name")?;
        // Groups of other tests come and go.
        if name.ends_with(".example.com") {
            continue;
        }
        env.step(format!("Checking APIGroup: {name}"));
        let group = env.api().get(&format!("/apis/{name}/")).await?;
        let wanted = &group["preferredVersion"]["groupVersion"];
        ensure!(
            wanted.is_string()
                && items(&group["versions"]).iter().any(|version| version["groupVersion"] == *wanted),
            "the preferred version {wanted} of {name} is not one of {}",
            group["versions"]
        );
    }
    Ok(())
}

// discovery.go: "should locate the groupVersion and a resource within each APIGroup"
async fn located(env: Env) -> Result<()> {
    let legacy = [("", "v1", "namespaces")];
    for (group, version, resource) in legacy.iter().chain(EXPECTED) {
        let (path, wanted) = if group.is_empty() {
            (format!("/api/{version}"), (*version).to_owned())
        } else {
            (format!("/apis/{group}/{version}"), format!("{group}/{version}"))
        };
        env.step(format!("Requesting APIResourceList from {path}"));
        let list = env.api().get(&path).await?;
        ensure!(list["groupVersion"] == wanted, "{path} is about {}", list["groupVersion"]);
        ensure!(
            items(&list["resources"]).iter().any(|found| found["name"] == *resource),
            "{resource} was not found in {}",
            list["resources"]
        );
    }
    Ok(())
}

/// The aggregated document below `/api` or `/apis`.
async fn document(env: &Env, path: &str) -> Result<Value> {
    const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = env.api().send(Method::GET, path, &[("Accept", ACCEPT)], "").await?.accepted()?;
    let document = answer.json()?;
    ensure!(
        document["kind"] == "APIGroupDiscoveryList" && document["apiVersion"] == "apidiscovery.k8s.io/v2",
        "{path} answers a {} of {}",
        document["kind"],
        document["apiVersion"]
    );
    Ok(document)
}

fn holds(document: &Value, group: &str, version: &str, resource: &str) -> bool {
    items(&document["items"])
        .iter()
        .filter(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group)
        .flat_map(|item| items(&item["versions"]))
        .filter(|item| item["version"] == version)
        .flat_map(|item| items(&item["resources"]))
        .any(|item| item["resource"] == resource)
}

// aggregated_discovery.go: "should support raw aggregated discovery endpoint Accept headers"
async fn raw(env: Env) -> Result<()> {
    let document_of_groups = document(&env, "/apis").await?;
    for (group, version, resource) in EXPECTED {
        ensure!(
            holds(&document_of_groups, group, version, resource),
            "expected {group} {version} {resource} to exist in discovery"
        );
    }
    let legacy = document(&env, "/api").await?;
    ensure!(holds(&legacy, "", "v1", "namespaces"), "expected namespaces in the legacy document");
    Ok(())
}

/// What client-go makes of both documents: groups and versions, and each version's resources.
async fn combined(env: &Env) -> Result<Value> {
    let mut all = document(env, "/apis").await?;
    let legacy = document(env, "/api").await?;
    let list = all["items"].as_array_mut().context("no items")?;
    list.extend_from_slice(items(&legacy["items"]));
    Ok(all)
}

// aggregated_discovery.go: "should support aggregated discovery interface"
async fn aggregated(env: Env) -> Result<()> {
    let all = combined(&env).await?;
    let legacy = [("", "v1", "namespaces")];
    for (group, version, resource) in legacy.iter().chain(EXPECTED) {
        ensure!(holds(&all, group, version, resource), "expected {group} {version} {resource} to be present");
    }
    // client-go asks both documents without naming a type first, too: the old form must stay for it.
    let groups = env.api().get("/apis").await?;
    for (group, version, _) in EXPECTED {
        let versions = items(&groups["groups"])
            .iter()
            .filter(|found| found["name"] == *group)
            .flat_map(|found| items(&found["versions"]));
        ensure!(
            versions.into_iter().any(|found| found["version"] == *version),
            "expected {group}/{version} among the groups"
        );
    }
    Ok(())
}

/// Makes a CRD in a group of its own and waits until the predicate on the documents is true.
async fn with_crd(env: &Env, legacy_too: bool) -> Result<()> {
    let group = format!("group{}.example.com", suffix());
    let crd = crd::Definition::new(&group, "testcrd", "Namespaced", &[("v1", allow_all())]);
    crd.create_primed(env).await?;
    env.wait("the CRD to appear in discovery", Duration::from_secs(1), FOREVER, async || {
        let all = if legacy_too { combined(env).await? } else { document(env, "/apis").await? };
        Ok(holds(&all, &group, "v1", "testcrds").then_some(()))
    })
    .await
}

// aggregated_discovery.go: "should support raw aggregated discovery request for CRDs"
async fn raw_crd(env: Env) -> Result<()> {
    with_crd(&env, false).await
}

// aggregated_discovery.go: "should support aggregated discovery interface for CRDs"
async fn aggregated_crd(env: Env) -> Result<()> {
    with_crd(&env, true).await
}
