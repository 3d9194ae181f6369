//! Times in the words of CloudWatch's messages.

use time::OffsetDateTime;

fn at(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `2026-11-22T05:50:00.000+0000`.
pub(crate) fn long(ms: i64) -> String {
    let t = at(ms);
    let (date, time) = (t.date(), t.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}+0000",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        ms.rem_euclid(1000)
    )
}

/// `2026-11-22T05:50:00.000Z`.
pub(crate) fn zulu(ms: i64) -> String {
    long(ms).replace("+0000", "Z")
}

/// `22/11/26 05:50:00`.
pub(crate) fn short(ms: i64) -> String {
    let t = at(ms);
    let (date, time) = (t.date(), t.time());
    let (year, month, day) = (date.year() % 100, u8::from(date.month()), date.day());
    format!("{day:02}/{month:02}/{year:02} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_as_cloudwatch_writes_them() {
        let ms = 1_795_326_600_007; // date -u -d @1795326600
        assert_eq!(super::long(ms), "2026-11-22T05:50:00.007+0000");
        assert_eq!(super::zulu(ms), "2026-11-22T05:50:00.007Z");
        assert_eq!(super::short(ms), "22/11/26 05:50:00");
    }
}
