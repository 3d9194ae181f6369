//! `20130524T000000Z`, and the calendar that goes with it.

/// Seconds since 1970 of `YYYYMMDDThhmmssZ`.
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    let plausible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    plausible.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (H. Hinnant's algorithm).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month, day, hour, minute, second, day of the week (0: Sunday) of seconds since 1970.
pub fn civil(seconds: i64) -> (i64, i64, i64, i64, i64, i64, i64) {
    let day_number = seconds.div_euclid(86_400);
    let of_day = seconds.rem_euclid(86_400);
    let shifted = day_number + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60, (day_number + 4).rem_euclid(7))
}

/// Milliseconds since 1970 of `2013-05-24T00:00:00Z`, with or without a fraction, with `Z`, `+01:00` or nothing (UTC).
pub fn parse_iso8601(text: &str) -> Option<i64> {
    let plain: String = text.get(..19)?.chars().filter(|c| !"-:".contains(*c)).collect();
    let separators = text.as_bytes();
    let shaped = separators[4] == b'-' && separators[7] == b'-' && separators[13] == b':' && separators[16] == b':';
    let seconds = parse(&format!("{plain}Z")).filter(|_| shaped)?;
    let mut rest = &text[19..];
    let mut milliseconds = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        milliseconds = format!("{:0<3}", &fraction[..digits])[..3].parse().ok()?;
        rest = &fraction[digits..];
    }
    let offset = match rest.as_bytes() {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            let digits = [h1, h2, m1, m2].map(|d| i64::from(d.wrapping_sub(b'0')));
            if digits.iter().any(|d| *d > 9) {
                return None;
            }
            let minutes = (digits[0] * 10 + digits[1]) * 60 + digits[2] * 10 + digits[3];
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    Some((seconds - offset * 60) * 1000 + milliseconds)
}

/// `2013-05-24T00:00:00.000Z`, as S3's lists have it.
pub fn iso8601(milliseconds: i64) -> String {
    let (y, mo, d, h, mi, s, _) = civil(milliseconds.div_euclid(1000));
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:03}Z", milliseconds.rem_euclid(1000))
}

/// `Fri, 24 May 2013 00:00:00 GMT`, as HTTP headers have it.
pub fn http_date(milliseconds: i64) -> String {
    let (y, mo, d, h, mi, s, weekday) = civil(milliseconds.div_euclid(1000));
    format!("{}, {d:02} {} {y:04} {h:02}:{mi:02}:{s:02} GMT", DAYS[weekday as usize], MONTHS[mo as usize - 1])
}

/// Seconds since 1970 of `Fri, 24 May 2013 00:00:00 GMT`; the day of the week is not looked at.
pub fn parse_http_date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let time: String = time.split(':').collect();
    parse(&format!("{year}{month:02}{day}T{time}Z"))
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_date_says() {
        assert_eq!(parse("20130524T000000Z"), Some(1_369_353_600));
        assert_eq!(parse("20240229T235959Z"), Some(1_709_251_199));
        assert_eq!(iso8601(1_709_251_199_123), "2024-02-29T23:59:59.123Z");
        assert_eq!(http_date(1_369_353_600_000), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(parse_http_date("Fri, 24 May 2013 00:00:00 GMT"), Some(1_369_353_600));
        for bad in ["", "Fri, 24 Mai 2013 00:00:00 GMT", "Fri, 24 May 2013 00:00:00 +0000", "Fri, 4 May 2013 00:00:00 GMT"] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
        assert_eq!(parse_iso8601("2024-02-29T23:59:59.5Z"), Some(1_709_251_199_500));
        assert_eq!(parse_iso8601("2024-02-29T23:59:59.123456+00:00"), Some(1_709_251_199_123));
        assert_eq!(parse_iso8601("2024-03-01T01:59:59+02:00"), Some(1_709_251_199_000));
        assert_eq!(parse_iso8601("2024-02-29T23:59:59"), Some(1_709_251_199_000));
        for bad in [
            "", "yesterday", "2024-02-29", "2024-02-29T23:59:59.", "2024-02-29T23:59:59+2", "2024x02x29T23:59:59Z",
            "2024-02-29T23:59:5é",
        ] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
        for bad in ["", "20130524", "20131324T000000Z", "2013052aT000000Z", "20130524 000000Z", "+0130524T000000Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
