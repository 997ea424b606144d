//! Durations as `-noReconnectAfter` takes and the log prints them
//! (`org.jenkinsci.remoting.util.DurationStyle` and `DurationFormatter`).

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Neither form fits.
    #[error("'{0}' is not a valid duration (write 30s, 5m, 2h, 1d or ISO-8601, such as PT5M)")]
    Invalid(String),
    /// A duration that runs backwards; Java takes it and gives up at once.
    #[error("'{0}' is a negative duration")]
    Negative(String),
}

/// Nanoseconds, so that every form adds up exactly; far above what `u64` nanoseconds could hold.
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Parses `30s`, `5m`, `2h`, `1d`, `100ms`, `10us`, `10ns` (a bare number is milliseconds, as in
/// Java) or an ISO-8601 duration with days, hours, minutes and seconds.
///
/// # Errors
/// [`DurationError`], also for durations of more than `i64::MAX` milliseconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let nanos = simple(text).or_else(|| iso8601(text)).ok_or_else(invalid)?;
    if nanos < 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    if nanos / 1_000_000 > i128::from(i64::MAX) {
        return Err(invalid());
    }
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).map_err(|_| invalid())?;
    let rest = u32::try_from(nanos % NANOS_PER_SECOND).map_err(|_| invalid())?;
    Ok(Duration::new(seconds, rest))
}

/// As [`parse`], for options that `agent.jar` does not have: a bare number other than 0 is refused,
/// because nobody who writes `180` means milliseconds.
///
/// # Errors
/// [`DurationError`].
pub fn parse_with_unit(text: &str) -> Result<Duration, DurationError> {
    let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if bare && text.bytes().any(|b| b != b'0') {
        return Err(DurationError::Invalid(text.to_owned()));
    }
    parse(text)
}

fn simple(text: &str) -> Option<i128> {
    let digits_end = text
        .char_indices()
        .find(|&(at, c)| !(c.is_ascii_digit() || (at == 0 && (c == '+' || c == '-'))))
        .map_or(text.len(), |(at, _)| at);
    let (number, unit) = text.split_at(digits_end);
    let number: i64 = number.parse().ok()?;
    let factor: i128 = match unit.to_lowercase().as_str() {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "" | "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        "d" => 86_400 * NANOS_PER_SECOND,
        _ => return None,
    };
    Some(i128::from(number) * factor)
}

/// `java.time.Duration.parse`: `[+-]P[nD][T[nH][nM][n[.n]S]]`, each number with a sign of its own.
fn iso8601(text: &str) -> Option<i128> {
    let upper = text.to_ascii_uppercase();
    let (sign, rest) = match upper.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, upper.strip_prefix('+').unwrap_or(&upper)),
    };
    let rest = rest.strip_prefix('P')?;
    let (days, time) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (rest, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    if !days.is_empty() {
        total += whole(days.strip_suffix('D')?)? * 86_400 * NANOS_PER_SECOND;
    }
    let mut time = time;
    for (unit, factor) in [('H', 3_600), ('M', 60)] {
        if let Some((number, after)) = time.split_once(unit) {
            total += whole(number)? * factor * NANOS_PER_SECOND;
            time = after;
        }
    }
    if !time.is_empty() {
        total += fraction(time.strip_suffix('S')?)?;
    }
    Some(sign * total)
}

fn whole(text: &str) -> Option<i128> {
    text.parse::<i64>().ok().map(i128::from)
}

fn fraction(text: &str) -> Option<i128> {
    let (number, decimals) = text.split_once(['.', ',']).unwrap_or((text, ""));
    if decimals.len() > 9 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i128 = format!("{decimals:0<9}").parse().ok()?;
    let sign = if number.starts_with('-') { -1 } else { 1 };
    Some(whole(number)? * NANOS_PER_SECOND + sign * nanos)
}

/// `1 day, 2 hours, 3 minutes, 4 seconds`; below a second, where Java gives nothing, `750 milliseconds`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{} milliseconds", duration.as_millis());
    }
    let parts = [
        (seconds / 86_400, "day"),
        (seconds / 3_600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let texts: Vec<String> = parts
        .into_iter()
        .filter(|&(amount, _)| amount > 0)
        .map(|(amount, unit)| format!("{amount} {unit}{}", if amount > 1 { "s" } else { "" }))
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("1d", Some(86_400_000)),
            ("30m", Some(1_800_000)),
            ("+2H", Some(7_200_000)),
            ("45s", Some(45_000)),
            ("100ms", Some(100)),
            ("250", Some(250)),
            ("0", Some(0)),
            ("5000us", Some(5)),
            ("PT5M", Some(300_000)),
            ("pt1.5s", Some(1_500)),
            ("P1DT2H3M4S", Some(93_784_000)),
            ("-PT-1S", Some(1_000)),
            ("PT1H-1M", Some(3_540_000)),
            ("-5m", None),
            ("-PT5M", None),
            ("", None),
            ("P", None),
            ("P1DT", None),
            ("PT5", None),
            ("PT1M1H", None),
            ("5 m", None),
            ("1w", None),
            ("+", None),
            ("m", None),
            ("1.5h", None),
            ("9223372036854775807d", None),
            ("99999999999999999999s", None),
        ] {
            let parsed = parse(text).ok().map(|d| d.as_millis());
            assert_eq!(parsed, expected, "{text:?}");
        }
    }

    #[test]
    fn own_options_want_a_unit() {
        assert_eq!(parse_with_unit("0"), Ok(Duration::ZERO));
        assert_eq!(parse_with_unit("3m"), Ok(Duration::from_secs(180)));
        assert!(parse_with_unit("180").is_err());
    }

    #[test]
    fn words() {
        for (millis, expected) in [
            (0, "0 milliseconds"),
            (750, "750 milliseconds"),
            (1_250, "1 second"),
            (10_000, "10 seconds"),
            (86_400_000, "1 day"),
            (93_784_000, "1 day, 2 hours, 3 minutes, 4 seconds"),
            (172_860_000, "2 days, 1 minute"),
        ] {
            assert_eq!(format(Duration::from_millis(millis)), expected);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}|[+-]?[pP]?[0-9DTHMS.,+-]{0,24}") {
            let _ = parse(&text);
        }
    }
}
