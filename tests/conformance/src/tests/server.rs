//! test/e2e/apimachinery/server_version.go and table_conversion.go

use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use anyhow::{Result, ensure};
use http::{Method, StatusCode};
use serde_json::json;

pub fn groups() -> Vec<Group> {
    vec![
        Group {
            prefix: "[sig-api-machinery] server version",
            base: "server-version",
            level: "privileged",
            cases: cases!["should find the server version" => version],
        },
        Group {
            prefix: "[sig-api-machinery] Servers with support for Table transformation",
            base: "tables",
            level: "privileged",
            cases: cases!["should return a 406 for a backend which does not implement metadata" => not_acceptable],
        },
    ]
}

// server_version.go: "should find the server version"
async fn version(env: Env) -> Result<()> {
    env.step("Request ServerVersion");
    let version = env.api().get("/version").await?;
    let (major, minor) =
        (version["major"].as_str().unwrap_or_default(), version["minor"].as_str().unwrap_or_default());
    env.step("Confirm major version");
    ensure!(major.len() == 1 && major.bytes().all(|byte| (b'1'..=b'9').contains(&byte)), "major {major:?}");
    env.step("Confirm minor version");
    let digits = minor.len() - minor.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let other = minor[digits..].bytes().any(|byte| byte.is_ascii_digit());
    ensure!(digits > 0 && !other, "minor {minor:?}");
    Ok(())
}

// table_conversion.go: "should return a 406 for a backend which does not implement metadata"
async fn not_acceptable(env: Env) -> Result<()> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "nonResourceAttributes": { "path": "/", "verb": "get" } },
    });
    let headers =
        [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("Content-Type", "application/json")];
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = env.api().send(Method::POST, path, &headers, review.to_string()).await?;
    ensure!(answer.code == StatusCode::NOT_ACCEPTABLE, "{}: {}", answer.code, answer.text());
    let status = answer.json()?;
    ensure!(status["kind"] == "Status" && status["code"] == 406, "{status}");
    Ok(())
}
