//! Pressure stall information (`/proc/pressure/*`, `<cgroup>/*.pressure`).

/// One line of a pressure file: shares of time in percent, total in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total_us: u64,
}

/// A pressure file: tasks of which some, and of which all, were stalled. CPU has no `full` on older kernels.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Option<Stall>,
}

/// Parses a pressure file's text; None where it is not one.
pub fn parse(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut seen = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next()?;
        let mut stall = Stall::default();
        for word in words {
            let (name, value) = word.split_once('=')?;
            match name {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total_us = value.parse().ok()?,
                _ => {}
            }
        }
        match kind {
            "some" => {
                pressure.some = stall;
                seen = true;
            }
            "full" => pressure.full = Some(stall),
            _ => {}
        }
    }
    seen.then_some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_both_lines() {
        let p = parse("some avg10=1.50 avg60=0.20 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")
            .expect("valid");
        assert_eq!(p.some.avg10, 1.5);
        assert_eq!(p.some.total_us, 123);
        assert_eq!(p.full.map(|f| f.total_us), Some(7));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(parse(""), None);
    }
}
