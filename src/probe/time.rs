//! Dates, as certificates and HTTP write them.

use crate::calendar;

const DAY: i64 = 86_400;

/// Seconds since 1970 of a date and time in UTC; `None` for what is no date.
pub fn seconds(year: i64, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<i64> {
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    let days = calendar::days(year, month.into(), day.into());
    Some(days * DAY + i64::from(hour * 3600 + minute * 60 + second))
}

/// `2026-11-26 19:30 UTC`.
pub fn show(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = calendar::date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60)
}

/// `Thu, 26 Nov 2026 19:30:00 GMT` (RFC 9110, section 5.6.7; only the form that is still written).
pub fn parse_http_date(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once(", ")?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [day, month, year, clock, "GMT"] = words[..] else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as u32 + 1;
    let mut parts = clock.splitn(3, ':').map(|part| part.parse::<u32>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    seconds(year.parse().ok()?, month, day.parse().ok()?, hour, minute, second)
}

/// A span of time in the largest unit that fits: "3 days", "5 hours".
pub fn span(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    let (amount, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7199 => (seconds / 60, "minute"),
        7200..=172_799 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{amount} {unit}{}", if amount == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(seconds(1970, 1, 1, 0, 0, 0), Some(0));
        assert_eq!(seconds(2000, 2, 29, 12, 0, 0), Some(951_825_600));
        assert_eq!(parse_http_date("Thu, 26 Nov 2026 19:30:00 GMT"), Some(1_795_721_400));
        assert_eq!(show(1_795_721_400), "2026-11-26 19:30 UTC");
        for bad in ["", "Thu, 26 Nov 2026 19:30 GMT", "Thu, 26 Foo 2026 19:30:00 GMT", "Thu, 99 Nov 2026 19:30:00 GMT"]
        {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
        for seconds in [0, 951_825_600, 951_782_400, 4_102_444_799, -1] {
            let shown = show(seconds);
            let number = |range: std::ops::Range<usize>| shown[range].parse::<u32>().unwrap();
            let back =
                super::seconds(number(0..4).into(), number(5..7), number(8..10), number(11..13), number(14..16), 0);
            assert_eq!(back, Some(seconds.div_euclid(60) * 60), "{shown}");
        }
        assert_eq!([span(1), span(90), span(7200), span(-86_400 * 3)], ["1 second", "90 seconds", "2 hours", "3 days"]);
    }
}
