//! Every row of `rows/`, and that no type of the complete groups goes without.

use std::collections::BTreeMap;

use keelson_api::schema::Verbs;
use keelson_api::table::Table;
use keelson_base::gates::Gates;
use keelson_validation::{Outcome, check, load, rows};

/// Rows in all, and of each kind, at least.
const LEAST: usize = 1_500;
const LEAST_OF_A_KIND: usize = 8;

#[test]
fn every_row_comes_out_as_upstreams() {
    let gates = Gates::default();
    let table = Table::builtin(&gates);
    let groups = load(&rows::folder()).expect("the row files");
    let (mut total, mut wrong) = (0, Vec::new());
    let mut of_kind = BTreeMap::<&str, usize>::new();
    for group in &groups {
        let (mut same, mut kinds) = (0, BTreeMap::<&str, usize>::new());
        for row in &group.rows {
            *kinds.entry(row.operation.as_str()).or_default() += 1;
            if row.operation != "columns" {
                *of_kind.entry(group.bases[&row.on]["kind"].as_str().unwrap_or_default()).or_default() += 1;
            }
            let text = match check(group, row, &table, &gates) {
                Ok(Outcome::Same) => {
                    same += 1;
                    continue;
                }
                Ok(Outcome::Differs(text)) => text,
                Err(why) => format!("{why:#}"),
            };
            wrong.push(format!(
                "{}:{} ({} {}, {}): {text}",
                group.name, row.line, row.operation, row.on, row.from
            ));
        }
        let count = group.rows.len();
        total += count;
        println!("{:<28} {count:>5} rows, {same:>5} as upstream's  {kinds:?}", group.name);
    }
    println!("{:<28} {total:>5} rows of {} kinds: {of_kind:?}", "all", of_kind.len());
    assert!(wrong.is_empty(), "{} of {total} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(total >= LEAST, "{total} rows, at least {LEAST} are wanted");
    let few: Vec<_> = of_kind.iter().filter(|(_, count)| **count < LEAST_OF_A_KIND).collect();
    assert!(few.is_empty() && of_kind.len() >= 40, "kinds of too few rows: {few:?}");
}

/// Groups whose types' rules, defaults and columns are upstream's whole.
const COMPLETE: &[&str] = &[
    "",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// A type without defaults has a row that says so: what goes in comes out.
#[test]
fn every_type_of_a_complete_group_has_rows_of_each_kind() {
    let table = Table::builtin(&Gates::default());
    let mut counts = BTreeMap::<(String, String), BTreeMap<&str, usize>>::new();
    for group in &load(&rows::folder()).expect("the row files") {
        for row in &group.rows {
            let text = |name: &str| group.bases[&row.on][name].as_str().unwrap_or_default().to_owned();
            let kind = match row.operation.as_str() {
                "default" => "defaults",
                "cells" => "cells",
                "columns" => "columns",
                "store" => "stores",
                _ => "rules",
            };
            *counts.entry((text("apiVersion"), text("kind"))).or_default().entry(kind).or_default() += 1;
        }
    }
    let mut missing = Vec::new();
    let mut types = 0;
    for row in table.rows().iter().filter(|row| COMPLETE.contains(&&*row.group)) {
        // Another version's objects are the same ones, and what is not stored has no rules of its own.
        if !row.is_hub() || !row.verbs.has(Verbs::WATCH) {
            continue;
        }
        types += 1;
        let gvk = row.gvk();
        let counted =
            counts.get(&(gvk.api_version().to_string(), gvk.kind.to_string())).cloned().unwrap_or_default();
        for (kind, least) in [("rules", LEAST_OF_A_KIND), ("defaults", 1), ("cells", 1), ("columns", 1)] {
            let found = counted.get(kind).copied().unwrap_or_default();
            if found < least {
                missing.push(format!("{} {}: {found} of {least} {kind}", gvk.api_version(), gvk.kind));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(types >= 40, "{types} types");
}
