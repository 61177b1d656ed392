//! The picture that somebody dropped into the inbox: every failure is the submission's, with its reason and a remedy.

use super::picture::{PictureRefusal, decode};
use crate::error::{Error, Result};
use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::{Code, FaultKind, ImageConfig};
use std::io::Read;
use std::path::Path;

/// Read and decode a submitted picture to planar bytes [channels, height, width] of the size in `image`.
///
/// At most `limits.max_bytes` + 1 bytes are read, and nothing is allocated for more than `limits.max_pixels` pixels, whatever the header claims.
/// Errors: `Submission`, always, except where the machine is at fault (memory, disk).
pub fn decode_submission(path: &Path, limits: &ImageLimits, image: &ImageConfig) -> Result<Vec<u8>> {
    let refused = |refusal: &PictureRefusal| Error::new(Code::PictureUnusable, format!("{}: {refusal}", path.display()), refusal.remedy());
    let unreadable = |error: std::io::Error| {
        let known = Error::from(error);
        match known.fault().kind {
            FaultKind::Resource => known,
            _ => known
                .coded(Code::PictureUnusable)
                .helped("submit the picture again, readable for the service"),
        }
    };
    // A pipe or a device would block or never end; look before opening.
    let meta = fs_err::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(Error::new(
            Code::PictureUnusable,
            format!("{}: not a regular file", path.display()),
            "submit the picture itself",
        ));
    }
    if meta.len() > limits.max_bytes {
        return Err(refused(&PictureRefusal::TooManyBytes {
            bytes: meta.len(),
            max: limits.max_bytes,
        }));
    }
    let mut bytes = Vec::new();
    fs_err::File::open(path)
        .map_err(unreadable)?
        .take(limits.max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    decode(&bytes, limits, image).map_err(|r| refused(&r))
}
