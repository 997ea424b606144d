//! The Gregorian calendar, in UTC and without leap seconds: days since 1970-01-01 as dates, and back.

/// From 0000-03-01 to 1970-01-01. Years begin in March here, so that a leap day is the last of its year; 400 of them are an era.
const SHIFT: i64 = 719_468;
/// Days of an era.
const ERA: i64 = 146_097;

/// Days since 1970-01-01 of a date; the month is from 1 to 12.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - SHIFT
}

/// Year, month from 1 and day from 1 of a count of days since 1970-01-01.
pub fn date(days: i64) -> (i64, u8, u8) {
    let days = days + SHIFT;
    let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    // Both fit: they are at most 12 and 31.
    (era * 400 + year + i64::from(month <= 2), month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_follows_the_one_before() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!((date(-1), date(11_016), date(20_783)), ((1969, 12, 31), (2000, 2, 29), (2026, 11, 26)));
        let mut last = date(-800_000);
        for count in -799_999..800_000 {
            let next = date(count);
            let (year, month, day) = next;
            assert!(next > last && (day == 1 || day == last.2 + 1), "{last:?} {next:?}");
            assert_eq!(days(year, month.into(), day.into()), count);
            last = next;
        }
    }
}
