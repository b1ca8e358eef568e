//! From how a registry stands to the status of its MCPRegistry, and to what there is to tell. Pure:
//! the same state gives the same status, so that nothing is written when nothing has changed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::crd::{MCPRegistryStatus, Phase, StorageRefStatus};
use crate::config::Fault;
use crate::source::{self, Cause, SourceStatus};

/// Whether the source can be got at.
pub(super) const SOURCE_AVAILABLE: &str = "SourceAvailable";
/// Whether what it holds can be used.
pub(super) const DATA_VALID: &str = "DataValid";
/// Whether the registry shows what the source holds.
pub(super) const SYNC_SUCCESSFUL: &str = "SyncSuccessful";

/// Most characters of a condition's message.
const MAX_MESSAGE: usize = 1024;
/// Rejected entries that a message names.
const NAMED: usize = 3;

/// How a registry stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    /// Generation of the MCPRegistry.
    pub(super) generation: Option<i64>,
    /// The trigger that it carries.
    pub(super) trigger: Option<String>,
    /// What is wrong with its spec.
    pub(super) faults: Vec<Fault>,
    /// How its source stands; `None` for the type discovery.
    pub(super) source: Option<SourceStatus>,
    /// Server versions that are served.
    pub(super) servers: usize,
    /// Those of them that run in a cluster.
    pub(super) deployed: usize,
    /// Where it is served.
    pub(super) endpoint: Option<String>,
    /// Where the copy is.
    pub(super) storage: Option<StorageRefStatus>,
    /// Whether it is being deleted.
    pub(super) deleting: bool,
    /// What went wrong beside the source: the copy, the Deployment.
    pub(super) trouble: Option<Trouble>,
}

/// What went wrong beside the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Reason of the condition.
    pub(super) reason: &'static str,
    /// What is wrong.
    pub(super) message: String,
}

/// One of the three conditions: its status, reason and message.
type Verdict = (&'static str, &'static str, String);

fn cut(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The status that follows on `old`.
pub(super) fn status(
    old: &MCPRegistryStatus,
    observed: &Observed,
    now: Timestamp,
) -> MCPRegistryStatus {
    let mut status = MCPRegistryStatus {
        observed_generation: observed.generation,
        api_endpoint: observed.endpoint.clone(),
        storage_ref: observed.storage.clone(),
        server_count: whole(observed.servers),
        deployed_server_count: whole(observed.deployed),
        ..old.clone()
    };
    let (phase, message, verdicts) = judge(old, observed);
    status.phase = phase;
    status.message = Some(cut(&message));
    if let Some(verdicts) = verdicts {
        let kinds = [SOURCE_AVAILABLE, DATA_VALID, SYNC_SUCCESSFUL];
        let conditions = kinds.into_iter().zip(verdicts);
        status.conditions = conditions
            .map(|(kind, verdict)| condition(old, kind, verdict, observed, now))
            .collect();
    }
    if let Some(source) = &observed.source {
        status.rejected_count = whole(source.rejected);
        status.sync_attempts = i64::from(source.attempts);
        if source.phase == source::Phase::Complete {
            let known = old.last_sync_hash == source.hash && old.phase != Phase::Failed;
            let asked = old.last_sync_trigger != source.trigger;
            let same = old.observed_generation == observed.generation;
            if !(known && same) || asked || old.last_sync_time.is_none() {
                status.last_sync_time = source.last_sync.map(|at| Time(seconds(at)));
            }
            status.last_sync_hash.clone_from(&source.hash);
            status.last_sync_trigger.clone_from(&source.trigger);
        }
    }
    status
}

fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn judge(old: &MCPRegistryStatus, observed: &Observed) -> (Phase, String, Option<[Verdict; 3]>) {
    if observed.deleting {
        let message = "The registry is being taken down".to_owned();
        return (Phase::Terminating, message, None);
    }
    if !observed.faults.is_empty() {
        let faults: Vec<String> = observed.faults.iter().map(ToString::to_string).collect();
        let message = format!("The spec contradicts itself: {}", faults.join("; "));
        let unknown =
            || ("Unknown", "InvalidSpec", "The spec has to be corrected first".to_owned());
        let verdicts = [unknown(), unknown(), ("False", "InvalidSpec", cut(&message))];
        return (Phase::Failed, message, Some(verdicts));
    }
    let served = count(observed.servers, "server");
    let Some(source) = &observed.source else {
        let message = format!("Serving {served}, {} of them deployed", observed.deployed);
        let none = |reason| ("True", reason, "There is no source but deployed servers".to_owned());
        let verdicts =
            [none("SourceFound"), none("DataValid"), ("True", "SyncSuccessful", message.clone())];
        return troubled((Phase::Ready, message, verdicts), observed);
    };
    match (source.phase, &source.failure) {
        (source::Phase::Pending, _) => {
            // A restarted controller reads everything anew: what was said before holds until then.
            if old.observed_generation == observed.generation
                && old.last_sync_trigger == observed.trigger
                && !old.conditions.is_empty()
            {
                return (old.phase, old.message.clone().unwrap_or_default(), None);
            }
            let unknown = || ("Unknown", "Syncing", "The source is being read".to_owned());
            let message = "The source is being read".to_owned();
            (Phase::Syncing, message, Some([unknown(), unknown(), unknown()]))
        }
        (_, Some(failure)) => failed(old, observed, source, failure),
        (_, None) => {
            let message = match source.rejected {
                0 => format!("Serving {served}"),
                n => format!(
                    "Serving {served}; {} left out",
                    count(n, "invalid entry").replace("entrys", "entries")
                ),
            };
            let valid = if source.rejected == 0 {
                ("True", "DataValid", "All entries are valid".to_owned())
            } else {
                ("True", "EntriesRejected", rejected(source))
            };
            let available = ("True", "SourceFound", "The source was read".to_owned());
            let synced =
                ("True", "SyncSuccessful", "The registry shows what the source has".to_owned());
            troubled((Phase::Ready, message, [available, valid, synced]), observed)
        }
    }
}

/// A registry that is served, but beside which something went wrong.
fn troubled(
    (phase, message, [available, valid, synced]): (Phase, String, [Verdict; 3]),
    observed: &Observed,
) -> (Phase, String, Option<[Verdict; 3]>) {
    match &observed.trouble {
        None => (phase, message, Some([available, valid, synced])),
        Some(trouble) => {
            let synced = ("False", trouble.reason, cut(&trouble.message));
            let message = format!("{message}, but {}", trouble.message);
            (Phase::Failed, message, Some([available, valid, synced]))
        }
    }
}

fn rejected(source: &SourceStatus) -> String {
    let first = source.listed.iter().take(NAMED).map(|r| format!("{}: {}", r.path, r.message));
    let first: Vec<String> = first.collect();
    let more = source.rejected.saturating_sub(first.len());
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    cut(&format!("Left out: {}{more}", first.join("; ")))
}

fn failed(
    old: &MCPRegistryStatus,
    observed: &Observed,
    source: &SourceStatus,
    failure: &source::SourceError,
) -> (Phase, String, Option<[Verdict; 3]>) {
    let reason = failure.reason;
    let said = cut(&failure.message);
    let bad = || ("False", reason, said.clone());
    let kept = |kind: &str| {
        let condition = old.conditions.iter().find(|condition| condition.type_ == kind);
        match condition.map(|condition| condition.status.as_str()) {
            Some("True") => ("True", "DataValid", "What was read last is valid".to_owned()),
            _ => ("Unknown", "NotRead", "The source could not be read".to_owned()),
        }
    };
    let found = || ("True", "SourceFound", "The source was read".to_owned());
    let verdicts = match failure.cause {
        Cause::Source | Cause::Denied => [bad(), kept(DATA_VALID), bad()],
        Cause::Data => [found(), bad(), bad()],
        Cause::Store => [found(), kept(DATA_VALID), bad()],
    };
    let serving = match (failure.cause, observed.servers, source.last_sync, &old.last_sync_time) {
        (Cause::Denied, ..) => "; what was there before is taken away".to_owned(),
        (_, 0, ..) => String::new(),
        (_, n, Some(at), _) => {
            format!("; still serving {} as of {}", count(n, "server"), seconds(at))
        }
        (_, n, None, Some(Time(at))) => {
            format!("; still serving {} as of {}", count(n, "server"), seconds(*at))
        }
        (_, n, None, None) => format!("; still serving {}", count(n, "server")),
    };
    (Phase::Failed, format!("{said}{serving}"), Some(verdicts))
}

fn condition(
    old: &MCPRegistryStatus,
    kind: &str,
    (status, reason, message): Verdict,
    observed: &Observed,
    now: Timestamp,
) -> Condition {
    let before = old.conditions.iter().find(|c| c.type_ == kind && c.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: observed.generation,
        last_transition_time: before
            .map_or_else(|| Time(seconds(now)), |c| c.last_transition_time.clone()),
    }
}

/// What there is to tell of a change: reason, sentence, and whether it is a warning.
pub(super) fn news(
    old: &MCPRegistryStatus,
    new: &MCPRegistryStatus,
) -> Vec<(&'static str, String, bool)> {
    let mut news = Vec::new();
    let message = new.message.clone().unwrap_or_default();
    let of = |status: &MCPRegistryStatus| {
        let condition = status.conditions.iter().find(|c| c.type_ == SYNC_SUCCESSFUL);
        condition.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    };
    let (was, is) = (of(old), of(new));
    if let Some((status, reason, _)) = &is {
        let before = was.as_ref().map(|(status, ..)| status.as_str());
        if status == "False" && was != is {
            news.push((known(reason), message, true));
        } else if status == "True"
            && (before != Some("True") || old.last_sync_hash != new.last_sync_hash)
        {
            news.push(("SyncSuccessful", message, false));
        }
    }
    let (before, now) = (old.deployed_server_count, new.deployed_server_count);
    if before != now && new.phase != Phase::Terminating {
        let reason = if now > before { "EndpointDiscovered" } else { "EndpointRemoved" };
        news.push((reason, format!("Deployed servers: {now}, before: {before}"), false));
    }
    news
}

/// Reasons of failures, as conditions and Events have them.
pub const REASONS: [&str; 34] = [
    "AddressNotAllowed",
    "CertificateInvalid",
    "ConfigMapNotFound",
    "CredentialsUnavailable",
    "DeploymentFailed",
    "Empty",
    "FileNotFound",
    "Forbidden",
    "HostKeyUnknown",
    "InvalidBody",
    "InvalidFormat",
    "InvalidRedirect",
    "InvalidRepository",
    "InvalidSpec",
    "KeyNotFound",
    "NoCluster",
    "NoValidEntries",
    "NotFound",
    "RateLimited",
    "ReferenceNotFound",
    "ReferenceNotGranted",
    "RegistryChainTooLong",
    "RegistryLoop",
    "StorageFailed",
    "StoreFailed",
    "SyncFailed",
    "TimedOut",
    "TooLarge",
    "TooManyRedirects",
    "Unauthorized",
    "UnexpectedStatus",
    "Unreachable",
    "Unreadable",
    "WatchFailed",
];

/// A reason as an Event's: those of failures are of a fixed set, but for ones of an older version.
fn known(reason: &str) -> &'static str {
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("SyncFailed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Rejected, SourceError};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn good(hash: &str, when: i64) -> SourceStatus {
        SourceStatus {
            phase: source::Phase::Complete,
            last_sync: Some(at(when)),
            hash: Some(hash.into()),
            entries: 2,
            ..SourceStatus::default()
        }
    }

    fn bad(cause: Cause, reason: &'static str, attempts: u32) -> SourceStatus {
        SourceStatus {
            phase: source::Phase::Failed,
            attempts,
            failure: Some(SourceError { cause, reason, message: "it is so".into() }),
            ..good("one", 0)
        }
    }

    fn observed(source: SourceStatus) -> Observed {
        let generation = Some(1);
        Observed { generation, source: Some(source), servers: 2, ..Observed::default() }
    }

    fn verdicts(status: &MCPRegistryStatus) -> String {
        let all = status.conditions.iter().map(|c| format!("{}/{}", c.status, c.reason));
        all.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_life_of_a_registry() {
        let mut old = MCPRegistryStatus::default();
        let still = "it is so; still serving 2 servers as of 2027-01-15T08:00:00Z";
        // What is so, when; the phase, the message, the conditions, and what is told.
        type Step<'s> = (Observed, i64, Phase, &'s str, &'s str, &'s [&'s str]);
        let steps: Vec<Step<'_>> = vec![
            (
                Observed { servers: 0, ..observed(SourceStatus::default()) },
                0,
                Phase::Syncing,
                "The source is being read",
                "Unknown/Syncing Unknown/Syncing Unknown/Syncing",
                &[],
            ),
            (
                observed(good("one", 0)),
                1,
                Phase::Ready,
                "Serving 2 servers",
                "True/SourceFound True/DataValid True/SyncSuccessful",
                &["SyncSuccessful"],
            ),
            // The same again, later: nothing changes.
            (
                observed(good("one", 60)),
                61,
                Phase::Ready,
                "Serving 2 servers",
                "True/SourceFound True/DataValid True/SyncSuccessful",
                &[],
            ),
            // After a restart of the controller.
            (
                observed(SourceStatus::default()),
                62,
                Phase::Ready,
                "Serving 2 servers",
                "True/SourceFound True/DataValid True/SyncSuccessful",
                &[],
            ),
            (
                observed(bad(Cause::Source, "Unreachable", 1)),
                70,
                Phase::Failed,
                still,
                "False/Unreachable True/DataValid False/Unreachable",
                &["Unreachable"],
            ),
            (
                observed(bad(Cause::Source, "Unreachable", 2)),
                80,
                Phase::Failed,
                still,
                "False/Unreachable True/DataValid False/Unreachable",
                &[],
            ),
            (
                observed(bad(Cause::Data, "InvalidFormat", 3)),
                90,
                Phase::Failed,
                still,
                "True/SourceFound False/InvalidFormat False/InvalidFormat",
                &["InvalidFormat"],
            ),
            (
                Observed { servers: 0, ..observed(bad(Cause::Denied, "ReferenceNotGranted", 1)) },
                95,
                Phase::Failed,
                "it is so; what was there before is taken away",
                "False/ReferenceNotGranted Unknown/NotRead False/ReferenceNotGranted",
                &["ReferenceNotGranted"],
            ),
            (
                Observed {
                    source: Some(SourceStatus {
                        rejected: 5,
                        listed: vec![Rejected { path: "x".into(), message: "is bad".into() }; 5],
                        ..good("one", 100)
                    }),
                    deployed: 1,
                    ..observed(SourceStatus::default())
                },
                100,
                Phase::Ready,
                "Serving 2 servers; 5 invalid entries left out",
                "True/SourceFound True/EntriesRejected True/SyncSuccessful",
                &["SyncSuccessful", "EndpointDiscovered"],
            ),
            (
                Observed {
                    faults: vec![Fault { path: "spec.filter".into(), message: "no".into() }],
                    deployed: 1,
                    ..observed(SourceStatus::default())
                },
                110,
                Phase::Failed,
                "The spec contradicts itself: spec.filter: no",
                "Unknown/InvalidSpec Unknown/InvalidSpec False/InvalidSpec",
                &["InvalidSpec"],
            ),
            (
                Observed { deleting: true, ..observed(good("one", 100)) },
                120,
                Phase::Terminating,
                "The registry is being taken down",
                "Unknown/InvalidSpec Unknown/InvalidSpec False/InvalidSpec",
                &[],
            ),
        ];
        for (step, (observed, now, phase, message, conditions, told)) in
            steps.into_iter().enumerate()
        {
            let new = status(&old, &observed, at(now));
            assert_eq!(new.phase, phase, "step {step}");
            assert_eq!(new.message.as_deref(), Some(message), "step {step}");
            assert_eq!(verdicts(&new), conditions, "step {step}");
            let news: Vec<&str> = news(&old, &new).into_iter().map(|(reason, ..)| reason).collect();
            assert_eq!(news, told, "step {step}");
            if told.is_empty() && (2..4).contains(&step) {
                assert_eq!(new, old, "step {step}");
            }
            // Nothing has changed, whenever it is looked.
            assert_eq!(status(&new, &observed, at(now + 1000)), new, "step {step}");
            old = new;
        }
    }

    #[test]
    fn when_it_was_synced() {
        let first = status(&MCPRegistryStatus::default(), &observed(good("one", 0)), at(0));
        let time = |status: &MCPRegistryStatus| status.last_sync_time.clone().map(|time| time.0);
        assert_eq!(time(&first), Some(at(0)));
        let same = status(&first, &observed(good("one", 60)), at(60));
        assert_eq!(time(&same), Some(at(0)));
        let other = status(&first, &observed(good("two", 60)), at(60));
        assert_eq!((time(&other), other.last_sync_hash.as_deref()), (Some(at(60)), Some("two")));
        let asked = SourceStatus { trigger: Some("now".into()), ..good("one", 60) };
        let asked = status(&first, &observed(asked), at(60));
        assert_eq!((time(&asked), asked.last_sync_trigger.as_deref()), (Some(at(60)), Some("now")));
        let spec = Observed { generation: Some(2), ..observed(good("one", 60)) };
        let spec = status(&first, &spec, at(60));
        assert_eq!((time(&spec), spec.observed_generation), (Some(at(60)), Some(2)));
    }

    #[test]
    fn messages_are_bounded() {
        let mut failed = bad(Cause::Data, "InvalidFormat", 1);
        failed.failure.as_mut().unwrap().message = "ü".repeat(5000);
        let status = status(&MCPRegistryStatus::default(), &observed(failed), at(0));
        assert_eq!(status.message.unwrap().chars().count(), MAX_MESSAGE);
        assert!(status.conditions.iter().all(|c| c.message.chars().count() <= MAX_MESSAGE));
    }
}
