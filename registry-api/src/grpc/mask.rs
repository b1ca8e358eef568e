//! Field masks over `Server` (AIP-157): which of its fields are filled in.

use prost_types::FieldMask;
use tonic::Status;
use waymark_proto::v1::Server;

use super::server;
use crate::catalogue::Served;

const FIELDS: [&str; 6] = ["name", "version", "server_json", "official", "revision", "stale"];

/// Which fields of a server are filled in; a bit each, in the order of [`FIELDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mask(u8);

impl Mask {
    /// Reads a mask: absent, empty or `*` for everything.
    pub(super) fn of(mask: Option<&FieldMask>) -> Result<Self, Status> {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            return Ok(Self(u8::MAX));
        }
        let mut bits = 0;
        for path in paths {
            match FIELDS.iter().position(|field| field == path) {
                Some(at) => bits |= 1 << at,
                None if path == "*" => bits = u8::MAX,
                None => {
                    let known = FIELDS.join(", ");
                    return Err(Status::invalid_argument(format!(
                        "read_mask: there is no field {path:.60?} of Server; there are {known}"
                    )));
                }
            }
        }
        Ok(Self(bits))
    }

    /// The same with name and version, without which a change says nothing.
    pub(super) fn with_key(self) -> Self {
        Self(self.0 | 0b11)
    }

    /// A server as far as the mask shows it.
    pub(super) fn server(self, served: &Served) -> Server {
        let mut full = server(served);
        let shows = |at: usize| self.0 >> at & 1 == 1;
        if !shows(0) {
            full.name.clear();
        }
        if !shows(1) {
            full.version.clear();
        }
        if !shows(2) {
            full.server_json.clear();
        }
        if !shows(3) {
            full.official = None;
        }
        if !shows(4) {
            full.revision = 0;
        }
        if !shows(5) {
            full.stale = false;
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        let of = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            Mask::of(Some(&FieldMask { paths })).map(|mask| mask.0).map_err(|status| status.code())
        };
        assert_eq!(Mask::of(None).unwrap().0, u8::MAX);
        assert_eq!(of(&[]), Ok(u8::MAX));
        assert_eq!(of(&["*"]), Ok(u8::MAX));
        assert_eq!(of(&["version", "stale"]), Ok(0b10_0010));
        assert_eq!(of(&["server_json.name"]), Err(tonic::Code::InvalidArgument));
        assert_eq!(of(&["name", "nothing"]), Err(tonic::Code::InvalidArgument));
        assert_eq!(Mask(0b1000).with_key().0, 0b1011);
    }
}
