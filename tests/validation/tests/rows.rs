//! Every row of `rows/`.

use std::collections::BTreeMap;

use keelson_api::table::Table;
use keelson_base::gates::Gates;
use keelson_validation::{Outcome, check, load, rows};

/// Rows in all, and rows of mistakes a type at least.
const LEAST: usize = 1_500;

#[test]
fn every_row_comes_out_as_upstreams() {
    let gates = Gates::default();
    let table = Table::builtin(&gates);
    let groups = load(&rows::folder()).expect("the row files");
    let (mut total, mut wrong) = (0, Vec::new());
    for group in &groups {
        let (mut same, mut kinds) = (0, BTreeMap::<&str, usize>::new());
        for row in &group.rows {
            *kinds.entry(row.operation.as_str()).or_default() += 1;
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
    println!("{:<28} {total:>5} rows", "all");
    assert!(wrong.is_empty(), "{} of {total} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(total >= LEAST, "{total} rows, at least {LEAST} are wanted");
}
