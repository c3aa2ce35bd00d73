//! test/e2e/apimachinery/chunking.go

use crate::api::{Listed, POD_TEMPLATES, Refusal, Resource, name};
use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use anyhow::{Context, Result, anyhow, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::time::Duration;

const TOTAL: usize = 400;

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-api-machinery] Servers with support for API chunking",
        base: "chunking",
        level: "privileged",
        cases: cases![
            "should return chunks of results for list calls" => chunks,
            "should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow]" => compacted,
        ],
    }]
}

/// The BeforeEach: 400 pod templates, twenty at a time.
async fn fill(env: &Env) -> Result<Resource> {
    env.step("creating a large number of resources");
    let templates = env.of(&POD_TEMPLATES);
    stream::iter(0..TOTAL)
        .map(|index| {
            let templates = &templates;
            async move {
                let object = json!({
                    "metadata": { "name": format!("template-{index:04}") },
                    "template": { "spec": { "containers": [{ "name": "test", "image": "test2" }] } },
                });
                let mut tries = 3;
                loop {
                    match templates.create(&object).await {
                        Err(error) if tries == 0 => return Err(error),
                        Err(_) => tries -= 1,
                        Ok(_) => return Ok(()),
                    }
                }
            }
        })
        .buffer_unordered(20)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(templates)
}

/// The page's items continue the sequence at `found`, and what remains is what is missing.
fn check_page(page: &Listed, found: usize) -> Result<usize> {
    if page.next.is_empty() {
        ensure!(page.remaining.is_none(), "the last page says that {:?} remain", page.remaining);
    } else {
        let remaining = page.remaining.context("no remainingItemCount beside a continue token")?;
        ensure!(
            usize::try_from(remaining)? + page.items.len() + found == TOTAL,
            "{remaining} remain after {found} and {} items",
            page.items.len()
        );
    }
    for (index, item) in page.items.iter().enumerate() {
        let wanted = format!("template-{:04}", found + index);
        ensure!(name(item) == wanted, "{:?} where {wanted} belongs", name(item));
    }
    Ok(found + page.items.len())
}

// chunking.go: "should return chunks of results for list calls"
async fn chunks(env: Env) -> Result<()> {
    let templates = fill(&env).await?;
    env.step("retrieving those results in paged fashion several times");
    for _ in 0..3 {
        let (mut found, mut next, mut first) = (0, String::new(), None);
        loop {
            let page = templates.list(&[("limit", "17"), ("continue", &next)]).await?;
            ensure!(page.items.len() <= 17, "{} items on a page of 17", page.items.len());
            let version = first.get_or_insert_with(|| page.resource_version.clone());
            ensure!(
                page.resource_version == *version,
                "pages of versions {version} and {}",
                page.resource_version
            );
            found = check_page(&page, found)?;
            if page.next.is_empty() {
                break;
            }
            next = page.next;
        }
        ensure!(found == TOTAL, "{found} items in all");
    }
    env.step("retrieving those results all at once");
    let all = templates.list(&[("limit", &(TOTAL + 1).to_string())]).await?;
    ensure!(all.items.len() == TOTAL, "{} items in all", all.items.len());
    Ok(())
}

// chunking.go: "should support continue listing from the last key if the original version has been compacted away, …"
async fn compacted(env: Env) -> Result<()> {
    let templates = fill(&env).await?;
    let (tenth, limit) = (TOTAL / 10, (TOTAL / 10).to_string());
    env.step("retrieving the first page");
    let first = templates.list(&[("limit", &limit)]).await?;
    check_page(&first, 0)?;

    env.step("retrieving the second page until the token expires");
    // Twice upstream's compaction interval of five minutes.
    let token = env
        .wait("the token to expire", Duration::from_secs(20), Duration::from_secs(600), async || {
            let Err(error) = templates.list(&[("limit", &limit), ("continue", &first.next)]).await else {
                return Ok(None);
            };
            let status = match error.downcast_ref::<Refusal>() {
                Some(refusal) if refusal.status["reason"] == "Expired" => refusal.status.clone(),
                _ => return Err(error),
            };
            let token = status["metadata"]["continue"].as_str().unwrap_or_default();
            if token.is_empty() {
                return Err(anyhow!("expect a continue token in {status}"));
            }
            Ok(Some(token.to_owned()))
        })
        .await?;

    env.step("retrieving the second page again with the token received with the error message");
    let second = templates.list(&[("limit", &limit), ("continue", &token)]).await?;
    ensure!(second.resource_version != first.resource_version, "the version is still that of the first page");
    ensure!(second.items.len() == tenth, "{} items on the second page", second.items.len());
    let mut found = check_page(&second, tenth)?;

    env.step("retrieving all remaining pages");
    let (mut next, version) = (second.next, second.resource_version);
    loop {
        let page = templates.list(&[("limit", &limit), ("continue", &next)]).await?;
        ensure!(page.items.len() <= tenth, "{} items on a page of {tenth}", page.items.len());
        ensure!(
            page.resource_version == version,
            "pages of versions {version} and {}",
            page.resource_version
        );
        found = check_page(&page, found)?;
        if page.next.is_empty() {
            break;
        }
        next = page.next;
    }
    ensure!(found == TOTAL, "{found} items in all");
    Ok(())
}
