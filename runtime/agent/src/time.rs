//! Times as the service writes and reads them.

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant's "days from civil").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `2026-11-22T12:00:00Z` (fractions of a second are dropped) as seconds since 1970.
pub fn parse_iso8601(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, length: usize| {
        let digits = text.get(from..from + length)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    if bytes.len() < 20 || bytes.last() != Some(&b'Z') || bytes[4] != b'-' || bytes[7] != b'-' || bytes[10] != b'T' {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// `20261122T120000Z`, SigV4's way.
pub fn amz_date(seconds: i64) -> String {
    let text = belvedere_provisioning::result::time_text(seconds);
    format!("{}Z", text.replace(['-', ':'], "").replace(' ', "T"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        assert_eq!(parse_iso8601("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_iso8601("2026-11-22T12:00:00Z"), Some(1_795_348_800));
        assert_eq!(parse_iso8601("2026-11-22T12:00:00.123Z"), Some(1_795_348_800));
        assert_eq!(parse_iso8601("2000-02-29T00:00:00Z"), Some(951_782_400));
        assert_eq!(amz_date(1_795_348_800), "20261122T120000Z");
        for wrong in
            ["", "2026-11-22", "2026-11-22T12:00:00", "2026-13-22T12:00:00Z", "2026-11-22T1é:00:00Z", "2026-11-22T+1:00:00Z"]
        {
            assert_eq!(parse_iso8601(wrong), None, "{wrong}");
        }
    }
}
