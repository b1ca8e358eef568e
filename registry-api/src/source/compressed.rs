//! Catalogues that are compressed with gzip.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::SourceError;

const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The text of a document, uncompressed where it is gzip.
///
/// # Errors
/// Where it is no gzip, no text, or has more than `most` bytes.
pub(super) fn text(bytes: &[u8], most: u64) -> Result<String, SourceError> {
    let mut plain = Vec::new();
    let bytes = if bytes.starts_with(&MAGIC) {
        let mut decoder = MultiGzDecoder::new(bytes).take(most + 1);
        decoder.read_to_end(&mut plain).map_err(|error| {
            SourceError::invalid("InvalidFormat", format!("it cannot be uncompressed: {error}"))
        })?;
        plain.as_slice()
    } else {
        bytes
    };
    if bytes.len() as u64 > most {
        return Err(SourceError::too_large("the catalogue", most));
    }
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| {
        SourceError::invalid("InvalidFormat", "it is neither JSON nor YAML: it is no UTF-8 text")
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed() {
        assert_eq!(text(b"{}", 10).unwrap(), "{}");
        assert_eq!(text(&gzip(b"{}"), 10).unwrap(), "{}");
        let bomb = gzip(&vec![0; 10 << 20]);
        assert!(bomb.len() < 20_000);
        for (bytes, reason) in [
            (bomb, "TooLarge"),
            (vec![b' '; 11], "TooLarge"),
            (vec![0x1f, 0x8b, 0], "InvalidFormat"),
            (vec![0xff, 0xfe], "InvalidFormat"),
        ] {
            assert_eq!(text(&bytes, 10).unwrap_err().reason, reason);
        }
    }
}
