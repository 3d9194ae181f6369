//! Times for people.

use time::OffsetDateTime;

/// `2026-11-22 06:00 UTC`.
pub fn date(ms: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)) else { return "-".into() };
    let (year, month, day) = at.to_calendar_date();
    format!("{year}-{:02}-{day:02} {:02}:{:02} UTC", u8::from(month), at.hour(), at.minute())
}

/// `3 minutes ago`, `in 2 days`.
pub fn distance(then_ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    let (count, unit) = match seconds.unsigned_abs() {
        s @ 0..60 => (s, "second"),
        s @ 60..3600 => (s / 60, "minute"),
        s @ 3600..172_800 => (s / 3600, "hour"),
        s => (s / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    match seconds {
        0 => "now".into(),
        1.. => format!("{count} {unit}{plural} ago"),
        _ => format!("in {count} {unit}{plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(date(1_795_327_200_000), "2026-11-22 06:00 UTC");
        assert_eq!(date(i64::MAX), "-");
        assert_eq!(distance(0, 0), "now");
        assert_eq!(distance(0, 61_000), "1 minute ago");
        assert_eq!(distance(0, 7_200_000), "2 hours ago");
        assert_eq!(distance(172_800_000, 0), "in 2 days");
        assert_eq!(distance(i64::MIN, i64::MAX), "106751991167 days ago");
    }
}
