//! One line per figure, on the terminal and in a tab-separated file.

use anyhow::Result;
use std::path::PathBuf;

/// Collects figures.
pub struct Report {
    file: PathBuf,
    rows: Vec<String>,
}

impl Report {
    /// A report that is written to `file` at the end.
    pub fn new(file: PathBuf) -> Report {
        println!("{:<30} {:>12} {:<10} {:>12} {:>8}", "name", "value", "unit", "floor/bound", "ratio");
        Report { file, rows: vec!["name\tvalue\tunit\tfloor_or_bound\tratio".to_owned()] }
    }

    /// Adds a figure beside its floor (measured in the same run) or bound (given by the project).
    pub fn add(&mut self, name: &str, value: f64, unit: &str, against: f64) {
        let ratio = value / against;
        println!("{name:<30} {value:>12.3} {unit:<10} {against:>12.3} {ratio:>8.2}");
        self.rows.push(format!("{name}\t{value:.3}\t{unit}\t{against:.3}\t{ratio:.3}"));
    }

    /// Writes the file.
    pub fn write(self) -> Result<()> {
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&self.file, self.rows.join("\n") + "\n")?;
        println!("\nwritten to {}", self.file.display());
        Ok(())
    }
}

/// The value at a share (0 to 1) of sorted samples.
pub fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    let index = ((samples.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last);
    samples.get(index).copied().unwrap_or(f64::NAN)
}
