//! As much of HTTP as stand-in servers need.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::scenario::Answer;

/// What Jetty takes in one head.
const MAX_HEAD: usize = 8 << 10;
const MAX_BODY: u64 = 1 << 20;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Request line or status line, and headers in their order.
#[derive(Debug, Clone)]
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head and nothing behind it. `None` at an end of the stream before its first byte.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) if bytes.len() < MAX_HEAD => bytes.push(byte),
                Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a head that is too large")),
                Err(_) if bytes.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok(Some(Head { first, headers }))
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// The target of a request as it was sent.
    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The target without a query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{headers}\r\n", self.first).into_bytes()
    }

    /// Reads a request's body, which nobody needs.
    pub async fn skip_body(&self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let length: u64 = self.header("Content-Length").and_then(|text| text.parse().ok()).unwrap_or(0);
        tokio::io::copy(&mut stream.take(length.min(MAX_BODY)), &mut tokio::io::sink()).await?;
        Ok(())
    }
}

/// An answer, after which the connection is closed. `extra` headers give way to those of the answer.
pub async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &Answer,
    extra: &[(&str, String)],
) -> io::Result<()> {
    let reason = match answer.status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        407 => "Proxy Authentication Required",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "",
    };
    let length = answer.body.len();
    let mut text = format!("HTTP/1.1 {} {reason}\r\nContent-Length: {length}\r\nConnection: close\r\n", answer.status);
    let own = |name: &str| answer.headers.keys().any(|key| key.eq_ignore_ascii_case(name));
    for (name, value) in extra.iter().filter(|(name, _)| !own(name)) {
        text += &format!("{name}: {value}\r\n");
    }
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    stream.write_all(&[text.as_bytes(), answer.body.as_bytes()].concat()).await?;
    stream.shutdown().await
}

/// An answer in plain text.
pub fn text(status: u16, body: impl Into<String>) -> Answer {
    let headers = [("Content-Type".to_owned(), "text/plain;charset=utf-8".to_owned())];
    Answer { status, headers: headers.into(), body: body.into() }
}

/// An answer in HTML.
pub fn html(status: u16, body: impl Into<String>) -> Answer {
    let headers = [("Content-Type".to_owned(), "text/html;charset=utf-8".to_owned())];
    Answer { status, headers: BTreeMap::from(headers), body: body.into() }
}

/// `Date`, so many seconds away from now.
pub fn date(off: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let seconds = now.saturating_add_signed(off);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{weekday}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", day + 1, names[month])
}

/// Moves bytes both ways until one side ends, or for `idle` no byte comes.
pub async fn relay(mut one: impl Stream, mut other: impl Stream, idle: Option<Duration>) -> io::Result<()> {
    let (mut from_one, mut from_other) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let idle = idle.unwrap_or(Duration::from_secs(3600));
    loop {
        tokio::select! {
            read = one.read(&mut from_one) => match read? {
                0 => return other.shutdown().await,
                length => other.write_all(&from_one[..length]).await?,
            },
            read = other.read(&mut from_other) => match read? {
                0 => return one.shutdown().await,
                length => one.write_all(&from_other[..length]).await?,
            },
            () = tokio::time::sleep(idle) => return Ok(()),
        }
        one.flush().await?;
        other.flush().await?;
    }
}
