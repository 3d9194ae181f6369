//! What a stick may do to the appliance's clock.
//!
//! An appliance without a battery starts in 1970, one with a wrong one anywhere. The archive says when the service made it,
//! by the service's clock, and its claim is good for a few minutes. So:
//!
//! 1. Nothing is refused because of the appliance's own clock: the service judges the claim, and can tell the time.
//! 2. During the exchange TLS takes the archive's time for the present: neither a clock behind nor one ahead is in the way.
//! 3. The clock itself changes after the identity is stored, and only if it is not between the claim's beginning and its
//!    end. The service has taken the claim then, so the true time is. When provisioning fails, nothing was set.
//! 4. No archive sets it to before this release was made, or to [`HORIZON`] later.
//! 5. A clock that a time server keeps is not touched.

/// When the sources of this release were made, seconds since 1970 (2026-11-01); moved on with releases.
pub const RELEASE_DATE: i64 = 1_793_491_200;
/// So much later nobody runs this release any more, seconds: twenty years.
pub const HORIZON: i64 = 20 * 365 * 86_400;

/// Whether an archive can have been made at this time, seconds since 1970.
///
/// # Errors
/// What to do, one line.
pub fn check(issued: i64) -> Result<(), String> {
    if (RELEASE_DATE..RELEASE_DATE + HORIZON).contains(&issued) {
        return Ok(());
    }
    Err(format!(
        "the archive says that it was made at {} UTC, which cannot be: set the clock of the machine that the service runs on, then make a new archive",
        crate::result::time_text(issued)
    ))
}

/// What to set the clock to once the service took a claim that is good from `issued` up to `expires`.
pub fn correction(now: i64, issued: i64, expires: i64) -> Option<i64> {
    (!(issued..expires).contains(&now)).then_some(issued)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_outside_the_claims_time_is_set() {
        assert_eq!(correction(0, 1000, 1300), Some(1000));
        assert_eq!(correction(999, 1000, 1300), Some(1000));
        assert_eq!(correction(1000, 1000, 1300), None);
        assert_eq!(correction(1299, 1000, 1300), None);
        assert_eq!(correction(1300, 1000, 1300), Some(1000));
        assert_eq!(correction(1000 + 86_400, 1000, 1300), Some(1000));
    }

    #[test]
    fn boot_d13_times_before_the_release_and_absurdly_later_ones_are_refused() {
        assert!(check(RELEASE_DATE).is_ok() && check(RELEASE_DATE + HORIZON - 1).is_ok());
        let error = check(RELEASE_DATE - 1).unwrap_err();
        assert!(error.contains("2026-10-31"), "{error}");
        assert!(check(RELEASE_DATE + HORIZON).is_err() && check(4_070_908_800).is_err(), "2099");
    }
}
