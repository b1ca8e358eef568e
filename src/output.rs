//! What people see on stdout.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use waymark_discovery::Severity;
use waymark_discovery::explanation::{Explanation, Outcome};

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Says something on stderr, where nobody reading is no fault.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether whoever reads stdout has gone (`waymark plan | head`).
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What is published, then every reason why something is not.
pub(crate) fn explanations(objects: &[Explanation]) -> String {
    let mut text = String::new();
    if objects.iter().any(|object| !object.published.is_empty()) {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["OBJECT", "SERVER", "VERSION", "TYPE", "URL", "VIA"]);
        for object in objects {
            for published in &object.published {
                let via = if published.via.listener.is_empty() {
                    "its own registry-url".to_owned()
                } else {
                    format!("{} listener {}", published.via.parent, published.via.listener)
                };
                table.add_row([
                    title(object),
                    published.server.to_string(),
                    published.version.to_string(),
                    published.r#type.to_string(),
                    published.url.to_string(),
                    via,
                ]);
            }
        }
        for line in table.to_string().lines() {
            let _ = writeln!(text, "{}", line.trim());
        }
    }
    for object in objects.iter().filter(|object| !object.problems.is_empty()) {
        let state = if object.published.is_empty() { "NOT PUBLISHED" } else { "published" };
        let state = if object.kind == "Document" { "DOCUMENT" } else { state };
        let _ = writeln!(text, "\n{} ({state})", title(object));
        for problem in &object.problems {
            let severity = problem.severity.as_str();
            let _ = writeln!(text, "  {severity} {}: {}", problem.code, problem.message);
            if !problem.remedy.is_empty() {
                let _ = writeln!(text, "    {} {}", arrow(problem.severity), problem.remedy);
            }
        }
    }
    text
}

fn arrow(severity: Severity) -> &'static str {
    if severity == Severity::Note { "hint:" } else { "do:" }
}

fn title(object: &Explanation) -> String {
    match (object.kind.as_str(), object.namespace.as_str()) {
        ("Document", _) => object.name.to_string(),
        (kind, namespace) => format!("{kind} {namespace}/{}", object.name),
    }
}

/// One line of numbers, and what was assumed.
pub(crate) fn summary(outcome: &Outcome) -> String {
    let summary = outcome.summary;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = format!(
        "\n{} published, {}.\n",
        count(summary.published, "URL"),
        count(summary.problems, "problem")
    );
    if summary.assumed > 0 {
        let _ = writeln!(
            text,
            "{} without a status assumed to be accepted and programmed (--assume-accepted=false to judge by status alone).",
            count(summary.assumed, "object"),
        );
    }
    text
}
