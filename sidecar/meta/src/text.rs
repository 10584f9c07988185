//! Lines of a stream with a cap on their length, and numbers and times as slicers write them.

use std::io::{ErrorKind, Read};

use crate::Error;

const BUFFER: usize = 256 * 1024;

/// Calls `each` with every line (without its end), cut to `most` bytes. Memory is one buffer and one line.
pub fn lines(
    mut reader: impl Read,
    most: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut buffer = vec![0u8; BUFFER];
    // The beginning of a line whose end is not here yet.
    let mut part: Vec<u8> = Vec::new();
    let mut total = 0u64;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        total += n as u64;
        let mut rest = &buffer[..n];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            if part.is_empty() {
                each(trimmed(&line[..line.len().min(most)]))?;
            } else {
                extend(&mut part, line, most);
                each(trimmed(&part))?;
                part.clear();
            }
            rest = &rest[end + 1..];
        }
        extend(&mut part, rest, most);
    }
    if !part.is_empty() {
        each(trimmed(&part))?;
    }
    Ok(total)
}

fn extend(part: &mut Vec<u8>, more: &[u8], most: usize) {
    let room = most.saturating_sub(part.len());
    part.extend_from_slice(&more[..more.len().min(room)]);
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A decimal number at the start of `text`, and what follows it. No exponents: G-code has none.
pub fn number(text: &[u8]) -> Option<(f64, &[u8])> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let mut whole: u64 = 0;
    let mut places: i32 = 0;
    let mut used = 0;
    let mut seen = 0;
    let mut point = false;
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                seen += 1;
                // Beyond 18 digits a float cannot tell the difference.
                if whole < 1_000_000_000_000_000_000 / 10 {
                    whole = whole * 10 + u64::from(byte - b'0');
                    places += i32::from(point);
                } else if !point {
                    return None;
                }
            }
            b'.' if !point => point = true,
            _ => break,
        }
        used += 1;
    }
    if seen == 0 {
        return None;
    }
    const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
    let value = match POWERS.get(places as usize) {
        Some(power) => whole as f64 / power,
        None => whole as f64 / 10f64.powi(places),
    };
    Some((if negative { -value } else { value }, &digits[used..]))
}

/// "1d 2h 3m 4s" in any part, or plain seconds.
pub fn duration(text: &str) -> Option<f64> {
    let mut total = 0.0;
    let mut any = false;
    let mut rest = text.trim().as_bytes();
    while let Some((value, after)) = number(rest) {
        let after = after.trim_ascii_start();
        let scale = match after.first() {
            Some(b'd') => 86_400.0,
            Some(b'h') => 3_600.0,
            Some(b'm') => 60.0,
            Some(b's') | None => 1.0,
            Some(_) => return None,
        };
        total += value * scale;
        any = true;
        rest = after.get(1..).unwrap_or_default().trim_ascii_start();
    }
    (any && rest.is_empty()).then_some(total)
}

/// The numbers of a list "1.2, 3.4" (also with semicolons).
pub fn numbers(text: &str, most: f64, count: usize) -> Vec<Option<f64>> {
    text.split([',', ';'])
        .take(count)
        .map(|part| {
            let part = part.trim().trim_matches('"');
            let value = number(part.as_bytes()).map(|(value, _)| value);
            value.and_then(|value| crate::facts::sane(value, most))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_slicers_write_them() {
        assert_eq!(duration("1d 2h 3m 4s"), Some(93_784.0));
        assert_eq!(duration("19m 11s"), Some(1_151.0));
        assert_eq!(duration("1510"), Some(1_510.0));
        assert_eq!(duration("40m 39s; and more"), None);
        assert_eq!(duration("soon"), None);
        assert_eq!(duration(""), None);
    }

    #[test]
    fn numbers_end_where_they_end() {
        assert_eq!(number(b"12.5 X").unwrap().0, 12.5);
        assert_eq!(number(b"-.25").unwrap().0, -0.25);
        assert_eq!(number(b"3.").unwrap().0, 3.0);
        assert!(number(b"-").is_none() && number(b".").is_none() && number(b"x").is_none());
        assert!(number(&[b'9'; 400]).is_none());
        assert!(number(&[&b"0."[..], &[b'1'; 400]].concat()).unwrap().0 < 0.2);
    }

    #[test]
    fn endless_lines_are_cut() {
        let long = vec![b'a'; 3_000_000];
        let mut seen = Vec::new();
        lines(&long[..], 100, |line| {
            seen.push(line.len());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [100]);
    }
}
