//! Which entries of a source are taken: by name glob and by tag.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::meta;
use crate::server::ServerDetail;

/// Include and exclude lists, as configured. An empty include list takes everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lists {
    /// What is taken; everything where empty.
    pub include: Vec<String>,
    /// What is left out, even where included.
    pub exclude: Vec<String>,
}

/// A filter's configuration, in the field names of ToolHive's registry server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// Globs over server names; `*` crosses `/`.
    pub names: Lists,
    /// Exact tags.
    pub tags: Lists,
}

/// A glob that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: the glob {glob:?} cannot be read: {reason}")]
pub struct FilterError {
    path: String,
    glob: String,
    reason: String,
}

/// A filter ready for use.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include: Vec<GlobMatcher>,
    exclude: Vec<GlobMatcher>,
    tags: Lists,
}

impl Filter {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// Every glob that cannot be read.
    pub fn new(config: &FilterConfig) -> Result<Self, Vec<FilterError>> {
        let mut errors = Vec::new();
        let mut compile = |globs: &[String], list: &str| {
            let mut matchers = Vec::with_capacity(globs.len());
            for (at, glob) in globs.iter().enumerate() {
                match GlobBuilder::new(glob).literal_separator(false).build() {
                    Ok(built) => matchers.push(built.compile_matcher()),
                    Err(error) => errors.push(FilterError {
                        path: format!("names.{list}[{at}]"),
                        glob: glob.chars().take(100).collect(),
                        reason: error.kind().to_string(),
                    }),
                }
            }
            matchers
        };
        let include = compile(&config.names.include, "include");
        let exclude = compile(&config.names.exclude, "exclude");
        if errors.is_empty() {
            Ok(Self { include, exclude, tags: config.tags.clone() })
        } else {
            Err(errors)
        }
    }

    /// Whether every entry is taken.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.include.is_empty()
            && self.exclude.is_empty()
            && self.tags.include.is_empty()
            && self.tags.exclude.is_empty()
    }

    /// Whether an entry is taken: its name and its tags both pass; exclude wins over include.
    #[must_use]
    pub fn takes(&self, server: &ServerDetail) -> bool {
        let named = |globs: &[GlobMatcher]| globs.iter().any(|g| g.is_match(&server.name));
        if named(&self.exclude) || !(self.include.is_empty() || named(&self.include)) {
            return false;
        }
        let tagged = |list: &[String]| meta::tags(server).any(|tag| list.iter().any(|t| t == tag));
        !tagged(&self.tags.exclude) && (self.tags.include.is_empty() || tagged(&self.tags.include))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn table() {
        // (include names, exclude names, include tags, exclude tags, taken)
        for (include, exclude, with, without, taken) in [
            (&[][..], &[][..], &[][..], &[][..], true),
            (&["com.company/*"], &[], &[], &[], true),
            (&["com.*"], &[], &[], &[], true),
            (&["*/github"], &[], &[], &[], true),
            (&["com.company.*"], &[], &[], &[], false),
            (&["com.*"], &["*github"], &[], &[], false),
            (&[], &["org.*"], &[], &[], true),
            (&[], &[], &["git"], &[], true),
            (&[], &[], &["Git"], &[], false),
            (&[], &[], &["git"], &["devtools"], false),
            (&["org.*"], &[], &["git"], &[], false),
        ] {
            let server = ServerDetail {
                name: "com.company/github".into(),
                meta:
                    json!({meta::PUBLISHER_PROVIDED: {"x": {"y": {"tags": ["git", "devtools"]}}}})
                        .as_object()
                        .cloned(),
                ..ServerDetail::default()
            };
            let config = FilterConfig {
                names: Lists { include: strings(include), exclude: strings(exclude) },
                tags: Lists { include: strings(with), exclude: strings(without) },
            };
            assert_eq!(Filter::new(&config).unwrap().takes(&server), taken, "{config:?}");
        }
    }

    #[test]
    fn bad_globs_are_all_named() {
        let config = FilterConfig {
            names: Lists { include: strings(&["a", "[b"]), exclude: strings(&["{c"]) },
            ..FilterConfig::default()
        };
        let errors = Filter::new(&config).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(paths, ["names.include[1]", "names.exclude[0]"]);
    }
}
