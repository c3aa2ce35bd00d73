//! Every row of `rows/`.

use std::collections::BTreeMap;

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
