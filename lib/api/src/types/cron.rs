//! Cron schedules: what CronJob accepts (five fields, names, steps, `@hourly` and the like, `@every`).

/// Why a schedule is not valid, in the words of the parser that upstream uses.
pub fn check(schedule: &str) -> Result<(), String> {
    let text = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest.trim_start()),
        None => schedule,
    };
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if let Some(every) = text.strip_prefix("@every ") {
        return if crate::types::walk::is_go_duration(every) {
            Ok(())
        } else {
            Err(format!(
                "failed to parse duration {text}: time: invalid duration {}",
                crate::field_errors::quoted(every)
            ))
        };
    }
    if text.starts_with('@') {
        let known = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
        return if known.contains(&text) { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        let list = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{list}]", fields.len()));
    }
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str], u32); 5] =
        [(0, 59, &[], 0), (0, 23, &[], 0), (1, 31, &[], 0), (1, 12, &MONTHS, 1), (0, 6, &DAYS, 0)];
    for (field, (low, high, names, first)) in fields.iter().zip(bounds) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            check_range(part, low, high, names, first)?;
        }
    }
    Ok(())
}

fn number(text: &str, names: &[&str], first: u32) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = names.iter().position(|name| *name == lower) {
        return Ok(at as u32 + first);
    }
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax",
            crate::field_errors::quoted(text)
        )),
    }
}

fn check_range(part: &str, low: u32, high: u32, names: &[&str], first: u32) -> Result<(), String> {
    let mut pieces = part.split('/');
    let range = pieces.next().unwrap_or_default();
    let step = pieces.next();
    if pieces.next().is_some() {
        return Err(format!("too many slashes: {part}"));
    }
    let (start, end) = if matches!(range, "*" | "?") {
        (low, high)
    } else {
        let mut ends = range.split('-');
        let start = number(ends.next().unwrap_or_default(), names, first)?;
        let end = ends.next().map(|end| number(end, names, first)).transpose()?;
        if ends.next().is_some() {
            return Err(format!("too many hyphens: {part}"));
        }
        (start, end.unwrap_or(if step.is_some() { high } else { start }))
    };
    if let Some(step) = step
        && number(step, &[], 0)? == 0
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn schedules() {
        for good in
            ["* * * * *", "*/5 0-3 1,15 jan-mar MON", "@hourly", "@every 1h30m", "0 0 * * ?", "5/15 * * * *"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("error", "expected exactly 5 fields, found 1: [error]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(check(bad), Err(why.to_owned()));
        }
    }
}
