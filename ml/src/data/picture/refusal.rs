//! Why a picture is not read, and what a person can do about it.

use super::MAX_SIDE;
use std::fmt;

/// Why a picture is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PictureRefusal {
    /// Nothing in it.
    Empty,
    /// Larger than `max_bytes`.
    TooManyBytes {
        /// Bytes of the file.
        bytes: u64,
        /// Allowed.
        max: u64,
    },
    /// Text, whatever its name says.
    Text,
    /// Neither text nor a format that is known here.
    Unknown,
    /// A picture format that is not read.
    Unsupported(String),
    /// Several pictures in one file.
    Animated,
    /// The header claims more pixels than allowed.
    TooManyPixels {
        /// Claimed.
        width: u32,
        /// Claimed.
        height: u32,
        /// Allowed.
        max: u64,
    },
    /// A side is longer than any format but PNG and BMP allows.
    TooLongSide {
        /// Claimed.
        width: u32,
        /// Claimed.
        height: u32,
    },
    /// Resampling would take too much memory.
    TooLong {
        /// Found width and height.
        found: (u32, u32),
        /// Wanted width and height.
        wanted: (u32, u32),
    },
    /// Not the model's size, and `resize` is `refuse`.
    WrongSize {
        /// Found width and height.
        found: (u32, u32),
        /// Wanted width and height.
        wanted: (u32, u32),
    },
    /// The transforms end in another size than the model's.
    SizeAfterSteps {
        /// Width and height after them.
        found: (u32, u32),
        /// Wanted width and height.
        wanted: (u32, u32),
    },
    /// The file ends before the picture does.
    Truncated,
    /// The decoder's words.
    Damaged(String),
}

impl fmt::Display for PictureRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the file is empty"),
            Self::TooManyBytes { bytes, max } => write!(f, "the file has {bytes} bytes, more than the {max} allowed"),
            Self::Text => write!(f, "the file holds text, not a picture, whatever its name says"),
            Self::Unknown => write!(f, "the file is not a picture (its first bytes fit no picture format)"),
            Self::Unsupported(what) => write!(f, "{what} is not supported"),
            Self::Animated => write!(f, "the file is animated: it holds several pictures"),
            Self::TooManyPixels { width, height, max } => {
                write!(f, "the picture claims to be {width} × {height} pixels, more than the {max} allowed")
            }
            Self::TooLongSide { width, height } => {
                write!(
                    f,
                    "the picture claims to be {width} × {height} pixels; no side may have more than {MAX_SIDE}"
                )
            }
            Self::TooLong { found, wanted } => write!(
                f,
                "the picture of {} × {} pixels (width × height) is too long and thin, or too large, to be brought to {} × {} in the memory that one picture may take",
                found.0, found.1, wanted.0, wanted.1
            ),
            Self::WrongSize { found, wanted } => {
                write!(
                    f,
                    "the picture is {} × {} pixels (width × height), the model reads {} × {}",
                    found.0, found.1, wanted.0, wanted.1
                )
            }
            Self::SizeAfterSteps { found, wanted } => write!(
                f,
                "the picture is {} × {} pixels (width × height) after data.image.transforms, the model reads {} × {}",
                found.0, found.1, wanted.0, wanted.1
            ),
            Self::Truncated => write!(f, "the file is truncated: it ends before the picture does"),
            Self::Damaged(what) => write!(f, "the file is damaged: {what}"),
        }
    }
}

impl PictureRefusal {
    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Empty | Self::Truncated => "copy the file again, and move it in under its final name only when it is complete",
            Self::TooManyBytes { .. } => "submit a smaller picture, or raise inbox.max_bytes",
            Self::TooManyPixels { .. } => "submit a smaller picture, or raise inbox.max_pixels",
            Self::TooLongSide { .. } | Self::TooLong { .. } => "submit the part of the picture that matters, cut out",
            Self::Text | Self::Unknown => "submit the picture itself, as PNG, JPEG, WebP or BMP",
            Self::Unsupported(_) => "convert it to PNG, JPEG, WebP or BMP",
            Self::Animated => "submit one still picture",
            Self::WrongSize { .. } => {
                "submit the picture at the size that the model was given, or set `data.image.resize: stretch` (or `center-crop`), as training did"
            }
            Self::SizeAfterSteps { .. } => {
                "submit the picture at the size that the model was given, or end data.image.transforms with the crop that training made"
            }
            Self::Damaged(_) => "open it in a viewer, save it anew as PNG and submit that",
        }
    }
}

/// The decoder's error.
pub(super) fn refusal(error: &image::ImageError) -> PictureRefusal {
    use image::ImageError as E;
    let text = error.to_string();
    let lower = text.to_lowercase();
    match error {
        E::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => PictureRefusal::Truncated,
        E::Unsupported(_) => PictureRefusal::Unsupported(format!("this kind of picture ({text})")),
        _ if lower.contains("unexpected end") || lower.contains("unexpected eof") || lower.contains("failed to fill whole buffer") => {
            PictureRefusal::Truncated
        }
        _ => PictureRefusal::Damaged(text),
    }
}
