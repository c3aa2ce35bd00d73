//! What a run printed and wrote.

use crate::run::{Finished, Outcome};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Prints failures with their steps, skips with their reasons, and the counts per area. Returns whether all is well:
/// nothing failed, or in a negative run nothing passed.
pub fn print(results: &[Finished], negative: bool) -> bool {
    let mut counts: BTreeMap<&str, [u32; 3]> = BTreeMap::new();
    let mut skips: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for result in results {
        let count = counts.entry(result.area).or_default();
        match &result.outcome {
            Outcome::Passed => {
                count[0] += 1;
                if negative {
                    println!("\nPASSED against a server that does nothing: {}", result.name);
                }
            }
            Outcome::Failed { why, steps } => {
                count[1] += 1;
                if !negative {
                    println!("\nFAILED: {}\n  {why}", result.name);
                    for step in steps {
                        println!("  step: {step}");
                    }
                }
            }
            Outcome::Skipped(why) => {
                count[2] += 1;
                *skips.entry((result.area, why)).or_default() += 1;
            }
        }
    }
    println!();
    for ((area, why), count) in &skips {
        println!("{area}: {count} skipped: {why}");
    }
    let mut sum = [0; 3];
    for (area, [passed, failed, skipped]) in &counts {
        println!("{area:16} {passed:3} passed  {failed:3} failed  {skipped:3} skipped");
        for (total, count) in sum.iter_mut().zip([passed, failed, skipped]) {
            *total += count;
        }
    }
    let [passed, failed, skipped] = sum;
    println!("{:16} {passed:3} passed  {failed:3} failed  {skipped:3} skipped", "all");
    if negative { passed == 0 } else { failed == 0 }
}

/// Why a run that is not well ends with an error.
pub fn verdict(negative: bool) -> &'static str {
    if negative { "tests passed against a server that does nothing" } else { "tests failed" }
}

/// Writes a line for each test: area, name, result.
pub fn write(path: &Path, results: &[Finished]) -> Result<()> {
    let mut text = String::new();
    for result in results {
        let outcome = match &result.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed { why, .. } => format!("failed: {}", why.replace(['\t', '\n'], " ")),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        let _ = writeln!(text, "{}\t{}\t{outcome}", result.area, result.name);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
