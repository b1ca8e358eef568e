//! YAML documents: where each begins, and its value.

use serde_json::Value;

/// Most bytes of one file.
pub const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// One document of a file.
pub(super) struct Document<'t> {
    text: &'t str,
    /// Line of the file at which it starts, the first being 1.
    pub(super) line: usize,
}

/// A document that cannot be read.
pub(super) struct Fault {
    /// Line of the file.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) message: String,
}

/// Splits a file into documents at lines that start with `---`: YAML allows such a line nowhere
/// else, so that a broken document ends there too.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            documents
                .push(Document { text: text.get(start..at).unwrap_or_default(), line: start_line });
            start = at + line.len();
            start_line = number + 2;
        }
        at += line.len();
    }
    documents.push(Document { text: text.get(start..).unwrap_or_default(), line: start_line });
    for document in &mut documents {
        // A document starts at its first line that says something.
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        document.line += document.text.lines().take_while(blank).count();
    }
    documents.retain(|d| {
        !d.text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
    });
    documents
}

/// The value of a document; `None` where it is empty.
pub(super) fn parse(document: &Document<'_>) -> Result<Option<Value>, Fault> {
    match yaml::<Value>(document.text) {
        Ok(Value::Null) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err((line, message)) => {
            let skipped = document.text.lines().count() - lines_from_first(document.text);
            let start = document.line - skipped;
            Err(Fault { line: start + line.max(1) - 1, message })
        }
    }
}

/// Number of lines from the first one that says something.
fn lines_from_first(text: &str) -> usize {
    let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    text.lines().skip_while(blank).count()
}

/// Reads YAML (or JSON) with bounds on nesting, aliases and size.
///
/// # Errors
/// The line, the first being 1, and what is wrong there.
pub fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, (usize, String)> {
    // YAML 1.2: a namespace may be called `n` or `on`.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.without_snippet().to_string();
        // The line is said by the caller, as the file's own.
        let first = message.lines().next().unwrap_or_default();
        let first = first.rsplit_once(" at line ").map_or(first, |(what, _)| what);
        let message: String = first.chars().take(300).collect();
        (usize::try_from(line).unwrap_or(1), message)
    })
}
