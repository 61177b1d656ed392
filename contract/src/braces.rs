//! Ranges in braces, as shells and WebDataset write several files: `train-{000..123}.tar`.

use std::path::{Path, PathBuf};

/// Most files that a pattern may name.
const MOST: usize = 100_000;

/// The files that a path with ranges names, in order; `None` where it has no range. A range whose ends have leading zeros keeps their width.
///
/// # Errors
/// A range that counts down, or more than 100,000 files: the sentence says which.
pub fn in_braces(path: &Path) -> Option<Result<Vec<PathBuf>, String>> {
    let text = path.to_str()?;
    next_range(text)?;
    Some(expand(text))
}

/// A range in a text: what stands before it, its ends, the width of its numbers, and what stands behind it.
struct InText<'a> {
    before: &'a str,
    from: u64,
    to: u64,
    width: usize,
    after: &'a str,
}

fn next_range(text: &str) -> Option<InText<'_>> {
    text.match_indices('{').find_map(|(open, _)| {
        let close = open + text[open..].find('}')?;
        let (from, to) = text[open + 1..close].split_once("..")?;
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        let padded = [from, to].iter().any(|end| end.len() > 1 && end.starts_with('0'));
        Some(InText {
            before: &text[..open],
            from: number(from)?,
            to: number(to)?,
            width: if padded { from.len().max(to.len()) } else { 0 },
            after: &text[close + 1..],
        })
    })
}

fn expand(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut names = vec![text.to_owned()];
    // Each round replaces the first range of every name; all names have the same ranges.
    while let Some(range) = names.first().and_then(|name| next_range(name)) {
        let (from, to, width) = (range.from, range.to, range.width);
        if from > to {
            return Err(format!("the range {{{from}..{to}}} counts down"));
        }
        let count = usize::try_from(to - from).ok().and_then(|n| n.checked_add(1)?.checked_mul(names.len()));
        if count.is_none_or(|count| count > MOST) {
            return Err(format!("the path names more than {MOST} files"));
        }
        names = names
            .iter()
            .filter_map(|name| next_range(name))
            .flat_map(|range| (from..=to).map(move |n| format!("{}{n:0width$}{}", range.before, range.after)))
            .collect();
    }
    Ok(names.into_iter().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<String> {
        let all = in_braces(Path::new(path)).unwrap().unwrap();
        all.into_iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn ranges_are_counted_out_in_order() {
        assert_eq!(names("s-{008..011}.tar"), ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]);
        assert_eq!(names("{9..10}"), ["9", "10"]);
        assert_eq!(names("{0..1}/x-{00..01}"), ["0/x-00", "0/x-01", "1/x-00", "1/x-01"]);
        assert_eq!(names("{a}{7..7}"), ["{a}7"]);
        for plain in ["a.tar", "{a,b}.tar", "{..}", "{1..}", "{-1..2}", "{1..2", "}{"] {
            assert!(in_braces(Path::new(plain)).is_none(), "{plain}");
        }
    }

    #[test]
    fn what_is_no_range_of_files_is_told() {
        let fails = |path: &str| in_braces(Path::new(path)).unwrap().unwrap_err();
        assert!(fails("{5..4}").contains("counts down"));
        for many in ["{0..100000}", "{0..18446744073709551615}", "{0..999}{0..999}"] {
            assert!(fails(many).contains("more than 100000"), "{many}");
        }
        assert_eq!(names("{0..99999}").len(), 100_000);
    }
}
