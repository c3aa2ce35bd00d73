//! Sets of completion indexes and their text (`1,3-5,7`). Pure.

use std::collections::BTreeSet;

/// Indexes in order.
pub type Indexes = BTreeSet<i32>;

/// Reads a text; parts that are no numbers or lie beyond `completions` are left out.
pub fn parse(text: &str, completions: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
        indexes.extend(first.max(0)..=last.min(completions.saturating_sub(1)));
    }
    indexes
}

/// Writes the text: a run of three or more is joined by a dash, two by a comma.
pub fn format(indexes: &Indexes) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut run: Option<(i32, i32)> = None;
    let mut end = |run: Option<(i32, i32)>| match run {
        None => {}
        Some((first, last)) if first == last => parts.push(first.to_string()),
        Some((first, last)) if last == first + 1 => parts.push(format!("{first},{last}")),
        Some((first, last)) => parts.push(format!("{first}-{last}")),
    };
    for index in indexes {
        run = match run {
            Some((first, last)) if last + 1 == *index => Some((first, *index)),
            other => {
                end(other);
                Some((*index, *index))
            }
        };
    }
    end(run);
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Facts: pkg/controller/job/indexed_job_utils_test.go.
    #[test]
    fn texts() {
        let check = |text: &str, completions: i32, expected: &str| {
            assert_eq!(format(&parse(text, completions)), expected)
        };
        check("", 10, "");
        check("1,3-5,7", 10, "1,3-5,7");
        check("0,1,2,3", 10, "0-3");
        check("0,1", 10, "0,1");
        check("3-5,6", 6, "3-5");
        check("x,2", 5, "2");
    }
}
