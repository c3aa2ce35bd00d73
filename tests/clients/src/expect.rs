//! Compares what a program said with what it must say. Masked are ages (`<age>`), points in time (`<time>`) and generated
//! names (`<name>`); where a table holds one, the width of its columns is not compared, since theirs varies.

use regex_lite::{Regex, escape};

const AGE: &str = r"(<invalid>|([0-9]+[ywdhms])+)";
const TIME: &str = r#""?([A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} )?[0-9]{4}[- 0-9:TZ.]*( ?[+-][0-9]{4})?"?"#;
const NAME: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// Nothing when `said` is as `expected`; else the first line that differs.
pub fn differs(expected: &[String], said: &str) -> Option<String> {
    let masked = expected.iter().any(|line| mask(line).is_some());
    let mut said: Vec<&str> = said.lines().map(str::trim_end).collect();
    while said.last().is_some_and(|line| line.is_empty()) {
        said.pop();
    }
    for number in 0..expected.len().max(said.len()) {
        let (wanted, line) = (expected.get(number), said.get(number));
        let fits = match (wanted, line) {
            (Some(wanted), Some(line)) => fits(wanted.trim_end(), line, masked),
            _ => false,
        };
        if !fits {
            let show = |line: Option<&str>| line.map_or("nothing".to_owned(), |line| format!("{line:?}"));
            return Some(format!(
                "line {}: wanted {}, got {}",
                number + 1,
                show(wanted.map(String::as_str)),
                show(line.copied())
            ));
        }
    }
    None
}

fn fits(wanted: &str, line: &str, masked: bool) -> bool {
    if !masked {
        return wanted == line;
    }
    let mut pattern = String::from("^");
    let mut rest = wanted;
    while !rest.is_empty() {
        if let Some((length, class)) = mask_at(rest) {
            pattern.push_str(class);
            rest = &rest[length..];
        } else if rest.starts_with("  ") {
            pattern.push_str(" {2,}");
            rest = rest.trim_start_matches(' ');
        } else {
            let character = rest.chars().next().map_or(0, char::len_utf8);
            pattern.push_str(&escape(&rest[..character]));
            rest = &rest[character..];
        }
    }
    pattern.push('$');
    Regex::new(&pattern).is_ok_and(|regex| regex.is_match(line))
}

fn mask(line: &str) -> Option<usize> {
    ["<age>", "<time>", "<name>"].iter().filter_map(|mask| line.find(mask)).min()
}

fn mask_at(text: &str) -> Option<(usize, &'static str)> {
    [("<age>", AGE), ("<time>", TIME), ("<name>", NAME)]
        .into_iter()
        .find_map(|(mask, class)| text.starts_with(mask).then_some((mask.len(), class)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, said: &str, same: bool) {
        let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        assert_eq!(differs(&expected, said).is_none(), same, "{expected:?} {said:?}");
    }

    #[test]
    fn compares() {
        check("a  b", "a  b\n", true);
        check("a  b", "a   b\n", false);
        check("", "", true);
        check("", "x\n", false);
        check("a\nb", "a\n", false);
        check("NAME   AGE    X\na      <age>   x", "NAME   AGE     X\na      2m10s   x\n", true);
        check("NAME   AGE\na      <age>", "NAME   AGE\na      10\n", false);
        check("web-<name> ok", "web-5d4f9c-x2x4z ok", true);
        check("web-<name> ok", "web-5d4f9c_x ok", false);
        check("at: <time>", "at: \"2026-11-30T00:00:00Z\"", true);
        check("at: <time>", "at: Mon, 30 Nov 2026 00:00:00 +0000", true);
        check("at: <time>", "at: null", false);
        check("a <invalid>", "a <invalid>", true);
    }
}
