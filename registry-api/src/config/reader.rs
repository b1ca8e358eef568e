//! Reads configuration values, and notes every mistake with its path instead of stopping at the
//! first.

use std::time::Duration;

use serde_json::{Map, Value};

/// A mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Fault {
    /// Where, for example `sources[1].file.path`.
    pub path: String,
    /// What is wrong, and what to write.
    pub message: String,
}

/// Most characters of a value that is quoted in a message.
const QUOTED: usize = 60;

pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED).collect();
    format!("{cut:?}")
}

/// Collects faults while values are read.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault { path: path.to_owned(), message: message.into() });
    }

    /// An object whose fields are all known.
    pub(super) fn object<'v>(
        &mut self,
        value: &'v Value,
        path: &str,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.fault(path, "must be an object");
            return None;
        };
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let message = format!("there is no such field; there are: {}", known.join(", "));
            self.fault(&join(path, key), message);
        }
        Some(object)
    }

    pub(super) fn text<'v>(&mut self, value: &'v Value, path: &str) -> Option<&'v str> {
        match value.as_str() {
            Some("") => {
                self.fault(path, "must not be empty");
                None
            }
            Some(text) => Some(text),
            None => {
                self.fault(path, "must be a text");
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required<'v>(
        &mut self,
        object: &'v Map<String, Value>,
        key: &str,
        path: &str,
    ) -> Option<&'v str> {
        match object.get(key) {
            Some(value) => self.text(value, &join(path, key)),
            None => {
                self.fault(&join(path, key), "is missing");
                None
            }
        }
    }

    pub(super) fn list<'v>(&mut self, value: &'v Value, path: &str) -> Vec<(String, &'v Value)> {
        match value.as_array() {
            Some(items) => {
                items.iter().enumerate().map(|(at, item)| (format!("{path}[{at}]"), item)).collect()
            }
            None => {
                self.fault(path, "must be a list");
                Vec::new()
            }
        }
    }

    pub(super) fn texts(&mut self, value: Option<&Value>, path: &str) -> Vec<String> {
        let items = value.map(|value| self.list(value, path)).unwrap_or_default();
        items.iter().filter_map(|(at, item)| self.text(item, at).map(str::to_owned)).collect()
    }

    /// A Go duration within bounds.
    pub(super) fn duration(
        &mut self,
        value: &Value,
        path: &str,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let text = self.text(value, path)?;
        match go_duration(text) {
            Some(duration) if (least..=most).contains(&duration) => Some(duration),
            Some(_) => {
                self.fault(path, format!("must be from {least:?} to {most:?}"));
                None
            }
            None => {
                let message = format!("{} is no duration, as 30s or 1h30m are", quoted(text));
                self.fault(path, message);
                None
            }
        }
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    let key: String = key.chars().take(QUOTED).collect();
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A duration as Go's `time.ParseDuration` reads it, without a sign.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match rest.get(..unit)? {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = rest.get(unit..)?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, seconds) in [
            ("30s", Some(30.0)),
            ("1h30m", Some(5400.0)),
            ("1.5h", Some(5400.0)),
            ("500ms", Some(0.5)),
            ("2m0.5s", Some(120.5)),
            ("0", Some(0.0)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("1e9999h", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(go_duration(text).map(|d| d.as_secs_f64()), seconds, "{text}");
        }
    }
}
