//! test/e2e/apimachinery/crd_watch.go

use crate::api::Patch;
use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use crate::tests::crd::{Definition, allow_all, instantiate};
use crate::tests::watch::{expect, expect_none};
use anyhow::Result;
use serde_json::json;

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin]",
        base: "crd-watch",
        level: "privileged",
        cases: cases!["CustomResourceDefinition Watch watch on custom resource definition objects" => watch],
    }]
}

/// `NewNoxuV1CustomResourceDefinition`.
fn noxu() -> Definition {
    let mut noxu = Definition::new("mygroup.example.com", "noxu", "Cluster", &[("v1beta1", allow_all())]);
    noxu.object["spec"]["names"] = json!({
        "plural": "noxus",
        "singular": "nonenglishnoxu",
        "kind": "WishIHadChosenNoxu",
        "shortNames": ["foo", "bar", "abc", "def"],
        "listKind": "NoxuItemList",
        "categories": ["all"],
    });
    noxu
}

// crd_watch.go: "watch on custom resource definition objects"
async fn watch(env: Env) -> Result<()> {
    let noxu = noxu();
    noxu.create_primed(&env).await?;
    let resources = noxu.resources(&env, "v1beta1");
    let (a, b) = ("name1", "name2");
    let mut watches = Vec::new();
    for name in [a, b] {
        let selector = format!("metadata.name={name}");
        watches.push(resources.watch(&[("fieldSelector", &selector), ("timeoutSeconds", "600")]).await?);
    }
    let instance = |name: &str| {
        json!({
            "metadata": { "name": name },
            "content": { "key": "value" },
            "num": { "num1": 9_223_372_036_854_775_807_i64, "num2": 1_000_000 },
        })
    };
    for (name, own, other) in [(a, 0, 1), (b, 1, 0)] {
        env.step(format!("Creating {name}"));
        let created = instantiate(&resources, &instance(name)).await?;
        expect(&env, &mut watches[own], "ADDED", Some(&created)).await?;
        expect_none(&env, &mut watches[other], "ADDED", Some(&created)).await?;
    }
    for (name, own, other) in [(a, 0, 1), (b, 1, 0)] {
        env.step(format!("Modifying {name}"));
        let patch = json!([{ "op": "add", "path": "/dummy", "value": "test" }]);
        resources.patch(name, Patch::Json, &patch).await?;
        expect(&env, &mut watches[own], "MODIFIED", None).await?;
        expect_none(&env, &mut watches[other], "MODIFIED", None).await?;
    }
    for (name, own, other) in [(a, 0, 1), (b, 1, 0)] {
        env.step(format!("Deleting {name}"));
        resources.delete(name, &json!({})).await?;
        expect(&env, &mut watches[own], "DELETED", None).await?;
        expect_none(&env, &mut watches[other], "DELETED", None).await?;
    }
    Ok(())
}
